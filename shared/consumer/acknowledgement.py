"""Deleting messages whose effect is done, ten in a request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import timedelta
from random import Random

import structlog

from shared.consumer.backoff import probe_delay
from shared.consumer.lease import Lease, Leases
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import BATCH_MAXIMUM, Failures, Queue

LINGER = timedelta(milliseconds=50)  # how long a message waits for others to be deleted with
_WAITING_MAXIMUM = 100  # then slots stay taken until deletes work again
_REMEMBERED_MAXIMUM = 10_000

_log = structlog.stdlib.get_logger()


class Acknowledger:
    """Deletes in batches and remembers what is done: a redelivery of that is deleted without being worked on."""

    def __init__(self, queue: Queue, leases: Leases, rng: Random) -> None:
        self._queue = queue
        self._leases = leases
        self._rng = rng
        self._waiting: asyncio.Queue[Lease] = asyncio.Queue(_WAITING_MAXIMUM)
        self._done: OrderedDict[str, None] = OrderedDict()

    def is_done(self, message_id: str) -> bool:
        """Whether this process has already had the effect of the message."""
        return message_id in self._done

    async def acknowledge(self, lease: Lease) -> None:
        """The message has had its effect: to be deleted soon. Its lease is renewed until then."""
        self._done[lease.delivery.message_id] = None
        if len(self._done) > _REMEMBERED_MAXIMUM:
            self._done.popitem(last=False)
        await self._waiting.put(lease)

    async def flush(self) -> None:
        """Returns when nothing waits to be deleted."""
        await self._waiting.join()

    async def run(self) -> None:
        """Delete acknowledged messages, forever."""
        remaining: list[Lease] = []
        failures = 0
        while True:
            batch = [*remaining, *await self._next(remaining, failures)]
            await asyncio.sleep(LINGER.total_seconds())
            while len(batch) < BATCH_MAXIMUM and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            remaining = await self._delete(batch)
            failures = failures + 1 if remaining else 0

    async def _next(self, remaining: list[Lease], failures: int) -> list[Lease]:
        """The next lease that waits. While some could not be deleted it is waited for only until they are to be tried again.

        What comes then need not wait as long as they: one message that SQS keeps failing must not hold up all others.
        """
        if not remaining:
            return [await self._waiting.get()]
        pause = probe_delay(failures, self._rng).total_seconds()
        if len(remaining) == BATCH_MAXIMUM:
            await asyncio.sleep(pause)
            return []
        try:
            async with asyncio.timeout(pause):
                return [await self._waiting.get()]
        except TimeoutError:
            return []

    async def _delete(self, batch: list[Lease]) -> list[Lease]:
        """The leases of `batch` that are to be tried again. A lost one never is: the message may be in other hands."""
        ours = [lease for lease in batch if lease.is_held]
        failures = await self._request([lease.delivery.receipt_handle for lease in ours])
        remaining = [lease for lease in ours if lease.delivery.receipt_handle in failures.transient]
        for lease in batch:
            if lease not in remaining:
                self._leases.release(lease)
                self._waiting.task_done()
        return remaining

    async def _request(self, receipts: list[str]) -> Failures:
        try:
            return await self._queue.delete(receipts)
        except (TransientError, PermanentError, DependencyDownError) as error:
            _log.warning("messages_not_deleted", count=len(receipts), reason=str(error))
            return Failures(transient=frozenset(receipts))
