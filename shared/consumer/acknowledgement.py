"""Deleting messages whose effect is done, ten in a request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from datetime import timedelta
from random import Random

import structlog

from shared.consumer.backoff import probe_delay
from shared.consumer.lease import Lease, Leases
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import BATCH_MAXIMUM, Failures, Queue

LINGER = timedelta(milliseconds=50)  # how long a message waits for others, unless they fill its request sooner
_WAITING_MAXIMUM = 100  # then slots stay taken until deletes succeed again
_REMEMBERED_MAXIMUM = 10_000

_log = structlog.stdlib.get_logger()


class Acknowledger:
    """Deletes in batches, and remembers what is done: a redelivery of it is deleted without being worked on."""

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
        """Have a message deleted soon: it has had its effect. Its lease is renewed until then."""
        self._done[lease.delivery.message_id] = None
        if len(self._done) > _REMEMBERED_MAXIMUM:
            self._done.popitem(last=False)
        await self._waiting.put(lease)

    async def flush(self) -> None:
        """Wait until nothing is left to delete."""
        await self._waiting.join()

    async def run(self) -> None:
        """Delete acknowledged messages, forever."""
        remaining: list[Lease] = []
        failures = 0
        while True:
            batch = [*remaining, *await self._next(remaining, failures)]
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER.total_seconds()):
                    while len(batch) < BATCH_MAXIMUM:
                        batch.append(await self._waiting.get())
            remaining = await self._delete(batch)
            failures = failures + 1 if remaining else 0

    async def _next(self, remaining: list[Lease], failures: int) -> list[Lease]:
        """Wait for a lease to delete. While `remaining` ones wait to be retried, give up after a pause and return none.

        A message that arrives during the pause is deleted at once: one that SQS keeps failing must not delay all others.
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
        """Delete a batch, and return the leases to retry. A lost one never is: another consumer may have the message."""
        ours = [lease for lease in batch if lease.is_held]
        receipts = [lease.delivery.receipt_handle for lease in ours]
        try:
            failures = await self._queue.delete(receipts)
        except (TransientError, PermanentError, DependencyDownError) as error:
            _log.warning("messages_not_deleted", count=len(receipts), reason=str(error))
            failures = Failures(transient=frozenset(receipts))
        remaining = [lease for lease in ours if lease.delivery.receipt_handle in failures.transient]
        for lease in batch:
            if lease not in remaining:
                self._leases.release(lease)
                self._waiting.task_done()
        return remaining
