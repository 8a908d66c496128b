"""The lease of a source: one run at a time, numbered, by compare-and-set on the state object.

Why the run number may order versions: the lease is taken before the snapshot is opened, so whatever run n writes is at least
as new as snapshot n; and a change after snapshot n is read by a later run, with a higher number. A warehouse row that keeps
the image of the highest run therefore ends as the newest image, whatever order the batches arrive in.

The number is at least the time in milliseconds, so that a lost state object cannot restart it below what the warehouse holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from contracts.state import Checkpoint, SourceState, StoredLease, UnfinishedLoad
from shared.errors import DependencyDownError, TransientError
from shared.object_store import ConflictError
from shared.source_store import SourceStore

LEASE_LIFE = timedelta(seconds=30)  # how long a run that was killed keeps the next one waiting
RENEWAL = LEASE_LIFE / 3
RENEWAL_RETRY = RENEWAL / 10
_FAR_AHEAD = timedelta(days=1)  # no clock is that wrong: a lease that ends later was not written by a run
CLOCK_SKEW = timedelta(seconds=5)  # the clocks of two hosts differ: a lease is over only this long after its end

_log = structlog.stdlib.get_logger()


class LeaseHeldError(Exception):
    """Another run is under way. Recovery: try again when it has ended."""


class LeaseLostError(TransientError):
    """Another run took over: this one was away for longer than the lease. Recovery: a later run reads the same changes."""


@dataclass
class SourceLease:
    """The lease of a run in progress."""

    store: SourceStore
    token: UUID  # of this lease: how a run recognises its own writes
    state: SourceState  # as this run last wrote it
    etag: str  # of that version of the state
    now: Callable[[], datetime]
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)  # one write at a time: each needs the etag of the one before

    @property
    def run(self) -> int:
        """This run's number."""
        return self.state.run

    async def renew(self) -> None:
        """Extend the lease by its full life. Raises: LeaseLostError."""
        async with self.writing:
            if self.state.lease is not None:
                await self._write(lease=StoredLease(token=self.token, until=self.now() + LEASE_LIFE))

    async def complete(self, checkpoint: Checkpoint) -> None:
        """End the run; the next one reads what changed since `checkpoint`. Raises: LeaseLostError."""
        async with self.writing:
            await self._write(lease=None, checkpoint=checkpoint, load=None)

    async def begin_load(self, load: UnfinishedLoad) -> None:
        """Store what the next run may go on with if this one is killed. Raises: LeaseLostError."""
        async with self.writing:
            await self._write(load=load)

    async def release(self) -> None:
        """End the run without effect: the next one reads what this one should have."""
        async with self.writing:
            with suppress(LeaseLostError):
                await self._write(lease=None)

    async def _write(self, **changes: StoredLease | Checkpoint | UnfinishedLoad | None) -> None:
        state = self.state.model_copy(update=changes)
        try:
            self.etag = await self.store.replace_state(state, expected=self.etag, is_ours=self._is_ours)
        except ConflictError as error:
            raise LeaseLostError(f"another run took over '{self.store.source}' while run {self.run} was away") from error
        self.state = state

    def _is_ours(self, stored: SourceState) -> bool:
        return stored.lease is not None and stored.lease.token == self.token


async def take_lease(store: SourceStore, now: Callable[[], datetime], new_token: Callable[[], UUID]) -> SourceLease:
    """Take the lease of a source and the next run number.

    Raises: LeaseHeldError while another run has it.
    """
    state, etag = await store.read_state()
    if state.lease is not None and now() - CLOCK_SKEW < state.lease.until < now() + _FAR_AHEAD:
        raise LeaseHeldError(f"a run of '{store.source}' runs until {state.lease.until:%H:%M:%S} at the latest")
    token = new_token()
    run = max(state.run + 1, int(now().timestamp() * 1000))
    taken = state.model_copy(update={"run": run, "lease": StoredLease(token=token, until=now() + LEASE_LIFE)})
    try:
        etag = await store.replace_state(taken, expected=etag)
    except ConflictError as error:
        raise LeaseHeldError(f"another run of '{store.source}' has just begun") from error
    return SourceLease(store, token, taken, etag, now)


@asynccontextmanager
async def renewed(lease: SourceLease) -> AsyncIterator[None]:
    """Renew the lease while the body runs. A run that was not completed inside is released, so that the next need not wait.

    A run that loses its lease finds out when it completes: what it has sent by then is true of its snapshot, and harmless.
    """
    renewal = asyncio.create_task(_renew_until_lost(lease))
    try:
        yield
    finally:
        async with lease.writing:
            renewal.cancel()
        if lease.state.lease is not None:
            await lease.release()


async def _renew_until_lost(lease: SourceLease) -> None:
    """Renew at intervals. A renewal that fails is soon repeated: there is time for several before the lease ends."""
    pause = RENEWAL
    while True:
        await asyncio.sleep(pause.total_seconds())
        try:
            async with asyncio.timeout(RENEWAL.total_seconds() / 2):
                await lease.renew()
        except LeaseLostError:
            return
        except (TransientError, DependencyDownError, TimeoutError) as error:
            _log.warning("lease_renewal_failed", run=lease.run, reason=str(error) or "S3 does not answer")
            pause = RENEWAL_RETRY
        else:
            pause = RENEWAL
