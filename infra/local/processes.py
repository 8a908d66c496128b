"""Child processes that end when they should: known by pid and creation time, stopped with all below them, gone with us.

Two things limit what a `kill -9` of our process leaves behind. On Linux the kernel sends each child a signal when the *thread*
that started it ends, so start children from the main thread. Elsewhere, and for what outlives the signal, the next start stops
what the state file still names (`infra/local/stack.py`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

from infra.local.machine import FREE_SOME, Account, StackError, found_no_room, has_any_room, popen_options

CREATION_TOLERANCE_S = 2.0  # creation times are derived from the clock, which may be set; a pid is not reused that fast
LOG_BYTES_MAXIMUM = 20 * 1024 * 1024
_LAST_LINES = 12
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_AFTER_SIGKILL = timedelta(seconds=10)
_AFTER_FAILED_START = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, and never another: a pid alone is reused. `created` is in seconds since 1970."""

    pid: int
    created: float


@dataclass(frozen=True, slots=True)
class Child:
    """A process that we started, leader of a session of its own: Ctrl-C reaches us alone, and we stop it in order."""

    id: ProcessId
    log: Path
    popen: subprocess.Popen[bytes]

    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if one killed it."""
        return self.popen.poll()

    def stop(self, *, within: timedelta, first: signal.Signals = signal.SIGTERM) -> None:
        """End it, as `stop` does."""
        stop([self.id], within=within, first=first)
        self.popen.wait()

    def await_ready(self, name: str, is_ready: Callable[[], bool], *, within: timedelta) -> None:
        """Wait until `is_ready`; else ends the process. Raises: StackError with the end of its log."""
        try:
            wait_until(lambda: self.exit_code() is not None or is_ready(), within=within)
            self._require_ready(name, is_ready)
        except BaseException:
            self.stop(within=_AFTER_FAILED_START)
            raise

    def _require_ready(self, name: str, is_ready: Callable[[], bool]) -> None:
        code = self.exit_code()
        if code is None and is_ready():
            return
        if found_no_room(tail(self.log, _LAST_LINES)) or not has_any_room(self.log.parent):
            raise StackError(f"{name} ran out of disk space; {FREE_SOME}; its log is {self.log}")
        fate = "was not ready in time" if code is None else f"ended with {code}"
        raise StackError(f"{name} {fate}; its log {self.log} ends with:\n{tail(self.log, _LAST_LINES)}")


def python(module: str, *arguments: str) -> list[str]:
    """The command line of one of our own modules; `-P` keeps Python from importing from the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def start(
    arguments: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    account: Account | None = None,
    directory: Path | None = None,
    at_our_death: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start a process with nothing but `environment`; both its outputs are appended to `log`, which only we may read.

    `at_our_death` is the signal that it gets when we end without stopping it (Linux).
    """
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES_MAXIMUM:
            log.replace(log.with_suffix(".old.log"))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        popen = subprocess.Popen(  # noqa: S603 - our own programs, no shell
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            preexec_fn=_tied_to_us(at_our_death),  # noqa: PLW1509 - after the fork it makes two system calls, takes no lock
            **popen_options(account),
        )
    finally:
        os.close(output)
    return Child(ProcessId(popen.pid, psutil.Process(popen.pid).create_time()), log, popen)


def _tied_to_us(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a child does between fork and exec, after the change of user (which would undo it)."""
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl  # looked up here: nothing is loaded after the fork

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # we ended before the call
            os._exit(1)

    return tie


def own_id() -> ProcessId:
    """This process."""
    return ProcessId(os.getpid(), psutil.Process().create_time())


def find(process_id: ProcessId) -> psutil.Process | None:
    """The process, unless it has ended or its pid is another's by now."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(process_id.pid)
        if abs(process.create_time() - process_id.created) < CREATION_TOLERANCE_S and _is_alive(process):
            return process
    return None


def stop(process_ids: Iterable[ProcessId], *, within: timedelta, first: signal.Signals = signal.SIGTERM) -> None:
    """End processes and all below them, at once: `first` to each group, and SIGKILL to what is left after `within`.

    May be repeated, and called for processes that an earlier one of us started.
    """
    leaders = [process for process_id in process_ids if (process := find(process_id)) is not None]
    family = {process for leader in leaders for process in (leader, *_below(leader))}
    for leader in leaders:
        _signal_group(leader, first)
    if wait_until(lambda: not any(map(_is_alive, family)), within=within):
        return
    for process in filter(_is_alive, family):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(map(_is_alive, family)), within=_AFTER_SIGKILL)


def _is_alive(process: psutil.Process) -> bool:
    """A zombie is not: in a container without an init process, it may never be collected."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _signal_group(leader: psutil.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        if os.getpgid(leader.pid) == leader.pid:
            os.killpg(leader.pid, number)
        else:
            leader.send_signal(number)


def wait_until(holds: Callable[[], bool], *, within: timedelta, every_s: float = 0.05) -> bool:
    """Ask `holds` until it says yes; False when it has not after `within`."""
    deadline = time.monotonic() + within.total_seconds()
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def tail(log: Path, lines: int) -> str:
    """The last lines of a log, of at most 16 KiB; empty if there is none."""
    try:
        text = log.read_bytes()[-16384:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 30.0
_RAN_WELL_S = 60.0  # who ran this long begins with the first delay again


@dataclass(slots=True)
class _Running:
    child: Child
    since: float
    crashes: int = 0
    restart_at: float | None = None
    restarts: int = 0


class Services:
    """Call `tend` a few times a second."""

    def __init__(self, start: Callable[[str], Child], clock: Callable[[], float] = time.monotonic) -> None:
        self._start = start
        self._clock = clock
        self._running: dict[str, _Running] = {}

    @property
    def process_ids(self) -> dict[str, ProcessId]:
        """By service."""
        return {name: running.child.id for name, running in self._running.items()}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each service was restarted."""
        return {name: running.restarts for name, running in self._running.items()}

    def start(self, names: Iterable[str]) -> None:
        """Start those that don't run yet."""
        for name in names:
            if name not in self._running:
                self._running[name] = _Running(self._start(name), self._clock())

    def tend(self) -> list[str]:
        """Restart, after a growing delay, what has ended; return one sentence per event."""
        return [event for name, running in self._running.items() if (event := self._tend(name, running)) is not None]

    def stop(self, *, within: timedelta) -> None:
        """Drain them all at once, and kills what is left after `within`."""
        children = [running.child for running in self._running.values()]
        stop((child.id for child in children), within=within)
        for child in children:
            child.popen.wait()
        self._running.clear()

    def _tend(self, name: str, running: _Running) -> str | None:
        code, now = running.child.exit_code(), self._clock()
        if code is None:
            return None
        if running.restart_at is None:
            running.crashes = 1 if now - running.since > _RAN_WELL_S else running.crashes + 1
            delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** (running.crashes - 1))
            running.restart_at = now + delay
            return f"{name} ended with {code} and starts again in {delay:g} s; its log is {running.child.log}"
        if now < running.restart_at:
            return None
        self._running[name] = _Running(self._start(name), now, running.crashes, restarts=running.restarts + 1)
        return f"{name} has started again"
