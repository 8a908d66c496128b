"""Receiving dead letters and keeping them: SQS can't list what a queue holds, it only hands messages out.

A received letter is hidden from everybody else until it is handed back, deleted, or its visibility ends: that visibility is the
lock of the letter, and the queue is the list of what is left to do. Receiving raises the receive count, which harms nothing: no
dead-letter queue gives a message up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from services.operator.dlq.letters import Letter, read_letter
from services.operator.system import System
from shared.clock import Clock
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import BATCH_MAXIMUM, Delivery, Depth, Queue

WAIT = timedelta(seconds=1)  # of a poll, long enough to ask every server of SQS
VISIBILITY_MINIMUM = timedelta(seconds=60)  # a killed command hides its letters for at least that time
VISIBILITY_PER_LETTER = timedelta(milliseconds=60)  # longer for many: renewing them must not take all the time there is
VISIBILITY_MAXIMUM = timedelta(minutes=15)
MANY_LETTERS = 100  # for each poll at a time: with few letters most polls would wait and return none
EMPTY_POLLS = 3  # in a row; then no more letters are expected
PATIENCE = timedelta(minutes=1)  # with letters that others hold: looking takes seconds, a killed command's hold a minute
POLLS_AT_ONCE = 5
TRIES = 5
PAUSE = timedelta(seconds=1)  # between tries

Result = TypeVar("Result")


async def persistently(call: Callable[[], Awaitable[Result]]) -> Result:
    """What `call` returns, after a few failures that may pass. Raises: the last of them."""
    for _ in range(TRIES - 1):
        try:
            return await call()
        except (TransientError, DependencyDownError):
            await asyncio.sleep(PAUSE.total_seconds())
    return await call()


async def together(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """The result of each call. When it returns or raises, none is running. Raises: the first error."""
    results: list[Result] = []
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


@dataclass(slots=True)
class _Held:
    receipt: str
    until: datetime  # by the wall clock, which continues while a laptop sleeps


class Hold:
    """The letters of one queue that this process holds, by SQS's id."""

    def __init__(self, service: str, queue: Queue, depth: Depth, clock: Clock) -> None:
        self.elsewhere = 0  # about how many letters others held when we looked last
        self._service = service
        self._queue = queue
        self._clock = clock
        visibility = max(VISIBILITY_MINIMUM, VISIBILITY_PER_LETTER * (depth.visible + depth.in_flight))
        self._visibility = min(visibility, VISIBILITY_MAXIMUM)
        self._polls = max(1, min(POLLS_AT_ONCE, depth.visible // MANY_LETTERS))
        self._held: dict[str, _Held] = {}

    def __contains__(self, one: str) -> bool:
        held = self._held.get(one)
        return held is not None and self._clock() < held.until

    async def letters(self, *, patience: timedelta = timedelta(0)) -> AsyncIterator[Letter]:
        """Letters that no other process holds, once each, until only newcomers come or none; waits `patience` for others'."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience.total_seconds()
        empty = 0
        seen: set[str] = set()  # a letter that can't be renewed is handed out again
        began: datetime | None = None  # by SQS's clock, which also dates the letters: when one was first received
        while empty < EMPTY_POLLS:
            polls = await together(persistently(self._poll) for _ in range(self._polls))
            found = [delivery for poll in polls for delivery in poll]
            for delivery in found:
                if began is None and delivery.receive_count == 1:
                    began = delivery.first_received_at
                if delivery.message_id not in seen:
                    seen.add(delivery.message_id)
                    yield read_letter(self._service, delivery)
            if any(began is None or delivery.sent_at <= began for delivery in found):
                empty = 0
                continue  # newcomers alone may come without end
            depth = await persistently(self._queue.depth)
            self.elsewhere = max(0, depth.in_flight - sum(one in self for one in self._held))
            is_waiting = self.elsewhere > 0 and loop.time() < deadline
            if depth.visible == 0 and not is_waiting:
                return
            empty += not is_waiting

    async def hand_back(self, *, but: Iterable[str] = ()) -> None:
        """Let others see the letters again, `but` some. A failure costs them the rest of their visibility, no more."""
        receipts = self._receipts(self._held.keys() - set(but))
        for one in receipts.values():
            del self._held[one]
        with suppress(TransientError, DependencyDownError):
            await self._queue.set_visibility(dict.fromkeys(receipts, timedelta(0)))

    async def delete(self, ids: Iterable[str]) -> set[str]:
        """Delete letters for good, with a few tries; the ids of those that are. The others may be seen by others by now."""
        receipts = self._receipts(ids)
        left, gone = list(receipts), set[str]()
        for _ in range(TRIES):
            failures = await persistently(partial(self._queue.delete, left))
            gone |= failures.gone
            left = [receipt for receipt in left if receipt in failures.transient]
            if not left:
                break
            await asyncio.sleep(PAUSE.total_seconds())
        for receipt in receipts.keys() - set(left):
            self._held.pop(receipts[receipt], None)
        return {one for receipt, one in receipts.items() if receipt not in gone and receipt not in left}

    async def keep(self) -> None:
        """Renew all of them forever, ten at a time, so often that one failure costs nothing."""
        while True:
            await asyncio.sleep(self._visibility.total_seconds() / 3)
            ids = list(self._held)
            for start in range(0, len(ids), BATCH_MAXIMUM):
                with suppress(TransientError, DependencyDownError, PermanentError):  # then their hold ends: they are not sent
                    await self._renew(ids[start : start + BATCH_MAXIMUM])

    async def _renew(self, ids: Iterable[str]) -> None:
        """What was handed back meanwhile is not hidden again: it is not in flight, SQS says MessageNotInflight."""
        receipts = self._receipts(ids)
        until = self._clock() + self._visibility
        failures = await self._queue.set_visibility(dict.fromkeys(receipts, self._visibility))
        for receipt, one in receipts.items():
            held = self._held.get(one)
            if held is None or held.receipt != receipt or receipt in failures.transient:
                continue
            if receipt in failures.gone:
                del self._held[one]
            else:
                held.until = until

    async def _poll(self) -> list[Delivery]:
        """Letters that were not held. A poll is never cancelled: the letters it brings would be hidden and not held."""
        until = self._clock() + self._visibility
        poll = asyncio.ensure_future(self._queue.receive(BATCH_MAXIMUM, wait=WAIT, visibility=self._visibility))
        try:
            return self._take(await asyncio.shield(poll), until)
        except asyncio.CancelledError:
            with suppress(TransientError, DependencyDownError, PermanentError):
                self._take(await poll, until)
            raise

    def _take(self, deliveries: Sequence[Delivery], until: datetime) -> list[Delivery]:
        new = [delivery for delivery in deliveries if delivery.message_id not in self]
        self._held |= {delivery.message_id: _Held(delivery.receipt_handle, until) for delivery in deliveries}
        return new

    def _receipts(self, ids: Iterable[str]) -> dict[str, str]:
        """The receipts of those that are held, with their ids."""
        return {self._held[one].receipt: one for one in ids if one in self}


@asynccontextmanager
async def holding(system: System, service: str) -> AsyncIterator[Hold]:
    """Hold the dead letters of a service that are received inside until the end; then hand back what was not deleted."""
    queue = system.dead_letters[service]
    hold = Hold(service, queue, await queue.depth(), system.clock)
    keeping = asyncio.create_task(hold.keep())
    try:
        yield hold
    finally:
        keeping.cancel()
        await hold.hand_back()
