from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from contracts.messages import Snapshot
from contracts.objects import SourceKeys
from contracts.state import Checkpoint, SourceIdentity, SourceState
from services.ingestion.lease import (
    CLOCK_SKEW,
    LEASE_LIFE,
    LeaseHeldError,
    LeaseLostError,
    SourceLease,
    renewed,
    take_lease,
)
from shared.errors import DependencyDownError, TransientError
from shared.object_store import ConflictError
from shared.source_store import SourceStore
from shared.testing import EPOCH, FakeObjectStore, loop_now

pytestmark = pytest.mark.virtual_clock
BUCKET, SOURCE = "landing", "totesys"
LOST_ANSWER = ConflictError("the answer was lost, and the repetition met its own write")


def checkpoint(run: int) -> Checkpoint:
    return Checkpoint(
        run=run,
        started_at=EPOCH,
        snapshot=Snapshot(taken_at=EPOCH, horizon=1000, wal_position="0/1"),
        identity=SourceIdentity(system_identifier=1, timeline=1, database_oid=1, statistics_reset=""),
        contract="c",
        tables={},
    )


class AnswerLosingStore(FakeObjectStore):
    """Writes, but raises `failure` to the caller all the same, `losses` times."""

    losses = 0
    failure: Exception = LOST_ANSWER

    async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        etag = await super().replace(bucket, key, body, expected=expected)
        if self.losses:
            self.losses -= 1
            raise self.failure
        return etag


def store(objects: FakeObjectStore) -> SourceStore:
    return SourceStore(objects, SOURCE, BUCKET, "processed")


async def take(objects: FakeObjectStore) -> SourceLease:
    return await take_lease(store(objects), loop_now, uuid4)


async def state_of(objects: FakeObjectStore) -> SourceState:
    found = await objects.read(BUCKET, SourceKeys(SOURCE).state)
    assert found is not None
    return SourceState.model_validate_json(found.body)


@pytest.fixture
def objects() -> AnswerLosingStore:
    return AnswerLosingStore(BUCKET)


