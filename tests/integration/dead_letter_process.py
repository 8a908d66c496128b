"""An operator's process that kills itself at one point of its work, as SIGKILL does: no clean-up, no answer read."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.operator.dlq import actions, hold, lock
from services.operator.dlq.operation import Operation
from services.operator.system import OperatorSettings, open_system
from shared.object_store import S3ObjectStore
from shared.queue import SqsQueue

VISIBILITY = timedelta(seconds=3)  # what the killed process hides is seen again so soon
LIFE = timedelta(seconds=3)  # of its lock
WRITES = ("begun/", "archive/", '"planned"', '"archived"', '"letter":""', '"sending"', '"sent"', '"deleted"', "ended/")
CALLS = ("send_all", "delete")


@dataclass(frozen=True, slots=True)
class Point:
    """Before or after the first request of a kind: an object whose key or body has `what` in it, or a call of SQS."""

    what: str
    is_before: bool

    def __str__(self) -> str:
        what = self.what.strip('"/').replace('letter":', "chosen").rstrip('"')
        return f"{'before' if self.is_before else 'after'} {what or 'chosen'}"


# After one is before the next: these are all the states that a kill can leave.
POINTS = [
    *(Point(what, is_before=False) for what in (*WRITES, *CALLS)),
    Point("begun/", is_before=True),
    Point("ended/", is_before=True),
]


def in_a_hurry() -> None:
    """Sixty seconds are three."""
    hold.VISIBILITY_MINIMUM = VISIBILITY
    lock.LIFE, lock.RENEWAL, lock.CLOCK_SKEW = LIFE, LIFE / 4, timedelta(seconds=0.5)


def work(values: dict[str, Any], aws: dict[str, str], operation: str, point: Point) -> None:
    """Carries an operation out until the point is reached."""
    os.environ.update(aws)
    in_a_hurry()
    _arm(point)
    asyncio.run(_carry_out(OperatorSettings(**values), Operation.model_validate_json(operation)))


async def _carry_out(settings: OperatorSettings, operation: Operation) -> None:
    async with open_system(settings) as system:
        await actions.do(system, operation)


def _arm(point: Point) -> None:
    replace = S3ObjectStore.replace

    async def writing(store: S3ObjectStore, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        is_it = point.what in WRITES and (point.what in key or (point.what.encode() in body and "journal/" in key))
        return str(await _dying(is_it, point, lambda: replace(store, bucket, key, body, expected=expected)))

    S3ObjectStore.replace = writing  # type: ignore[assignment, method-assign]
    for name in CALLS:
        setattr(SqsQueue, name, _calling(getattr(SqsQueue, name), point, is_it=point.what == name))


def _calling(call: Callable[..., Awaitable[Any]], point: Point, *, is_it: bool) -> Callable[..., Awaitable[Any]]:
    async def calling(queue: SqsQueue, given: Any) -> Any:
        return await _dying(is_it and bool(given), point, lambda: call(queue, given))

    return calling


async def _dying(is_it: bool, point: Point, call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: FBT001
    if is_it and point.is_before:
        os.kill(os.getpid(), signal.SIGKILL)
    result = await call()
    if is_it:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
