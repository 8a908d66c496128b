"""A PostgreSQL server of our own: initialised once, started as a child process, listening on 127.0.0.1 with passwords."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import asyncpg

from infra.local.databases import fetch_value
from infra.local.machine import (
    LOOPBACK,
    OWN_DATABASES,
    StackError,
    found_no_room,
    full_disk,
    is_no_room,
    popen_options,
    reachable_directory,
    remove_unused_place,
    require_name,
    unprivileged_account,
    write_private,
)
from infra.local.postgres_binaries import Binaries, find_binaries, readable_by
from infra.local.processes import Child, ProcessId, start

SUPERUSER = "postgres"
_FAST_SHUTDOWN = signal.SIGINT  # aborts transactions, writes a checkpoint; SIGTERM would wait for clients to leave
_START = timedelta(minutes=10)  # a guard against a hang: crash recovery and a busy machine take their time
_STOP = timedelta(seconds=60)
# What differs from PostgreSQL's defaults. Durability is left as it is: tests that kill the server mean it.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "wal_level": "logical",
    "track_commit_timestamp": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class Cluster:
    """One server and its data directory, called `name`. A second start continues with the data of the first.

    `state` keeps its passwords and its log. It keeps its data too, unless we are root and `state` is out of reach for the
    account that PostgreSQL then runs as.
    """

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.port: int | None = None
        self._state = state.absolute()
        self._account = unprivileged_account()
        self._passwords = self._state / f"{name}.passwords.json"
        self._log = self._state / f"{name}.log"
        self._child: Child | None = None

    @property
    def process_id(self) -> ProcessId | None:
        """The server's process, if it was started."""
        return None if self._child is None else self._child.id

    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._child is not None and self._child.exit_code() is None

    def url(self, database: str = "postgres", role: str = SUPERUSER) -> str:
        """Where `role` finds `database`, with its password."""
        if self.port is None:
            raise StackError(f"PostgreSQL '{self.name}' was never started; start it first")
        return f"postgresql://{quote(role)}:{quote(self.password(role))}@{LOOPBACK}:{self.port}/{quote(database)}"

    def password(self, role: str) -> str:
        """The password of `role`, made up the first time it is asked for, in a file that only we may read."""
        known: dict[str, str] = {}
        with suppress(FileNotFoundError):
            known = json.loads(self._passwords.read_text())
        if role not in known:
            known[role] = secrets.token_urlsafe(24)
            write_private(self._passwords, json.dumps(known))
        return known[role]

    def start(self, port: int) -> None:
        """Initialise the data directory if there is none, starts the server, waits until it answers. Raises: StackError."""
        self.port = port
        try:
            self._child = self._start(port)
        except BaseException as error:
            remove_unused_place(self._state)
            if isinstance(error, OSError):
                raise self._explained(error) from error
            raise
        self._child.await_ready(f"PostgreSQL '{self.name}'", self.is_answering, within=_START)

    def _start(self, port: int) -> Child:
        self._state.mkdir(parents=True, exist_ok=True)
        place = reachable_directory(self._state, self._account)
        data = place / self.name
        made_by = int((data / "PG_VERSION").read_text()) if data.exists() else None  # the major version
        binaries = readable_by(self._account, find_binaries(made_by), place)
        if made_by is None:
            self._initialise(binaries, data)
        settings = _SETTINGS | {"port": str(port), "cluster_name": f"starlift-{self.name}"}
        return start(
            [binaries.program("postgres"), "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())],
            log=self._log,
            environment=_environment(),
            account=self._account,
            directory=place,
            at_our_death=_FAST_SHUTDOWN,
        )

    def _explained(self, error: OSError) -> StackError:
        """Why the server could not be set up or started."""
        place = error.filename or self._state
        if is_no_room(error):
            return full_disk(place)
        # EINVAL: the user namespace does not map the user.
        if self._account is not None and error.errno in (errno.EPERM, errno.EINVAL):
            return StackError(
                f"PostgreSQL refuses to run as root, and root may not switch to another user here ({error.strerror}); "
                f"run as an ordinary user, or {OWN_DATABASES}"
            )
        fault = f"PostgreSQL '{self.name}' can't be started: {place}: {error.strerror}"
        return StackError(f"{fault}; set TMPDIR or STARLIFT_HOME to another place")

    def is_answering(self) -> bool:
        """Whether it takes connections. Raises: StackError when it refuses our password."""
        try:
            return bool(fetch_value(self.url(), "SELECT true"))
        except asyncpg.InvalidPasswordError:
            raise StackError(
                f"the data of PostgreSQL '{self.name}' has other passwords than {self._passwords}; "
                f"remove {self._state} and start again"
            ) from None
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False

    def stop(self) -> None:
        """Fast shutdown: nothing that was committed is lost, the next start is quick."""
        if self._child is not None:
            self._child.stop(within=_STOP, first=_FAST_SHUTDOWN)

    def kill(self) -> None:
        """SIGKILL, as a crash: the next start recovers."""
        if self._child is not None:
            self._child.stop(within=_STOP, first=signal.SIGKILL)

    def _initialise(self, binaries: Binaries, data: Path) -> None:
        """Make the data directory under another name first, so that what is called `data` is always whole."""
        require_name()
        unfinished, password = data.with_suffix(".unfinished"), data.with_suffix(".password")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._run_initdb(binaries, unfinished, password)
            unfinished.replace(data)
        finally:
            password.unlink(missing_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)

    def _run_initdb(self, binaries: Binaries, unfinished: Path, password: Path) -> None:
        unfinished.mkdir(mode=0o700)
        write_private(password, self.password(SUPERUSER))
        if self._account is not None:
            for path in (unfinished, password):
                os.chown(path, self._account.uid, self._account.gid)
        options = ["-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--data-checksums", "--no-instructions"]
        answer = subprocess.run(  # noqa: S603 - PostgreSQL's own program, no shell
            [binaries.program("initdb"), "-D", unfinished, f"--pwfile={password}", *options],
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
            cwd=unfinished.parent,
            **popen_options(self._account),
        )
        if answer.returncode != 0:
            if found_no_room(answer.stderr):
                raise full_disk(unfinished.parent)
            reason = " ".join(answer.stderr.split()).removeprefix("initdb: error: ")
            raise StackError(f"PostgreSQL's initdb failed: {reason}; correct that, or {OWN_DATABASES}")


def _environment() -> dict[str, str]:
    """No PG* variable of the person's may reach the server, nor the language of its messages."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