async def test_the_first_run_takes_the_lease_and_a_number(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    state = await state_of(objects)
    assert state.lease is not None
    assert (state.run, state.lease.token, state.lease.until) == (lease.run, lease.token, EPOCH + LEASE_LIFE)


async def test_one_of_many_concurrent_runs_takes_the_lease(objects: AnswerLosingStore) -> None:
    async def attempt() -> SourceLease | None:
        try:
            return await take(objects)
        except LeaseHeldError:
            return None

    found = await asyncio.gather(*(attempt() for _ in range(10)))
    assert sum(lease is not None for lease in found) == 1


async def test_only_one_of_two_runs_that_read_the_same_version_takes_the_lease() -> None:
    class Slow(FakeObjectStore):
        async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
            await asyncio.sleep(0.1)
            return await super().replace(bucket, key, body, expected=expected)

    objects = Slow(BUCKET)
    found = await asyncio.gather(take(objects), take(objects), return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["LeaseHeldError", "SourceLease"]
    assert any("has just begun" in str(one) for one in found)


async def test_a_held_lease_reports_when_it_ends(objects: AnswerLosingStore) -> None:
    await take(objects)
    with pytest.raises(LeaseHeldError, match=r"a run of 'totesys' runs until 00:00:30 at the latest"):
        await take(objects)


async def test_a_lease_expires_a_little_after_its_end_because_clocks_differ(objects: AnswerLosingStore) -> None:
    first = await take(objects)
    await asyncio.sleep((LEASE_LIFE + CLOCK_SKEW).total_seconds() - 0.001)
    with pytest.raises(LeaseHeldError):
        await take(objects)
    await asyncio.sleep(0.001)
    assert (await take(objects)).run > first.run


async def test_run_numbers_are_milliseconds_and_rise_even_within_one(objects: AnswerLosingStore) -> None:
    first = await take(objects)
    assert first.run == int(EPOCH.timestamp() * 1000)
    await first.release()
    second = await take(objects)
    assert second.run == first.run + 1
    await second.release()
    await asyncio.sleep(60)
    assert (await take(objects)).run == first.run + 60_000


async def test_run_numbers_rise_even_if_the_clock_goes_back(objects: AnswerLosingStore) -> None:
    first = await take(objects)
    await first.release()
    later = await take_lease(store(objects), lambda: EPOCH - timedelta(days=1), uuid4)
    assert later.run == first.run + 1


async def test_a_lost_state_object_does_not_restart_run_numbers(objects: AnswerLosingStore) -> None:
    first = await take(objects)
    objects.buckets[BUCKET].clear()
    await asyncio.sleep(0.002)
    assert (await take(objects)).run > first.run


async def test_a_write_whose_answer_was_lost_counts_as_success(objects: AnswerLosingStore) -> None:
    objects.losses = 1
    lease = await take(objects)
    objects.losses = 1
    await lease.renew()
    objects.losses = 1
    await lease.complete(checkpoint(lease.run))
    assert (await state_of(objects)).checkpoint == checkpoint(lease.run)


async def test_a_renewal_whose_answer_was_lost_keeps_the_lease(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    for end in (lease.renew, lambda: lease.complete(checkpoint(lease.run))):
        await asyncio.sleep(1)  # each renewal writes different bytes
        objects.losses, objects.failure = 1, DependencyDownError("s3", "no answer")
        with pytest.raises(DependencyDownError):
            await lease.renew()
        await asyncio.sleep(1)
        await end()
    assert (await state_of(objects)).checkpoint == checkpoint(lease.run)


class HangingStore(FakeObjectStore):
    """The third write and every third after it hang until they are abandoned."""

    writes = 0

    async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        self.writes += 1
        if self.writes % 3 == 0:
            await asyncio.sleep(3600)
        return await super().replace(bucket, key, body, expected=expected)


async def test_a_hanging_renewal_is_abandoned_in_time_for_another() -> None:
    objects = HangingStore(BUCKET)
    lease = await take(objects)
    async with renewed(lease):
        for _ in range(100):
            await asyncio.sleep(1)
            with pytest.raises(LeaseHeldError):
                await take_lease(store(objects), loop_now, uuid4)
        await lease.complete(checkpoint(lease.run))
    assert objects.writes > 6


async def test_completing_stores_the_checkpoint_and_frees_the_lease(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    await lease.complete(checkpoint(lease.run))
    assert await state_of(objects) == SourceState(run=lease.run, lease=None, checkpoint=checkpoint(lease.run))
    assert (await take(objects)).state.checkpoint == checkpoint(lease.run)


async def test_a_run_whose_lease_expired_cannot_complete(objects: AnswerLosingStore) -> None:
    zombie = await take(objects)
    await asyncio.sleep(120)
    heir = await take(objects)
    with pytest.raises(LeaseLostError, match=f"another run took over .* while run {zombie.run} was away"):
        await zombie.complete(checkpoint(zombie.run))
    assert (await state_of(objects)).checkpoint is None
    await heir.complete(checkpoint(heir.run))


async def test_a_run_whose_state_object_was_deleted_cannot_complete(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    objects.buckets[BUCKET].clear()
    with pytest.raises(LeaseLostError):
        await lease.complete(checkpoint(lease.run))


async def test_releasing_a_lost_lease_changes_nothing(objects: AnswerLosingStore) -> None:
    zombie = await take(objects)
    await asyncio.sleep(120)
    heir = await take(objects)
    await zombie.release()
    assert await state_of(objects) == heir.state


async def test_a_failed_run_lets_the_next_one_start_at_once(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    with pytest.raises(TransientError):
        async with renewed(lease):
            raise TransientError("the source went away")
    following = await take(objects)
    assert (following.run, following.state.checkpoint) == (lease.run + 1, None)


async def test_a_long_run_keeps_its_lease(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    async with renewed(lease):
        for _ in range(60):
            await asyncio.sleep(59)  # not a multiple of the renewal interval: a look may come at any moment
            with pytest.raises(LeaseHeldError):
                await take(objects)
        await lease.complete(checkpoint(lease.run))
    assert (await state_of(objects)).lease is None


async def test_a_failed_renewal_is_repeated(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    async with renewed(lease):
        objects.faults.add("replace", *[DependencyDownError("s3", "away"), TransientError("throttled")] * 8)
        await asyncio.sleep(600)
        with pytest.raises(LeaseHeldError):
            await take(objects)
        await lease.complete(checkpoint(lease.run))


async def test_a_run_that_lost_its_lease_finds_out_when_it_completes(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    async with renewed(lease):
        objects.buckets[BUCKET].clear()
        await asyncio.sleep(600)
        with pytest.raises(LeaseLostError):
            await lease.complete(checkpoint(lease.run))


async def test_completing_stops_the_renewals(objects: AnswerLosingStore) -> None:
    lease = await take(objects)
    async with renewed(lease):
        await lease.complete(checkpoint(lease.run))
        await asyncio.sleep(600)
    assert (await state_of(objects)).lease is None


async def test_a_state_written_by_a_later_build_is_readable(objects: AnswerLosingStore) -> None:
    await objects.put(BUCKET, SourceKeys(SOURCE).state, b'{"run": 9, "added_later": true}')
    assert (await take(objects)).run == int(EPOCH.timestamp() * 1000)
