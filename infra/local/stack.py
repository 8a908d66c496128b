"""The local stack: LocalStack, the databases and the services, owned by one process and stopped with it.

    with Stack() as stack:
        stack.start()
        stack.start_services()
        while not_interrupted():
            for event in stack.tend():
                print(event)

Drive it from the main thread (`infra/local/processes.py` says why). The owner must end the `with` block on SIGTERM: that is how
`Stack.stop_found`, another process, stops it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self

from infra.local import processes
from infra.local.bootstrap import Resources, bootstrap, forget_old_states
from infra.local.databases import SOURCE, SOURCE_OWNER, set_up_source, set_up_warehouse
from infra.local.localstack import LocalStack, start_localstack
from infra.local.machine import LOOPBACK, StackError, free_port, is_free, remove_place
from infra.local.postgres import Cluster
from infra.local.processes import Child, Services
from infra.local.state import CHOSEN, SOURCE_NAME_VARIABLE, Home, StackState, default_home, service_environment
from infra.local.ticker import Ticker, send_ingest
from infra.topology import SOURCE_DATABASE, Schedule, Source, Topology, of_source, read_topology

_SET_UP = {"source": set_up_source, "warehouse": set_up_warehouse}
_LEFT_BEHIND = timedelta(seconds=20)
_AFTER_DRAIN = timedelta(seconds=15)
_OLD_STATES_FORGOTTEN_EVERY = timedelta(minutes=10)


class Stack:
    """One stack in one state directory. `settings` are variables for the services that differ from the topology's."""

    def __init__(
        self, home: Path | None = None, *, topology: Topology | None = None, settings: dict[str, str] | None = None
    ) -> None:
        self.topology = topology or read_topology()
        self.localstack: LocalStack | None = None
        self.clusters: dict[str, Cluster] = {}
        self._home = Home(home or default_home())
        self._settings = settings or {}
        self._database_urls: dict[str, str] = {}
        self._state: StackState | None = None
        self._services = Services(self._start_service)
        self._adopted: dict[str, Child] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @staticmethod
    def found(home: Path | None = None) -> StackState | None:
        """The stack that some process, perhaps this one, runs in `home`; None if there is none or it is not up yet."""
        state = Home(home or default_home()).read()
        return state if state is not None and state.is_up() else None

    @staticmethod
    def stop_found(home: Path | None = None) -> bool:
        """Stop what runs in `home`, or what a killed owner left there; False if there was nothing."""
        place = Home(home or default_home())
        state = place.read()
        if state is None:
            return False
        owner = processes.find(state.owner)
        left = [process_id for process_id in state.processes.values() if processes.find(process_id)]
        if place.is_taken() and owner is not None:
            owner.send_signal(signal.SIGTERM)
            budget = read_topology().stop_timeout_s
            if not processes.wait_until(lambda: not place.is_taken(), within=timedelta(seconds=budget) + _LEFT_BEHIND):
                owner.kill()
        _sweep(place.read() or state)
        return owner is not None or bool(left)

    @staticmethod
    def remove(home: Path | None = None) -> None:
        """Stop what runs in `home`, and removes its data."""
        directory = home or default_home()
        Stack.stop_found(directory)
        remove_place(directory)
        shutil.rmtree(directory, ignore_errors=True)

    @property
    def state(self) -> StackState:
        """Raises: StackError before `start`."""
        if self._state is None:
            raise StackError("the local stack was not started; start it first")
        return self._state

    @property
    def resources(self) -> Resources:
        """The queues, buckets and secrets. Raises: StackError before they exist."""
        if self.state.resources is None:
            raise StackError("the local stack is not up yet; start it first")
        return self.state.resources

    @property
    def source_owner_url(self) -> str | None:
        """Where the application writes; None for a source of the person's own."""
        return self.clusters["source"].url(SOURCE, SOURCE_OWNER) if "source" in self.clusters else None

    def database_url(self, name: str) -> str:
        """The URL that the services use for `source` or `warehouse`."""
        return self._database_urls[name]

    def start(
        self,
        *,
        source_url: str | None = None,
        warehouse_url: str | None = None,
        sources: Mapping[str, Source] | None = None,
        other_urls: Mapping[str, str] = MappingProxyType({}),
        localstack_port: int | None = None,
    ) -> Resources:
        """Start LocalStack and the databases for which no URL is given, and sets them up. Raises: StackError.

        `sources` are those of the contract, if it has others than one database; `other_urls` are those of further databases
        among them, by name.
        """
        if sources is not None:
            self.topology = self.topology.with_sources(sources)
        others = {of_source(SOURCE_DATABASE, name): url for name, url in other_urls.items()}
        urls = {"source": source_url, "warehouse": warehouse_url, **others}
        urls = {name: urls[name] for name in self.topology.secrets}
        if localstack_port is not None and not is_free(localstack_port):
            raise StackError(
                f"LocalStack needs port {localstack_port} of {LOOPBACK}, which is in use; stop its owner or choose another"
            )
        self._home.take()
        try:
            before = self._home.read()
            if before is not None:
                _sweep(before)
            self._state = StackState(
                stack=before.stack if before else secrets.token_hex(4),
                owner=processes.own_id(),
                ports=before.ports if before else {},
                database_urls={name: url for name, url in urls.items() if url is not None},
                chosen={name: self._settings[name] for name in CHOSEN if name in self._settings},
            )
            for name, url in urls.items():
                self._database_urls[name] = self._start_database(name) if url is None else url
            self._start_localstack(localstack_port)
            return self._bootstrap()
        except BaseException:
            self.stop()
            raise

    def ensure(self) -> Resources:
        """Start again what has died of LocalStack and the databases, and repeats the set-up: LocalStack forgets everything."""
        for name, cluster in self.clusters.items():
            if not cluster.is_running():
                self._start_cluster(name, cluster)
        if self.localstack is None or self.localstack.child.exit_code() is not None:
            self._start_localstack(None)
        return self._bootstrap()

    def start_services(self) -> None:
        """Start the three services, each a process."""
        self._services.start(self.topology.services)
        self._save()

    def stop_services(self) -> None:
        """Drain the services."""
        self._services.stop(within=timedelta(seconds=self.topology.drain_budget_s) + _AFTER_DRAIN)
        if self._state is not None:
            self._save()

    def adopt(self, name: str, child: Child) -> None:
        """Let a process that works on the stack, such as a simulated application, be stopped with it."""
        self._adopted[name] = child
        self._save()

    def tend(self) -> list[str]:
        """Restart whatever died since the last call; return one sentence per restart. Call it a few times a second."""
        died = [f"PostgreSQL '{name}'" for name, cluster in self.clusters.items() if not cluster.is_running()]
        if self.localstack is not None and self.localstack.child.exit_code() is not None:
            died.append("LocalStack")
        if died:
            self.ensure()
        events = [f"{name} had ended and was started again" for name in died]
        events += self._services.tend()
        if events:
            self._save()
        return events

    def tickers(self, interval: timedelta | None = None) -> list[Ticker]:
        """Ask for runs of each source, by default as often as the topology says, and forget old versions of states."""
        first, *others = self.topology.schedules.values()
        first = first.model_copy(update={"source": self._settings.get(SOURCE_NAME_VARIABLE, first.source)})
        tickers = [Ticker(partial(self._request_run, one), one.interval_instead_of(interval)) for one in (first, *others)]
        if self.topology.drop_zone:
            names = [schedule.source for schedule in (first, *others)]
            tickers.append(Ticker(lambda: forget_old_states(self.resources, names), _OLD_STATES_FORGOTTEN_EVERY))
        return tickers

    def _request_run(self, schedule: Schedule) -> None:
        resources = self.resources
        send_ingest(resources.endpoint_url, resources.region, resources.queue_urls[schedule.queue], schedule.source)

    def stop(self) -> None:
        """End everything, services first; the databases keep their data. May be repeated."""
        for child in self._adopted.values():
            child.stop(within=_LEFT_BEHIND)
        self._adopted.clear()
        self._services.stop(within=timedelta(seconds=self.topology.drain_budget_s) + _AFTER_DRAIN)
        if self.localstack is not None:
            self.localstack.stop()
        for cluster in self.clusters.values():
            cluster.stop()
        self.localstack, self.clusters = None, {}
        if self._state is not None:
            with suppress(OSError):  # a full disk: the file still lists processes that have ended, as a reader finds out
                self._home.write(self._state.model_copy(update={"processes": {}, "resources": None, "database_urls": {}}))
            self._state = None
        self._home.release()

    def _start_database(self, name: str) -> str:
        cluster = Cluster(name, self._home.directory)
        self.clusters[name] = cluster
        self._start_cluster(name, cluster)
        return _SET_UP[name](cluster)

    def _start_cluster(self, name: str, cluster: Cluster) -> None:
        cluster.start(self._port(name))
        self._save()

    def _start_localstack(self, port: int | None) -> None:
        self.localstack = start_localstack(
            self._home.directory / "localstack", port=self._port("localstack", port), region=self.topology.region
        )
        self._save()

    def _port(self, name: str, wanted: int | None = None) -> int:
        """The same as last time if it is free: a person may have noted it."""
        port = wanted or free_port(self.state.ports.get(name))
        self._state = self.state.model_copy(update={"ports": self.state.ports | {name: port}})
        return port

    def _bootstrap(self) -> Resources:
        if self.localstack is None:
            raise StackError("LocalStack does not run; start the stack first")
        embedded = {name: url for name, url in self._database_urls.items() if name in self.clusters}
        resources = bootstrap(self.topology, self.localstack.endpoint_url, self.state.stack, embedded)
        self._state = self.state.model_copy(update={"resources": resources})
        self._save()
        return resources

    def _start_service(self, name: str) -> Child:
        return processes.start(
            processes.python(f"services.{name}"),
            log=self._home.directory / f"{name}.log",
            environment=service_environment(name, self.state, os.environ) | self._settings,
            directory=self._home.directory,
        )

    def _save(self) -> None:
        clusters = {f"postgres-{name}": cluster.process_id for name, cluster in self.clusters.items()}
        running = {name: process_id for name, process_id in clusters.items() if process_id is not None}
        if self.localstack is not None:
            running["localstack"] = self.localstack.child.id
        running |= self._services.process_ids | {name: child.id for name, child in self._adopted.items()}
        self._state = self.state.model_copy(update={"processes": running, "restarts": self._services.restarts})
        self._home.write(self._state)


def _sweep(state: StackState) -> None:
    """Stop what a killed owner left. SIGINT is PostgreSQL's fast shutdown, and stops the others just as SIGTERM does."""
    processes.stop(state.processes.values(), within=_LEFT_BEHIND, first=signal.SIGINT)
