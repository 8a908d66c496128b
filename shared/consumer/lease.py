"""The right to work on a delivery: SQS hides it for the visibility timeout, and we renew that while we hold it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog

from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import HOLD_MAXIMUM, Delivery, Queue

_TURNS_PER_LEASE = 12  # a renewal that fails at half-life is tried again five times

_log = structlog.stdlib.get_logger()


@dataclass(eq=False, slots=True)
class Lease:
    """The lease of one delivery. Times are the event loop's monotonic seconds."""

    delivery: Delivery
    expires_at: float  # moves on with each renewal
    old_at: float  # when we have held the delivery for nearly as long as SQS allows
    is_lost: bool = False  # another consumer may have the message: for good
    is_old: bool = False  # `old_at` has passed: the task was interrupted, and hands the message over as a copy
    is_settling: bool = False  # the task carries out an outcome
    task: asyncio.Task[None] | None = None  # works on the delivery

    @property
    def is_held(self) -> bool:
        """Whether no other consumer can have the message. Time alone can end that: the process may have been paused."""
        return not self.is_lost and asyncio.get_running_loop().time() < self.expires_at

    def interrupt(self) -> None:
        """Cancel the task, unless it is carrying out an outcome: half of that may be done."""
        if self.task is not None and not self.is_settling:
            self.task.cancel()


class Leases:
    """The leases that we renew: of messages being worked on, and of messages waiting to be deleted."""

    def __init__(self, queue: Queue, visibility: timedelta) -> None:
        self._queue = queue
        self._visibility = visibility
        self._renewed: dict[Lease, None] = {}  # in their order, so that the same events lead to the same requests

    def take(self, delivery: Delivery) -> Lease:
        """The lease of a delivery that has just been received."""
        now = asyncio.get_running_loop().time()
        lease = Lease(delivery, now + self._visibility.total_seconds(), now + HOLD_MAXIMUM.total_seconds())
        self._renewed[lease] = None
        return lease

    def release(self, lease: Lease) -> None:
        """Stop renewing a lease."""
        self._renewed.pop(lease, None)

    async def keep(self) -> None:
        """Renew the leases that are past half of their life, forever."""
        loop = asyncio.get_running_loop()
        whole = self._visibility.total_seconds()
        while True:
            await asyncio.sleep(whole / _TURNS_PER_LEASE)
            for lease in [lease for lease in self._renewed if not lease.is_held]:
                self._lose(lease)
            for lease in [lease for lease in self._renewed if lease.old_at <= loop.time() and not lease.is_old]:
                lease.is_old = True
                lease.interrupt()
            due = [lease for lease in self._renewed if lease.expires_at - loop.time() <= whole / 2]
            if due:
                await self._renew(due)

    async def show_again(self, lease: Lease, delay: timedelta = timedelta(0)) -> None:
        """Show a message to every consumer again after `delay`; if that fails, the visibility timeout does it later."""
        if not lease.is_held:
            return
        self.release(lease)
        try:
            await self._queue.set_visibility({lease.delivery.receipt_handle: delay})
        except (TransientError, PermanentError, DependencyDownError) as error:
            _log.warning("message_not_shown_again", message_id=lease.delivery.message_id, reason=str(error))

    async def _renew(self, due: list[Lease]) -> None:
        asked_at = asyncio.get_running_loop().time()  # before the request: the queue counts from a later moment
        receipts = [lease.delivery.receipt_handle for lease in due]
        try:
            failures = await self._queue.set_visibility(dict.fromkeys(receipts, self._visibility))
        except (TransientError, PermanentError, DependencyDownError) as error:
            _log.warning("leases_not_renewed", count=len(due), reason=str(error))
            return
        for lease in due:
            receipt = lease.delivery.receipt_handle
            if receipt not in failures.gone | failures.transient:
                lease.expires_at = asked_at + self._visibility.total_seconds()
            elif lease in self._renewed and receipt in failures.gone:
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        """Another consumer may have the message now: cancel the task, which must not delete it."""
        self.release(lease)
        lease.is_lost = True
        if lease.task is not None:
            lease.task.cancel()
        _log.warning("lease_lost", message_id=lease.delivery.message_id)
