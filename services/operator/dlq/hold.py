"""Taking dead letters in hand: SQS can't be asked what a queue holds, only be told to hand it out.

What is received is hidden from everybody else until it is handed back, deleted, or its visibility ends. Receive counts rise by
looking; that harms nothing, a dead-letter queue gives no message up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from shared.errors import DependencyDownError, TransientError
from shared.queue import BATCH_MAXIMUM, Delivery, Queue

WAIT = timedelta(seconds=1)  # of a poll, long enough to ask every server of SQS
VISIBILITY_MINIMUM = timedelta(seconds=60)  # what a killed command hides its letters for, at least
VISIBILITY_PER_LETTER = timedelta(milliseconds=60)  # and for each: renewing them all must not be all that is done
VISIBILITY_MAXIMUM = timedelta(minutes=15)
EMPTY_POLLS = 3  # in a row, and nothing more is expected
AT_ONCE = timedelta(0)


class Hold:
    """The letters of one queue that this process has in hand. `receipts` is by SQS's id."""

    def __init__(self, queue: Queue, visibility: timedelta) -> None:
        self._queue = queue
        self._visibility = visibility
        self.receipts: dict[str, str] = {}

    async def letters(self, *, patient: bool = False) -> AsyncIterator[Delivery]:
        """Every letter that nobody else has in hand, once each, until no more come.

        The patient wait for those that somebody else has in hand, too, for as long as a killed command would hide them.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._visibility.total_seconds() if patient else 0)
        empty = 0
        while empty < EMPTY_POLLS or loop.time() < deadline:
            found = await self._queue.receive(BATCH_MAXIMUM, wait=WAIT, visibility=self._visibility)
            new = [delivery for delivery in found if delivery.message_id not in self.receipts]
            self.receipts |= {delivery.message_id: delivery.receipt_handle for delivery in found}
            for delivery in new:
                yield delivery
            empty = 0 if found else empty + 1
            if not found and await self._has_seen_all(patient=patient):
                return

    async def _has_seen_all(self, *, patient: bool) -> bool:
        depth = await self._queue.depth()
        return depth.visible == 0 and not (patient and depth.in_flight > len(self.receipts))

    async def hand_back(self, ids: Iterable[str]) -> None:
        """Let others see these again. A failure costs them the rest of their visibility, no more."""
        receipts = [receipt for one in ids if (receipt := self.receipts.pop(one, None)) is not None]
        await self._queue.set_visibility(dict.fromkeys(receipts, AT_ONCE))

    async def delete(self, ids: Iterable[str]) -> set[str]:
        """Remove letters for good; the ids of those that could not be: their receipts are void, somebody else has them now."""
        wanted = {self.receipts[one]: one for one in ids if one in self.receipts}
        failures = await self._queue.delete(wanted)
        if failures.transient:
            failures = await self._queue.delete(failures.transient)
        kept = {wanted[receipt] for receipt in failures.gone | failures.transient}
        for one in wanted.values():
            self.receipts.pop(one, None)
        return kept

    async def renew(self) -> None:
        """Keep all of them for another visibility; those that somebody else has meanwhile are no longer ours."""
        names = {receipt: one for one, receipt in self.receipts.items()}
        failures = await self._queue.set_visibility(dict.fromkeys(names, self._visibility))
        for receipt in failures.gone:
            if self.receipts.get(names[receipt]) == receipt:
                del self.receipts[names[receipt]]

    async def keep(self) -> None:
        """Renew at half-life, for ever."""
        while True:
            await asyncio.sleep(self._visibility.total_seconds() / 2)
            try:
                await self.renew()
            except (TransientError, DependencyDownError):
                continue  # there is as much time again; who then sends finds out what is still in hand


@asynccontextmanager
async def holding(queue: Queue) -> AsyncIterator[Hold]:
    """Letters taken inside are kept until the end, and then handed back, but for those that were deleted."""
    depth = await queue.depth()
    wanted = max(VISIBILITY_MINIMUM, VISIBILITY_PER_LETTER * (depth.visible + depth.in_flight))
    hold = Hold(queue, min(wanted, VISIBILITY_MAXIMUM))
    keeping = asyncio.create_task(hold.keep())
    try:
        yield hold
    finally:
        keeping.cancel()
        with suppress(TransientError, DependencyDownError):  # it ends by itself
            await hold.hand_back(list(hold.receipts))
