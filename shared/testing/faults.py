"""What can go wrong between us and AWS, call by call."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, assert_never

from shared.errors import DependencyDownError, TransientError
from shared.queue import RECEIPT_TIMEOUT


def throttled() -> TransientError:
    """AWS asks us to slow down; nothing was done."""
    return TransientError("sqs throttles requests (RequestThrottled); trying later")


def connection_reset() -> DependencyDownError:
    """The connection breaks."""
    return DependencyDownError("sqs", "sqs can't be reached (ConnectionResetError); check the network and the endpoint")


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """The call has its effect, but its answer is lost. `is_slow`: the caller waits until its timeout."""

    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Hangs:
    """The call has no effect, and the caller waits until its timeout."""


@dataclass(frozen=True, slots=True)
class Partial:
    """Of a batch request the 1st, 3rd, 5th … entry fail and may be retried. For other requests no fault at all."""


Fault = Exception | AnswerLost | Hangs | Partial  # an exception is raised before anything is done


class _Coming(NamedTuple):
    fault: Fault
    start: float
    end: float | None  # None: strikes once


class Faults:
    """Faults to come: `faults.add("receive", error)` makes the next `receive` raise it."""

    def __init__(self) -> None:
        self._coming: defaultdict[str, list[_Coming]] = defaultdict(list)

    def add(self, method: str, *faults: Fault, at: float = 0) -> None:
        """One fault a call, in this order, from the loop's second `at` on."""
        self._coming[method] += [_Coming(fault, at, None) for fault in faults]

    def during(self, start: float, end: float, fault: Fault, *methods: str) -> None:
        """Every call of these methods between two of the loop's seconds."""
        for method in methods:
            self._coming[method].append(_Coming(fault, start, end))

    def is_coming(self, method: str) -> bool:
        """Whether a fault waits to strike the method."""
        return bool(self._coming[method])

    def clear(self) -> None:
        """Nothing goes wrong from now on."""
        self._coming.clear()

    @asynccontextmanager
    async def call(self, method: str, *, patience: timedelta = RECEIPT_TIMEOUT) -> AsyncIterator[bool]:
        """Wrap the effect of one call; yields whether it has to serve its batch only in part.

        Lets others run first, as every network call does. `patience` is when the caller gives up a call without an answer.
        Raises: what was added for the method.
        """
        await asyncio.sleep(0)
        fault = self._next(method)
        match fault:
            case None | Partial():
                yield fault is not None
            case Exception():
                raise fault
            case Hangs():
                await asyncio.sleep(patience.total_seconds())
                raise connection_reset()
            case AnswerLost():
                started_at = asyncio.get_running_loop().time()
                yield False
                if fault.is_slow:
                    await asyncio.sleep(started_at + patience.total_seconds() - asyncio.get_running_loop().time())
                raise connection_reset()
            case _:
                assert_never(fault)

    def _next(self, method: str) -> Fault | None:
        now = asyncio.get_running_loop().time()
        coming = self._coming[method]
        coming[:] = [one for one in coming if one.end is None or now < one.end]
        due = next((one for one in coming if one.start <= now), None)
        if due is not None and due.end is None:
            coming.remove(due)
        return None if due is None else due.fault
