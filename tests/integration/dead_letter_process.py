"""An operator's process that kills itself with SIGKILL at one point: no clean-up, no answer read."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from contracts.dead_letters import Kind
from services.operator.dlq import hold
from services.operator.dlq.audit import Author
from services.operator.dlq.filters import Filter
from services.operator.dlq.operations import Task, carry_out
from services.operator.system import OperatorSettings, open_system
from shared.object_store import S3ObjectStore
from shared.queue import SqsQueue

VISIBILITY = timedelta(seconds=3)  # what the killed process hides is seen again so soon
SERVICE = "remodelling"
ANN = Author("ann", "test")
TASK = Task(Kind.REPLAY, Filter(runs=(7, 7)), rate=20.0)


@dataclass(frozen=True, slots=True)
class Point:
    """The point after the first request of a kind: an object whose key contains `what`, or a call of SQS."""

    what: str

    def __str__(self) -> str:
        return f"after {self.what.strip('/')}"


# After one is before the next: these are all the states that a kill can leave.
POINTS = [Point(what) for what in ("begun/", "receive", "archive/", "set_visibility", "send_all", "delete", "ended/")]


def in_a_hurry() -> None:
    """Shorten sixty seconds to three."""
    hold.VISIBILITY_MINIMUM = VISIBILITY


def work(values: dict[str, Any], aws: dict[str, str], point: Point) -> None:
    """Replay until the point is reached."""
    os.environ.update(aws)
    in_a_hurry()
    S3ObjectStore.put = _dying(S3ObjectStore.put, lambda _bucket, key, _body: point.what in key)  # type: ignore[assignment, method-assign]
    if hasattr(SqsQueue, point.what):
        setattr(SqsQueue, point.what, _dying(getattr(SqsQueue, point.what), lambda given, **_: bool(given)))
    asyncio.run(_replay(OperatorSettings(**values)))


async def _replay(settings: OperatorSettings) -> None:
    async with open_system(settings) as system:
        await carry_out(system, SERVICE, TASK, ANN)


def _dying(call: Callable[..., Awaitable[Any]], is_it: Callable[..., bool]) -> Callable[..., Awaitable[Any]]:
    async def calling(target: Any, *given: Any, **named: Any) -> Any:
        result = await call(target, *given, **named)
        if is_it(*given, **named):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return calling
