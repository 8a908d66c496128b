from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from shared.errors import DependencyDownError, TransientError
from tests.unit.consumer_scene import Scene, Script, body, now, until

pytestmark = pytest.mark.virtual_clock


async def test_a_message_that_takes_an_hour_is_worked_on_once() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=59))
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert len(handler.calls) == 1
    assert scene.queue.sent[0].receive_count == 1


async def test_a_lost_lease_stops_the_handler_and_its_message_is_worked_on_again() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=10))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        await scene.show_again()
        await until(lambda: handler.cancelled == 1)
        await until(lambda: not scene.queue.messages)
    assert len(handler.calls) == 2


async def test_a_handler_that_returns_in_spite_of_a_lost_lease_does_not_delete_its_message() -> None:
    scene, handler = Scene(), Script([TransientError("cleaning up failed")], takes=timedelta(seconds=1))
    await scene.queue.send(body())
    async with scene.consuming(handler) as consumer:
        await until(lambda: len(handler.calls) == 1)
        (lease,) = consumer._running.values()
        lease.is_lost = True
        await until(lambda: not handler.steps)
    assert scene.queue.messages[0].visible_at == 60


async def test_a_heartbeat_that_fails_is_repeated_before_the_lease_ends() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=5))
    scene.queue.faults.add("set_visibility", *[DependencyDownError("sqs", "away")] * 4)
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert (len(handler.calls), handler.cancelled) == (1, 0)


async def test_a_lease_that_cannot_be_renewed_until_its_end_is_lost() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=5))
    scene.queue.faults.add("set_visibility", *[DependencyDownError("sqs", "away")] * 7)
    await scene.queue.send(body())
    with capture_logs() as logs:
        await scene.consume_all(handler)
    assert (len(handler.calls), handler.cancelled) == (2, 1)
    assert "lease_lost" in {entry["event"] for entry in logs}


async def test_messages_are_deleted_ten_in_a_request() -> None:
    scene, handler = Scene(), Script()
    requests: list[int] = []
    delete = scene.queue.delete

    async def counted(receipts: list[str]) -> object:
        requests.append(len(receipts))
        return await delete(receipts)

    scene.queue.delete = counted  # type: ignore[assignment,method-assign]
    for number in range(30):
        await scene.queue.send(body(number))
    await scene.consume_all(handler, slots=30)
    assert requests == [10, 10, 10]


async def test_a_delete_that_fails_is_repeated_and_its_lease_renewed_meanwhile() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("delete", *[TransientError("throttled")] * 20)
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert now() > 60
    assert (len(handler.calls), scene.queue.sent[0].receive_count) == (1, 1)


async def test_a_redelivery_of_what_is_done_and_not_yet_deleted_is_deleted_without_being_worked_on() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("delete", *[TransientError("throttled")] * 5)
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        await scene.show_again()
        await until(lambda: not scene.queue.messages)
    assert len(handler.calls) == 1
    assert scene.queue.sent[0].receive_count == 2
