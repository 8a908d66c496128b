"""What the files of a local stack show: its services, and how psql reaches the star."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psutil

from contracts.contract import Contract
from contracts.datasets import DROP_ZONE
from infra.local import processes
from infra.local.databases import LOADER, WAREHOUSE
from infra.local.machine import LOOPBACK, StackError, write_private
from infra.local.postgres_binaries import find_binaries
from infra.local.stack import Stack
from infra.local.state import DEFAULT_PLACE, Home, StackState
from services.operator.local.events import LogTail, waits_in
from services.operator.status.report import Service
from services.operator.system import SERVICES

UP = "up"  # a word of the command line that started a stack
PGPASS_FILE = "pgpass"
LOG_END_BYTES = 256 * 1024
_SECRET_OPTIONS = frozenset({"password", "sslpassword", "passfile"})


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A stack that runs on this machine, by its directory."""

    home: Path

    def services(self) -> dict[str, Service]:
        """Every service, according to the stack's file, its processes and its logs."""
        state = Home(self.home).read()
        return {} if state is None else {name: _service(name, state, self.home / f"{name}.log") for name in SERVICES}

    def psql(self) -> str | None:
        """The psql command that opens the star. It holds no password, and needs none for the stack's own warehouse."""
        state = Home(self.home).read()
        if state is None:
            return None
        if (own := state.database_urls.get("warehouse")) is not None:
            return psql_command(without_secrets(own))
        passfile = quote(str(self.home / PGPASS_FILE), safe="/")
        return psql_command(f"postgresql://{LOADER}@{LOOPBACK}:{state.ports['warehouse']}/{WAREHOUSE}?passfile={passfile}")

    def addresses(self, contract: Contract) -> Iterator[str]:
        """How to reach what a person works with, a sentence each: the star, and the drop zone if a data set has files."""
        yield f"The star: {self.psql()}"
        state = Home(self.home).read()
        has_files = any(table.dataset is not None and table.dataset.request is None for table in contract.source_tables)
        if has_files and state is not None and state.resources is not None:
            zone = f"{state.resources.endpoint_url}/{state.resources.buckets['landing']}/{DROP_ZONE}"
            yield f"The drop zone: curl -T FILE {zone}DATASET/"


def stacks_of_this_user() -> list[Path]:
    """Every stack that runs on this machine, found by the processes that own them."""
    found = set[Path]()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real == os.getuid() and UP in process.cmdline():
                home = Path(process.cwd()) / (process.environ().get("STARLIFT_HOME") or DEFAULT_PLACE)
                state = Home(home).read()
                if state is not None and state.owner.pid == process.pid and state.is_up():
                    found.add(home)
    return sorted(found)


def write_password_file(stack: Stack, home: Path) -> None:
    """Write a password file for psql and the embedded warehouse, readable only by its owner."""
    cluster = stack.clusters.get("warehouse")
    if cluster is None:
        return
    write_private(home / PGPASS_FILE, f"{LOOPBACK}:{cluster.port}:*:{LOADER}:{cluster.password(LOADER)}\n")


def psql_command(url: str) -> str:
    """The program as a person would type it: a path, unless psql is installed."""
    program = "psql"
    if shutil.which(program) is None:
        with suppress(StackError):
            program = find_binaries().program(program)
    return f"{program} {shlex.quote(url)}"


def without_secrets(url: str) -> str:
    """The URL without its secrets: others can read command lines."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    options = [(name, value) for name, value in parse_qsl(parts.query) if name.lower() not in _SECRET_OPTIONS]
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{hosts}", query=urlencode(options)))


def _service(name: str, state: StackState, log: Path) -> Service:
    known = state.processes.get(name)
    process = None if known is None else processes.find(known)
    restarts = state.restarts.get(name, 0)
    if known is None or process is None:
        return Service(restarts=restarts)
    waits_for = waits_in(LogTail(log, LOG_END_BYTES).new_lines())
    with suppress(psutil.NoSuchProcess):
        if process.status() == psutil.STATUS_STOPPED:
            waits_for = "its process is stopped; kill -CONT continues it"
    return Service(alive_since=datetime.fromtimestamp(known.created, UTC), restarts=restarts, waits_for=waits_for)
