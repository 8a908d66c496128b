"""The right to work on a delivery: SQS hides it for the visibility timeout, and we renew that while we hold it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import HOLD_MAXIMUM, Delivery, Queue

_TURNS_PER_LEASE = 12  # a renewal that fails at half-life is tried again five times

_log = structlog.stdlib.get_logger()


@dataclass(eq=False, slots=True)
class Lease:
    """The lease of one delivery. Times are the event loop's monotonic seconds; a lost lease never comes back.

    An old one has been held for nearly as long as SQS allows: its task is interrupted, and it is handed over as a copy.
    """

    delivery: Delivery
    expires_at: float
    old_at: float
    is_lost: bool = False
    is_old: bool = False
    is_settling: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether no other consumer can have the message. Time alone ends this also: the process may have been paused."""
        return not self.is_lost and asyncio.get_running_loop().time() < self.expires_at

    def lose(self) -> None:
        """Another consumer may have the message now: cancel its task, which must not delete it."""
        self.is_lost = True
        if self.task is not None:
            self.task.cancel()

    def grow_old(self) -> None:
        """Interrupt its task, once."""
        if not self.is_old:
            self.interrupt()
        self.is_old = True

    def interrupt(self) -> None:
        """Cancel its task, unless it is carrying out an outcome: half of that may be done."""
        if self.task is not None and not self.is_settling:
            self.task.cancel()


class Leases:
    """Every lease we hold: of messages being worked on, and of messages waiting to be deleted."""

    def __init__(self, queue: Queue, visibility: timedelta) -> None:
        self._queue = queue
        self._visibility = visibility
        self._held: set[Lease] = set()

    def take(self, delivery: Delivery) -> Lease:
        """The lease of a delivery that has just been received."""
        now = asyncio.get_running_loop().time()
        lease = Lease(delivery, now + self._visibility.total_seconds(), now + HOLD_MAXIMUM.total_seconds())
        self._held.add(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """Stop renewing a lease."""
        self._held.discard(lease)

    async def keep(self) -> None:
        """Renew the leases that are past half of their life, forever."""
        loop = asyncio.get_running_loop()
        whole = self._visibility.total_seconds()
        while True:
            await asyncio.sleep(whole / _TURNS_PER_LEASE)
            for lease in [lease for lease in self._held if not lease.is_held]:
                self._lose(lease)
            for lease in [lease for lease in self._held if lease.old_at <= loop.time()]:
                lease.grow_old()
            due = [lease for lease in self._held if lease.expires_at - loop.time() <= whole / 2]
            if due:
                await self._renew(due)

    async def hand_back(self, leases: Iterable[Lease], delay: timedelta = timedelta(0)) -> None:
        """Show messages to every consumer again after `delay`; if that fails, the visibility timeout does it later."""
        ours = [lease for lease in leases if lease.is_held]
        for lease in ours:
            self.release(lease)
        if not ours:
            return
        try:
            await self._queue.set_visibility({lease.delivery.receipt_handle: delay for lease in ours})
        except (TransientError, PermanentError, DependencyDownError) as error:
            _log.warning("messages_not_handed_back", count=len(ours), reason=str(error))

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
            elif lease in self._held and receipt in failures.gone:
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        self.release(lease)
        lease.lose()
        _log.warning("lease_lost", message_id=lease.delivery.message_id)
