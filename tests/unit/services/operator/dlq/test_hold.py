"""Held letters: hidden while they are held, handed back afterwards, and reported when they are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta

import pytest

from services.operator.dlq import hold
from services.operator.dlq.hold import VISIBILITY_MAXIMUM, VISIBILITY_MINIMUM, Hold
from services.operator.dlq.letters import Letter
from shared.clock import Clock
from shared.errors import PermanentError
from shared.queue import Delivery, Failures
from shared.testing import FakeQueue, Partial, connection_reset, loop_now, throttled
from tests.unit.services.operator.dlq.scene import SERVICE, ids_of
from tests.unit.services.operator.scene import Scene

pytestmark = pytest.mark.virtual_clock


def queue_of(count: int) -> FakeQueue:
    queue = FakeQueue("dead")
    for number in range(count):
        queue.put(str(number))
    return queue


def holding(queue: FakeQueue, clock: Clock = loop_now) -> AbstractAsyncContextManager[Hold]:
    return hold.holding(replace(Scene().system, dead_letters={SERVICE: queue}, clock=clock), SERVICE)


async def taken(held: Hold, **options: timedelta) -> list[Letter]:
    return [letter async for letter in held.letters(**options)]


async def visible(queue: FakeQueue) -> int:
    return (await queue.depth()).visible


async def test_every_letter_is_received_once_and_handed_back() -> None:
    queue = queue_of(37)
    async with holding(queue) as held:
        assert len({letter.id for letter in await taken(held)}) == 37
        assert await visible(queue) == 0
        assert await taken(held) == []
    assert await visible(queue) == 37
    assert {message.receive_count for message in queue.messages} == {1}


async def test_letters_stay_hidden_while_they_are_held() -> None:
    queue = queue_of(25)
    async with holding(queue) as held:
        await taken(held)
        for _ in range(30):
            await asyncio.sleep(100)
            assert await visible(queue) == 0
            assert sum(one in held for one in ids_of(queue.messages)) == 25
    assert await visible(queue) == 25


async def test_a_letter_received_twice_during_a_look_is_seen_once() -> None:
    queue = queue_of(25)
    seen: list[str] = []
    async with holding(queue) as held:
        async for letter in held.letters():
            seen.append(letter.id)
            if len(seen) == 25:  # reading takes long, and none can be renewed
                queue.faults.during(0, 61, connection_reset(), "set_visibility")
                await asyncio.sleep(61)
        assert sum(one in held for one in ids_of(queue.messages)) == 25
    assert len(seen) == len(set(seen)) == 25


async def test_letters_lost_to_another_command_are_counted_as_held_elsewhere() -> None:
    queue = queue_of(3)
    async with holding(queue) as held:
        await taken(held)
        queue.faults.during(0, 70, connection_reset(), "set_visibility")
        await asyncio.sleep(61)
        await queue.receive(2, wait=timedelta(0), visibility=timedelta(hours=1))
        await taken(held)
        assert held.elsewhere == 2


@pytest.mark.parametrize("fault", [throttled(), connection_reset(), Partial()], ids=lambda one: type(one).__name__)
async def test_one_failed_renewal_loses_no_letter(fault: Exception) -> None:
    queue = queue_of(25)
    async with holding(queue) as held:
        await taken(held)
        queue.faults.add("set_visibility", fault)
        await asyncio.sleep(200)
        assert await visible(queue) == 0
        assert sum(one in held for one in ids_of(queue.messages)) == 25


async def test_a_request_that_fails_in_every_renewal_loses_only_its_own_letters() -> None:
    queue = queue_of(25)
    set_visibility, first = queue.set_visibility, queue.messages[0]

    async def failing(changes: Mapping[str, timedelta]) -> Failures:
        if first.receipt in changes:
            raise throttled()
        return await set_visibility(changes)

    queue.set_visibility = failing  # type: ignore[method-assign]
    async with holding(queue) as held:
        await taken(held)
        await asyncio.sleep(200)
        assert sum(one in held for one in ids_of(queue.messages)) == 15


async def test_a_letter_that_cannot_be_renewed_counts_as_lost_once_it_is_visible() -> None:
    queue = queue_of(3)
    async with holding(queue) as held:
        letters = [letter.id for letter in await taken(held)]
        queue.faults.during(1, 70, connection_reset(), "set_visibility")
        await asyncio.sleep(61)
        assert await visible(queue) == 3
        assert not any(one in held for one in letters)
        assert await held.delete(letters) == set()
    assert len(queue.messages) == 3


async def test_an_invalid_receipt_deletes_nothing_and_a_transient_failure_is_retried() -> None:
    queue = queue_of(4)
    async with holding(queue) as held:
        letters = [letter.id for letter in await taken(held)]
        queue.invalidate(queue.messages[1])  # lost, while the first and the third fail for a moment
        queue.faults.add("delete", Partial(), connection_reset())
        assert await held.delete(letters) == {letters[0], letters[2], letters[3]}
        assert letters[1] not in held
    assert [message.body for message in queue.messages] == ["1"]


async def test_letters_handed_back_stay_visible_while_the_others_are_renewed() -> None:
    queue = queue_of(25)
    async with holding(queue) as held:
        kept = [letter.id for letter in await taken(held)][20:]
        await held.hand_back(but=kept)
        for _ in range(100):
            await asyncio.sleep(1)
            assert await visible(queue) == 20
        assert all(one in held for one in kept)
    assert await visible(queue) == 25


async def test_a_renewal_in_progress_does_not_hide_letters_that_were_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = queue_of(1)
    set_visibility = queue.set_visibility

    async def slow(changes: Mapping[str, timedelta]) -> Failures:
        if timedelta(0) not in changes.values():
            await asyncio.sleep(2)  # how long a renewal takes
        return await set_visibility(changes)

    monkeypatch.setattr(queue, "set_visibility", slow)
    async with holding(queue) as held:
        await taken(held)
        await asyncio.sleep(VISIBILITY_MINIMUM.total_seconds() / 3 - 0.5)  # looking took a second
        await held.hand_back()
        await asyncio.sleep(5)
        assert await visible(queue) == 1


async def test_the_letters_of_an_interrupted_poll_are_handed_back() -> None:
    queue = queue_of(0)

    async def look() -> None:
        async with holding(queue) as held:
            await taken(held, patience=timedelta(minutes=5))

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.5)
    looking.cancel()
    await asyncio.sleep(0)
    queue.put("late")  # while the poll still waits
    with pytest.raises(asyncio.CancelledError):
        await looking
    (message,) = queue.messages
    assert message.receive_count == 1
    assert await visible(queue) == 1


async def test_with_patience_letters_held_by_others_are_awaited_only_until_they_appear() -> None:
    queue = queue_of(5)
    await queue.receive(5, wait=timedelta(0), visibility=timedelta(seconds=300))
    async with holding(queue) as held:
        assert await taken(held) == []
        assert held.elsewhere == 5
        assert asyncio.get_running_loop().time() < 2
        assert len(await taken(held, patience=timedelta(minutes=15))) == 5
        assert asyncio.get_running_loop().time() == pytest.approx(303, abs=5)
        assert held.elsewhere == 0


@pytest.mark.parametrize("are_known", [False, True])
async def test_a_look_ends_although_letters_keep_coming(*, are_known: bool) -> None:
    """While a service fails on every message, or another operator's replay dies."""
    queue = queue_of(25)
    if are_known:
        async with holding(queue) as held:
            await taken(held)

    async def come() -> None:
        while True:
            await asyncio.sleep(0.2)
            queue.put("late")

    coming = asyncio.create_task(come())
    async with asyncio.timeout(30), holding(queue) as held:
        found = [letter.delivery.body for letter in await taken(held)]
    coming.cancel()
    assert {str(number) for number in range(25)} <= set(found)


