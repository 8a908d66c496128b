"""An event loop whose clock jumps to the next timer instead of waiting: a quarter of an hour of backoff takes no time.

Mark a test or a module with `pytest.mark.virtual_clock` (see tests/conftest.py), or call `run_on_virtual_clock`. Sockets work,
but whoever waits for one with a timeout sees it pass at once; threads likewise. Tests of such things take the real clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

_NOTHING_HAPPENS_S = 1.0  # real seconds granted to threads and sockets when no timer is left

ResultT = TypeVar("ResultT")


class StalledError(RuntimeError):
    """Every task waits for something that no timer will ever bring."""


class _JumpingSelector(selectors.DefaultSelector):
    """Where asyncio would sleep until the next timer, moves the clock there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is not None:
            self.now += max(0.0, timeout)
            return []
        ready = super().select(_NOTHING_HAPPENS_S)
        if not ready:
            raise StalledError("every task waits, and no timer is set that could wake one")
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s. Runs the same order of callbacks each time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def skip(self, seconds: float) -> None:
        """The whole process stands still for so long: nothing runs, and the clock goes on."""
        self._jumping.now += seconds


def run_on_virtual_clock(work: Coroutine[None, None, ResultT]) -> ResultT:
    """What `work` returns; for property tests, which are not async themselves."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(work)
