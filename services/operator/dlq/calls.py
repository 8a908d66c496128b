"""How AWS is called: several requests at a time, since a thousand one after another take half a minute, and persistently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

from shared.errors import DependencyDownError, TransientError
from shared.queue import BATCH_MAXIMUM

REQUESTS_AT_ONCE = 5  # leaves connections of the pool to whoever renews a lock or a hold
TRIES = 5
PAUSE = timedelta(seconds=1)  # between them

Item = TypeVar("Item")
Result = TypeVar("Result")


async def together(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """What each of them returns. When this returns or raises, none is under way. Raises: the first error."""
    results: list[Result] = []
    for one in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results


async def persistently(call: Callable[[], Awaitable[Result]]) -> Result:
    """What `call` returns, after a few failures that may pass. Raises: the last."""
    for _ in range(TRIES - 1):
        try:
            return await call()
        except (TransientError, DependencyDownError):
            await asyncio.sleep(PAUSE.total_seconds())
    return await call()


def shares(items: Iterable[Item]) -> list[list[Item]]:
    """The items in equal parts, for as many requests at a time as they are worth."""
    everything = list(items)
    count = min(REQUESTS_AT_ONCE, -(-len(everything) // BATCH_MAXIMUM))
    return [everything[number::count] for number in range(count)]


def tens(items: Sequence[Item]) -> list[Sequence[Item]]:
    """As many as one request of SQS takes."""
    return [items[start : start + BATCH_MAXIMUM] for start in range(0, len(items), BATCH_MAXIMUM)]