async def test_a_queue_is_polled_until_its_count_says_that_it_is_empty() -> None:
    """SQS asks only some of its servers: an empty answer is not the end while the count shows more."""
    queue = queue_of(3)
    receive, empty = queue.receive, [True, True, False]

    async def forgetful(limit: int, *, wait: timedelta, visibility: timedelta) -> list[Delivery]:
        return [] if empty and empty.pop(0) else await receive(limit, wait=wait, visibility=visibility)

    queue.receive = forgetful  # type: ignore[method-assign]
    async with holding(queue) as held:
        assert len(await taken(held)) == 3


@pytest.mark.parametrize(
    ("count", "hidden"), [(3, VISIBILITY_MINIMUM), (2000, timedelta(seconds=120)), (99_999, VISIBILITY_MAXIMUM)]
)
async def test_many_letters_are_hidden_for_longer_because_renewals_take_longer(count: int, hidden: timedelta) -> None:
    queue = queue_of(1)
    depth = queue.depth

    async def many():  # type: ignore[no-untyped-def]  # noqa: ANN202
        return type(await depth())(visible=count, in_flight=0, delayed=0)

    queue.depth = many  # type: ignore[method-assign]
    async with holding(queue) as held:
        async for _ in held.letters():
            break
        assert queue.messages[0].visible_at == pytest.approx(hidden.total_seconds())


async def test_an_operator_without_the_visibility_permission_gets_the_error() -> None:
    queue = queue_of(1)
    queue.faults.add("set_visibility", PermanentError("sqs refused ChangeMessageVisibilityBatch"))
    with pytest.raises(PermanentError, match="refused"):
        async with holding(queue) as held:
            await taken(held)


async def test_a_failed_hand_back_costs_only_time() -> None:
    queue = queue_of(1)
    queue.faults.add("set_visibility", connection_reset())
    async with holding(queue) as held:
        await taken(held)
    await asyncio.sleep(61)
    assert await visible(queue) == 1
