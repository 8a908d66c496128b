"""The three services as processes of this machine, started again when they crash."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from infra.local.processes import Child, ProcessId, stop

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
    """Whoever drives it calls `tend` a few times a second."""

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
        """Starts those that don't run yet."""
        for name in names:
            if name not in self._running:
                self._running[name] = _Running(self._start(name), self._clock())

    def tend(self) -> list[str]:
        """Starts again, after a growing delay, what has ended. What happened, a sentence each."""
        return [event for name, running in self._running.items() if (event := self._tend(name, running)) is not None]

    def stop(self, *, within: timedelta) -> None:
        """Drains them all at once, and kills what is left after `within`."""
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
