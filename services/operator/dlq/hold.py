"""Taking dead letters in hand: SQS can't be asked what a queue holds, only be told to hand it out.

What is received is hidden from everybody else until it is handed back, deleted, or its visibility ends. Receive counts rise by
looking; that harms nothing, a dead-letter queue gives no message up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.operator.dlq.calls import REQUESTS_AT_ONCE, persistently, shares, tens, together
from services.operator.dlq.operation import now
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import BATCH_MAXIMUM, Delivery, Depth, Queue

WAIT = timedelta(seconds=1)  # of a poll, long enough to ask every server of SQS
VISIBILITY_MINIMUM = timedelta(seconds=60)  # what a killed command hides its letters for, at least
VISIBILITY_PER_LETTER = timedelta(milliseconds=60)  # and for each: renewing them all must not be all that is done
VISIBILITY_MAXIMUM = timedelta(minutes=15)
MANY_LETTERS = 100  # for another poll at a time: of few letters it would get none, and wait
EMPTY_POLLS = 3  # in a row, and nothing more is expected
AT_ONCE = timedelta(0)
PATIENCE = timedelta(minutes=1)  # with others who have letters in hand: a look takes seconds


@dataclass(slots=True)
class _Held:
    receipt: str
    until: datetime  # by the wall clock, which goes on while a laptop sleeps


class Hold:
    """The letters of one queue that this process has in hand, by SQS's id.

    `elsewhere` is how many others had in hand when we looked last, approximately.
    """

    def __init__(self, queue: Queue, depth: Depth) -> None:
        self.elsewhere = 0
        self._queue = queue
        visibility = max(VISIBILITY_MINIMUM, VISIBILITY_PER_LETTER * (depth.visible + depth.in_flight))
        self._visibility = min(visibility, VISIBILITY_MAXIMUM)
        self._polls = max(1, min(REQUESTS_AT_ONCE, depth.visible // MANY_LETTERS))
        self._held: dict[str, _Held] = {}

    def __contains__(self, one: str) -> bool:
        held = self._held.get(one)
        return held is not None and now() < held.until

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._held))

    async def letters(self, *, patience: timedelta = AT_ONCE) -> AsyncIterator[Delivery]:
        """Every letter that nobody else has in hand, once each, until no more come; those that others have, for `patience`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience.total_seconds()
        empty = 0
        seen: set[str] = set()  # what can't be renewed is handed out again
        while empty < EMPTY_POLLS:
            polls = await together(persistently(self._poll) for _ in range(self._polls))
            found = [delivery for poll in polls for delivery in poll]
            for delivery in found:
                if delivery.message_id not in seen:
                    seen.add(delivery.message_id)
                    yield delivery
            if found:
                empty = 0
                continue
            depth = await persistently(self._queue.depth)
            self.elsewhere = max(0, depth.in_flight - sum(one in self for one in self._held))
            is_waiting = self.elsewhere > 0 and loop.time() < deadline
            if depth.visible == 0 and not is_waiting:
                return
            empty += not is_waiting

    async def hand_back(self, ids: Iterable[str]) -> None:
        """Let others see these again. A failure costs them the rest of their visibility, no more."""
        receipts = self._receipts(ids)
        for one in receipts.values():
            del self._held[one]
        with suppress(TransientError, DependencyDownError):
            await together(self._queue.set_visibility(dict.fromkeys(share, AT_ONCE)) for share in shares(receipts))

    async def delete(self, ids: Iterable[str]) -> list[str]:
        """Remove letters for good; the ids of those that are. The others may be in somebody else's hand by now."""
        receipts = self._receipts(ids)
        failures = await together(self._queue.delete(share) for share in shares(receipts))
        gone = frozenset[str]().union(*(one.gone for one in failures))
        transient = frozenset[str]().union(*(one.transient for one in failures))
        for receipt in receipts.keys() - transient:
            self._held.pop(receipts[receipt], None)
        return [one for receipt, one in receipts.items() if receipt not in gone | transient]

    async def keep(self) -> None:
        """Renew all of them, for ever, and so often that one failure costs nothing."""
        while True:
            await asyncio.sleep(self._visibility.total_seconds() / 3)
            for ids in tens(list(self)):
                with suppress(TransientError, DependencyDownError, PermanentError):  # then they end, and are not sent
                    await self._renew(ids)

    async def _renew(self, ids: Iterable[str]) -> None:
        """What was handed back meanwhile is not hidden again: it is not in flight, SQS says MessageNotInflight."""
        receipts = self._receipts(ids)
        until = now() + self._visibility
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
        """Letters that were not in hand. A poll is never cancelled: what it brings would be hidden, and in nobody's hand."""
        until = now() + self._visibility
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
        """The receipts of those that are in hand, with their ids."""
        return {self._held[one].receipt: one for one in ids if one in self}


@asynccontextmanager
async def holding(queue: Queue) -> AsyncIterator[Hold]:
    """Letters taken inside are kept until the end, and then handed back, but for those that were deleted."""
    hold = Hold(queue, await queue.depth())
    keeping = asyncio.create_task(hold.keep())
    try:
        yield hold
    finally:
        keeping.cancel()
        await hold.hand_back(hold)
