from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from contracts.failure import FAILURE_ATTRIBUTE
from contracts.messages import Message
from shared.consumer.attempt import ATTEMPTS_ATTRIBUTE
from shared.consumer.consumer import CLEAN_UP, FLUSH, SHOW_AGAIN
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.outcome import Done, Outcome
from shared.settings import STOP_MARGIN
from shared.testing import EPOCH, AnswerLost, Fault, Hangs, connection_reset, throttled
from tests.unit.shared.consumer.scene import Scene, Script, body, message, now, until

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


async def test_unfinished_messages_are_handed_over_when_the_drain_budget_ends() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=10))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        stopped_at = now()
    assert now() - stopped_at == pytest.approx(80, abs=1)
    assert handler.cancelled == 1
    assert (await scene.queue.depth()).visible == 1
    assert len(scene.queue.messages) == 1


async def test_the_messages_of_a_poll_in_flight_are_handed_over() -> None:
    scene, handler = Scene(), Script()
    async with scene.consuming(handler) as consumer:
        await until(lambda: now() > 1)
        consumer.stop()
        await scene.queue.send(body())
    assert handler.calls == []
    assert [message.attributes for message in scene.queue.messages] == [{ATTEMPTS_ATTRIBUTE: "0"}]
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


async def test_a_poll_that_hangs_is_not_waited_for_beyond_the_drain_budget() -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=1))
    scene.queue.faults.add("receive", Hangs(), at=0.1)
    await scene.queue.send(body())
    async with scene.consuming(handler, drain_budget=timedelta(seconds=5)):
        await until(lambda: now() > 1)
    assert now() < 8
    assert (await scene.queue.depth()).visible == 1


async def test_a_consumer_that_waits_for_a_dependency_hands_its_messages_over_at_once() -> None:
    scene, handler = Scene(probes={"warehouse": away}), Script([DependencyDownError("warehouse", "no")] * 9)
    await scene.queue.send(body(1))
    await scene.queue.send(body(2))
    async with scene.consuming(handler):
        await until(lambda: now() > 100)
    assert now() < 102
    assert (await scene.queue.depth()).visible == 2
    assert [message.attributes[ATTEMPTS_ATTRIBUTE] for message in scene.queue.messages] == ["0", "0"]


async def test_a_message_that_meets_an_outage_while_the_consumer_stops_is_handed_over() -> None:
    scene = Scene(probes={"warehouse": away})
    handler = Script([DependencyDownError("warehouse", "no")], takes=timedelta(seconds=60))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
    assert now() < 62
    assert (await scene.queue.depth()).visible == 1


async def test_pending_deletes_are_sent_before_the_consumer_stops() -> None:
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


async def test_a_message_that_waits_during_a_drain_is_handed_over_only_at_the_stop() -> None:
    """One message waits for a dependency while the other runs: it is handed over when we stop, not when its lease ends."""
    scene = Scene(probes={"warehouse": away})

    async def handle(received: Message) -> Outcome:
        if received == message(1):
            raise DependencyDownError("warehouse", "no")
        await asyncio.sleep(75)
        return Done()

    await scene.queue.send(body(1))
    await scene.queue.send(body(2))
    async with scene.consuming(handle) as consumer:
        await until(lambda: now() > 1)
        consumer.stop()
        await until(lambda: now() > 25)
        assert (await scene.queue.depth()).visible == 1
    assert scene.queue.bodies == [body(1)]
    assert scene.queue.sent[0].receive_count == 1


async def stop_while_working(scene: Scene) -> None:
    handler = Script(takes=timedelta(minutes=10))
    await scene.consume_until(handler, lambda: bool(handler.calls))


async def test_stops_never_cost_an_attempt() -> None:
    scene = Scene()
    await scene.queue.send(body(), attributes={"origin": "x"})
    await scene.consume_until(Script([TransientError("no luck")] * 2), lambda: scene.queue.messages[0].receive_count == 2)
    for _ in range(12):
        await stop_while_working(scene)
    (copy,) = scene.queue.messages
    assert (copy.attributes[ATTEMPTS_ATTRIBUTE], copy.attributes["origin"]) == ("2", "x")
    await scene.consume_all(failing := Script([TransientError("no luck")] * 9))
    assert len(failing.calls) == 3
    assert scene.failure().attempts == 5
    assert scene.failure().first_failed_at - EPOCH < timedelta(seconds=1)
    assert set(scene.dead_letters.messages[0].attributes) == {"origin", FAILURE_ATTRIBUTE}


@pytest.mark.parametrize("fault", [throttled(), connection_reset(), Hangs(), PermanentError("larger than SQS takes")])
async def test_a_message_is_made_visible_when_its_copy_cannot_be_sent(fault: Fault) -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=1))
    await scene.queue.send(body())
    scene.queue.faults.add("send", fault)
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        stopped_at = now()
    assert now() - stopped_at < 95
    assert (len(scene.queue.sent), len(scene.queue.messages)) == (1, 1)
    assert (await scene.queue.depth()).visible == 1


async def test_a_hanging_copy_is_abandoned_in_time_to_make_the_message_visible() -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=1))

    async def forever(*_arguments: object, **_named: object) -> str:
        await asyncio.sleep(1000)
        raise AssertionError

    await scene.queue.send(body())
    scene.queue.send = forever  # type: ignore[method-assign]
    await scene.consume_until(handler, lambda: len(handler.calls) == 1)
    assert now() < 81 + CLEAN_UP.total_seconds()
    assert (await scene.queue.depth()).visible == 1


async def test_a_copy_whose_answer_is_lost_leaves_the_message_and_its_copy() -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=1))
    await scene.queue.send(body())
    scene.queue.faults.add("send", AnswerLost())
    await scene.consume_until(handler, lambda: len(handler.calls) == 1)
    assert scene.queue.bodies == [body(), body()]


async def test_without_copy_or_visibility_change_the_message_returns_by_its_timeout() -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=1))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        scene.queue.faults.during(now() + 75, now() + 200, connection_reset(), "send", "set_visibility")
    assert len(scene.queue.messages) == 1
    assert scene.queue.messages[0].visible_at <= now() + 60
    assert scene.dead_letters.messages == []


async def test_a_message_lost_while_it_is_handed_over_is_not_deleted() -> None:
    scene, handler = Scene(), Script(takes=timedelta(hours=1))
    await scene.queue.send(body())
    scene.queue.faults.add("send", AnswerLost())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        scene.queue.faults.during(now(), now() + 200, connection_reset(), "set_visibility")
    assert scene.queue.messages[0] is scene.queue.sent[0]


async def test_the_end_of_the_budget_does_not_interrupt_dead_lettering() -> None:
    scene, handler = Scene(), Script([PermanentError("never")], takes=timedelta(seconds=79))
    send = scene.dead_letters.send

    async def slowly(text: str, **named: Any) -> str:
        await asyncio.sleep(3)
        return await send(text, **named)

    scene.dead_letters.send = slowly  # type: ignore[assignment,method-assign]
    await scene.queue.send(body())
    await scene.consume_until(handler, lambda: len(handler.calls) == 1)
    assert scene.queue.messages == []
    assert scene.dead_letters.bodies == [body()]


def test_a_drain_fits_between_its_budget_and_the_end_of_the_process() -> None:
    assert CLEAN_UP + FLUSH <= STOP_MARGIN
    assert SHOW_AGAIN < CLEAN_UP
