from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contracts.messages import Message
from shared.errors import DependencyDownError, TransientError
from shared.outcome import Done, Outcome
from tests.unit.consumer_scene import Scene, Script, body, now, until

pytestmark = pytest.mark.virtual_clock


async def test_a_stopped_consumer_finishes_what_it_holds_and_receives_no_more() -> None:
    scene, handler = Scene(), Script(takes=timedelta(seconds=70))
    for number in range(3):
        await scene.queue.send(body(number))
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 2)
    assert (len(handler.calls), handler.cancelled) == (2, 0)
    assert (await scene.queue.depth()).visible == 1
    assert len(scene.queue.messages) == 1


async def test_what_is_not_done_within_the_drain_budget_is_handed_back_at_once() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=10))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        stopped_at = now()
    assert now() - stopped_at == pytest.approx(80, abs=1)
    assert handler.cancelled == 1
    assert (await scene.queue.depth()).visible == 1


async def test_a_poll_in_flight_is_waited_for_and_what_it_brings_is_handed_back() -> None:
    scene, handler = Scene(), Script()
    async with scene.consuming(handler) as consumer:
        await until(lambda: now() > 1)
        consumer.stop()
        await scene.queue.send(body())
    assert handler.calls == []
    assert scene.queue.messages[0].receive_count == 1
    assert (await scene.queue.depth()).visible == 1


async def test_an_idle_consumer_stops_when_its_poll_ends() -> None:
    scene = Scene()
    async with scene.consuming(Script(), poll_wait=timedelta(seconds=2)):
        await until(lambda: now() > 1)
    assert now() <= 2.5


async def test_a_consumer_that_waits_to_receive_again_stops_at_once() -> None:
    scene = Scene()
    scene.queue.faults.add("receive", *[DependencyDownError("sqs", "away")] * 50)
    async with scene.consuming(Script()):
        await until(lambda: now() > 100)
    assert now() < 102


async def away() -> None:
    raise DependencyDownError("warehouse", "no")


async def test_a_consumer_that_waits_for_a_dependency_hands_its_messages_back_at_once() -> None:
    scene, handler = Scene(probes={"warehouse": away}), Script([DependencyDownError("warehouse", "no")] * 9)
    await scene.queue.send(body(1))
    await scene.queue.send(body(2))
    async with scene.consuming(handler):
        await until(lambda: now() > 100)
    assert now() < 102
    assert (await scene.queue.depth()).visible == 2
    assert [message.receive_count for message in scene.queue.messages] == [1, 1]


async def test_a_message_that_meets_an_outage_while_the_consumer_stops_is_handed_back() -> None:
    scene = Scene(probes={"warehouse": away})
    handler = Script([DependencyDownError("warehouse", "no")], takes=timedelta(seconds=60))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
    assert now() < 62
    assert (await scene.queue.depth()).visible == 1


async def test_what_waits_to_be_deleted_is_deleted_before_the_end() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("delete", TransientError("throttled"))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
    assert scene.queue.messages == []


async def test_a_handler_that_finishes_in_spite_of_its_cancellation_is_done() -> None:
    async def stubborn(_message: Message) -> Outcome:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # its commit was under way
        return Done()

    scene = Scene()
    await scene.queue.send(body())
    async with scene.consuming(stubborn):
        await until(lambda: bool(scene.queue.messages[0].receive_count))
    assert scene.queue.messages == []


async def test_a_failed_handing_back_leaves_the_message_to_its_visibility_timeout() -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=1))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        scene.queue.faults.add("set_visibility", *[DependencyDownError("sqs", "away")] * 50)
    assert len(scene.queue.messages) == 1
    assert scene.dead_letters.messages == []
