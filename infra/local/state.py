"""The state directory of a local stack: one stack at a time, and a file that says what runs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import BaseModel, Field

from infra.local.bootstrap import Resources
from infra.local.machine import StackError, require_room, write_private
from infra.local.postgres_binaries import PROGRAMS_VARIABLE
from infra.local.processes import ProcessId, find
from infra.topology import API_SECRETS, SOURCE_DATABASE, Topology, read_topology
from shared.postgres_url import ROOT_VARIABLE

OPERATOR = "operator"
SOURCE_NAME_VARIABLE = "STARLIFT_SOURCE_NAME"
CHOSEN = ("STARLIFT_CONTRACT", SOURCE_NAME_VARIABLE)  # what everyone who works on a stack must agree on
# botocore reads these files however many variables are set; a line in them turns AWS_ENDPOINT_URL off.
NO_AWS_FILES = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
_LEADS_ELSEWHERE = ("AWS_", "PG")  # settings of the clients of AWS and of PostgreSQL
_LEADS_NOWHERE = frozenset({PROGRAMS_VARIABLE, ROOT_VARIABLE})
_POLL_WAIT_S = 2  # a poll in flight is waited for at a stop; LocalStack answers at once when a message comes
DEFAULT_PLACE = Path(".starlift") / "stack"


def default_home() -> Path:
    """`$STARLIFT_HOME`, or DEFAULT_PLACE in the working directory."""
    return Path(os.environ.get("STARLIFT_HOME") or DEFAULT_PLACE).absolute()


class StackState(BaseModel, frozen=True):
    """What a stack consists of, as kept in `stack.json`, which only its owner may read.

    `owner` is the process that runs the stack. `processes` and `ports` are by name; `resources` is None until all of it is up.
    `database_urls`, by secret, are a person's own, passwords included: LocalStack would give its secrets to anyone on this
    machine. `chosen` are variables of CHOSEN. `restarts` counts how often each service was restarted.
    """

    stack: str
    owner: ProcessId
    ports: dict[str, int] = {}
    processes: dict[str, ProcessId] = {}
    resources: Resources | None = None
    database_urls: dict[str, str] = Field(default={}, repr=False)
    chosen: dict[str, str] = {}
    restarts: dict[str, int] = {}

    def is_up(self) -> bool:
        """Whether it was started whole, and its owner lives."""
        return self.resources is not None and find(self.owner) is not None

    def environment_for(self, service: str) -> dict[str, str]:
        """The environment for a service, or the `operator`, on this stack. Raises: StackError while it isn't up."""
        if self.resources is None:
            raise StackError("the local stack is not up yet; wait until `starlift up` reports that it is")
        # Whatever proxy leads out of this machine, the way to LocalStack is not through it.
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        topology = read_topology()
        needed = topology.secrets if service == OPERATOR else topology.services[service].secrets
        urls = {f"STARLIFT_{name}_url{end}".upper(): url for name, end, url in _by_source(self.database_urls) if name in needed}
        return direct | NO_AWS_FILES | environment_for(service, self.resources, topology) | urls | self.chosen


