"""One operation at a time on a queue: who has the lock, who loses it, and what a lost answer must not do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.operator.dlq.actions import replay_operation
from services.operator.dlq.lock import CLOCK_SKEW, LIFE, RENEWAL, LockedError, locked
from services.operator.dlq.operation import Operation
from shared.errors import PermanentError
from shared.testing import AnswerLost, FakeObjectStore, connection_reset, loop_now, throttled
from tests.unit.services.operator.dlq.scene import ALL, ANN, FAST, SERVICE, on_loop_clock
from tests.unit.services.operator.scene import LANDING

pytestmark = pytest.mark.virtual_clock
KEY = "dead-letters/locks/remodelling.json"
OVER_S = (LIFE + CLOCK_SKEW).total_seconds()


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


@pytest.fixture
def objects() -> FakeObjectStore:
    return FakeObjectStore(LANDING)


def operation() -> Operation:
    return replay_operation(SERVICE, ALL, ANN, FAST)


async def held(objects: FakeObjectStore, seconds: float) -> None:
    async with locked(objects, LANDING, operation()):
        await asyncio.sleep(seconds)


async def abandoned(objects: FakeObjectStore) -> None:
    """As by a killed process: held, and never freed."""
    await held(objects, 0)
    stored = json.loads(objects.buckets[LANDING][KEY])
    until = loop_now() + LIFE
    objects.buckets[LANDING][KEY] = json.dumps(stored | {"until": until.isoformat()}).encode()


async def test_the_second_is_told_who_has_it_and_for_how_long(objects: FakeObjectStore) -> None:
    first = asyncio.create_task(held(objects, 200))
    await asyncio.sleep(100)
    with pytest.raises(
        LockedError, match=r"ann works on remodelling's dead letters \(operation 2026.*\); wait until they have"
    ):
        await held(objects, 0)
    await first
    await held(objects, 0)


async def test_of_two_at_once_one_wins(objects: FakeObjectStore) -> None:
    found = await asyncio.gather(held(objects, 5), held(objects, 5), return_exceptions=True)
    assert [type(one) for one in found if one is not None] == [LockedError]


async def test_the_lock_of_a_killed_one_ends_a_little_late_since_clocks_differ(objects: FakeObjectStore) -> None:
    await abandoned(objects)
    await asyncio.sleep(OVER_S - 1)
    with pytest.raises(LockedError):
        await held(objects, 0)
    await asyncio.sleep(1)
    await held(objects, 0)


async def test_it_is_renewed_for_as_long_as_it_is_held(objects: FakeObjectStore) -> None:
    first = asyncio.create_task(held(objects, 10_000))
    for _ in range(20):
        await asyncio.sleep(400)
        with pytest.raises(LockedError):
            await held(objects, 0)
    await first


@pytest.mark.parametrize("fault", [throttled(), connection_reset(), AnswerLost()], ids=lambda one: type(one).__name__)
async def test_a_renewal_that_fails_once_or_whose_answer_is_lost_loses_nothing(
    objects: FakeObjectStore, fault: Exception
) -> None:
    objects.faults.add("replace", fault, at=1)
    await held(objects, 300)
    await held(objects, 0)  # and it was freed


async def test_freeing_it_survives_a_lost_answer(objects: FakeObjectStore) -> None:
    objects.faults.add("replace", AnswerLost(), at=RENEWAL.total_seconds() * 2)
    await held(objects, RENEWAL.total_seconds() * 2 + 1)
    await held(objects, 0)


async def test_who_can_t_renew_it_for_its_life_stops(objects: FakeObjectStore) -> None:
    objects.faults.during(1, 10_000, connection_reset(), "replace")
    started = asyncio.get_running_loop().time()
    with pytest.raises(LockedError, match="the lock of remodelling's dead letters was lost"):
        await held(objects, 9000)
    took = asyncio.get_running_loop().time() - started
    assert took <= OVER_S  # then the next one takes it


def break_writes(objects: FakeObjectStore, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From now on each write takes so long, and then fails."""

    async def slow(*_given: object, **_named: object) -> str:
        await asyncio.sleep(seconds)
        raise connection_reset()

    monkeypatch.setattr(objects, "replace", slow)


@pytest.mark.parametrize("seconds", [3.0, 20.0, 120.0])
async def test_who_waits_for_answers_stops_before_the_next_one_may_begin(
    objects: FakeObjectStore, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    first = asyncio.create_task(held(objects, 9000))
    await asyncio.sleep(1)
    with monkeypatch.context() as slow:
        break_writes(objects, slow, seconds)
        await asyncio.sleep(OVER_S - 1)
    await held(objects, 0)
    assert first.done()
    with pytest.raises(LockedError, match="was lost"):
        await first


async def test_a_lock_that_takes_its_whole_life_to_take_is_lost_at_once(
    objects: FakeObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = objects.replace

    async def slow(*given: Any, **named: Any) -> str:
        etag = await replace(*given, **named)
        await asyncio.sleep(LIFE.total_seconds())
        return etag

    with monkeypatch.context() as patched:
        patched.setattr(objects, "replace", slow)
        with pytest.raises(LockedError, match="was lost"):
            await held(objects, 9000)
    assert asyncio.get_running_loop().time() <= OVER_S


async def test_a_renewal_that_fails_as_nobody_expected_is_a_lost_lock(objects: FakeObjectStore) -> None:
    """Ended in silence, it would leave the lock to the next one while the first goes on."""
    objects.faults.add("replace", ZeroDivisionError(), at=1)
    with pytest.raises(LockedError, match="was lost"):
        await held(objects, 9000)
    assert asyncio.get_running_loop().time() <= OVER_S


async def test_who_may_no_longer_write_it_stops(objects: FakeObjectStore) -> None:
    objects.faults.add("replace", PermanentError("s3 refused PutObject"), at=1)
    with pytest.raises(LockedError, match="was lost"):
        await held(objects, 9000)


async def test_who_was_overtaken_stops_and_leaves_the_other_s_lock(objects: FakeObjectStore) -> None:
    first = asyncio.create_task(held(objects, 9000))
    await asyncio.sleep(1)
    del objects.buckets[LANDING][KEY]
    second = asyncio.create_task(held(objects, 9000))
    with pytest.raises(LockedError, match="was lost"):
        await first
    with pytest.raises(LockedError, match="ann works on"):
        await held(objects, 0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await held(objects, 0)


async def test_an_interruption_is_no_lost_lock(objects: FakeObjectStore) -> None:
    first = asyncio.create_task(held(objects, 9000))
    await asyncio.sleep(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await held(objects, 0)


async def test_each_queue_has_a_lock_of_its_own(objects: FakeObjectStore) -> None:
    async with locked(objects, LANDING, operation()), locked(objects, LANDING, replay_operation("loading", ALL, ANN, FAST)):
        pass
