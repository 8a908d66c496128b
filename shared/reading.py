"""Reading many objects: some at once, never all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

AT_ONCE = 16  # as many as a client has connections for, and not too many bodies to hold

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def in_order(items: Sequence[Item], ask: Callable[[Item], Awaitable[Answer]]) -> AsyncIterator[tuple[Item, Answer]]:
    """What `ask` answers for each item, in the order of the items; AT_ONCE are asked together."""
    for start in range(0, len(items), AT_ONCE):
        group = items[start : start + AT_ONCE]
        for item, answer in zip(group, await asyncio.gather(*map(ask, group)), strict=True):
            yield item, answer


async def all_of(items: Sequence[Item], ask: Callable[[Item], Awaitable[Answer]]) -> list[Answer]:
    """As `in_order`, for answers that are few or small."""
    return [answer async for _, answer in in_order(items, ask)]