def environment_for(service: str, resources: Resources, topology: Topology) -> dict[str, str]:
    """The variables of AWS's clients and of `shared/settings.py`."""
    aws = {
        "AWS_ENDPOINT_URL": resources.endpoint_url,
        "AWS_REGION": resources.region,
        "AWS_DEFAULT_REGION": resources.region,
        "AWS_ACCESS_KEY_ID": "test",  # LocalStack takes anything; botocore wants something
        "AWS_SECRET_ACCESS_KEY": "test",  # nosec B105
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    own = _of_operator(resources) if service == OPERATOR else _of_service(service, resources, topology)
    buckets = {f"{bucket}_bucket": name for bucket, name in resources.buckets.items()}
    return aws | {f"STARLIFT_{name.upper()}": value for name, value in ({"region": resources.region} | buckets | own).items()}


def _by_source(resources: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Each resource's name without that of its source, the end of its variables' names, and where it is."""
    for name, found in resources.items():
        kind, _, source = name.partition("-")  # infra/topology.py: of_source
        yield kind, f"_{source}" if source else "", found


def _of_operator(resources: Resources) -> dict[str, str]:
    named = {"queue_url": resources.queue_urls, "dead_letter_url": resources.dead_letter_urls, "secret": resources.secrets}
    return {f"{name}_{what}{end}": found for what, named_so in named.items() for name, end, found in _by_source(named_so)}


def _of_service(name: str, resources: Resources, topology: Topology) -> dict[str, str]:
    service = topology.services[name]
    queue = topology.queues[service.consumes]
    numbers = {
        "slots": service.slots,
        "attempts": topology.attempts,
        "max_receive_count": queue.max_receive_count,
        "handler_limit_s": service.handler_limit_s,
        "visibility_timeout_s": queue.visibility_timeout_s,
        "poll_wait_s": _POLL_WAIT_S,
        "drain_budget_s": topology.drain_budget_s,
        "stop_timeout_s": topology.stop_timeout_s,
    }
    queues, dead_letters = [*_by_source(resources.queue_urls)], [*_by_source(resources.dead_letter_urls)]
    urls = {f"next_queue_url{end}": url for name, end, url in queues if name in service.sends}
    for consumed, kind in ((service.consumes, ""), (service.shares, "shared_")):
        urls |= {f"{kind}queue_url{end}": url for name, end, url in queues if name == consumed}
        urls |= {f"{kind}dead_letter_url{end}": url for name, end, url in dead_letters if name == consumed}
    urls |= {f"{name}_secret{end}": found for name, end, found in _by_source(resources.secrets) if name in service.secrets}
    if SOURCE_DATABASE in service.secrets:
        urls["api_secrets"] = topology.secret_name(API_SECRETS, resources.stack)
    return {key: str(number) for key, number in numbers.items()} | urls


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Name the state directory that can't be written. Raises: StackError."""
    try:
        yield
    except OSError as error:
        raise StackError(
            f"the state directory {directory} can't be written ({error.strerror}); set STARLIFT_HOME to another"
        ) from error


class Home:
    """A state directory, held by one process at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / "stack.json"
        self._lock: IO[str] | None = None

    def take(self) -> None:
        """Make the directory ours until `release`, or until we end in any way. Raises: StackError."""
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            require_room(self.directory)
            lock = (self.directory / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StackError(
                f"a stack is already running in {self.directory}; stop it with `starlift down`, or set STARLIFT_HOME to "
                "another place"
            ) from None
        self._lock = lock

    def require_free(self) -> None:
        """Check that `take` would succeed now. Raises: StackError."""
        self.take()
        self.release()

    def release(self) -> None:
        """Let the next one in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_taken(self) -> bool:
        """Whether some process holds it."""
        try:
            with (self.directory / "lock").open("a") as probe:
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is none yet, or it can't be written, which `take` explains
            return False
        return False

    def read(self) -> StackState | None:
        """What `stack.json` says; None if there is none, or it is of another version of Starlift."""
        try:
            return StackState.model_validate_json(self._file.read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):  # pydantic's ValidationError is a ValueError
            return None

    def write(self, state: StackState) -> None:
        """Replace `stack.json`, which only we may read."""
        write_private(self._file, state.model_dump_json(indent=2))


def service_environment(service: str, state: StackState, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service, or of an `operator`, on this stack, and the harmless part of `inherited`."""
    return neutral_environment(inherited) | state.environment_for(service)


def neutral_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` without variables that point to an AWS, a database or a Starlift other than this stack's."""
    dropped = (*_LEADS_ELSEWHERE, "STARLIFT_")
    return {name: value for name, value in inherited.items() if name in _LEADS_NOWHERE or not name.startswith(dropped)}


def forget_other_clients() -> None:
    """Drop this process's own settings of AWS and PostgreSQL clients: the stack that it starts uses none of them."""
    for name in [name for name in os.environ if name.startswith(_LEADS_ELSEWHERE) and name not in _LEADS_NOWHERE]:
        del os.environ[name]
    os.environ.update(NO_AWS_FILES)
