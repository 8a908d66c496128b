from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from contracts.messages import Message
from shared.consumer.lease import Leases
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.outcome import Defer, Done, Outcome
from shared.queue import Failures
from shared.testing import FakeQueue, Partial, connection_reset, throttled
from tests.unit.shared.consumer.scene import Scene, Script, body, message, now, until

pytestmark = pytest.mark.virtual_clock


def counted(queue: FakeQueue, method: str) -> list[int]:
    """The number of entries of each request, appended as requests are made."""
    requests: list[int] = []
    real = getattr(queue, method)

    async def ask(entries: Collection[str]) -> Failures:
        requests.append(len(entries))
        failures: Failures = await real(entries)
        return failures

    setattr(queue, method, ask)
    return requests


async def test_a_message_that_takes_an_hour_is_handled_once() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=59))
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert len(handler.calls) == 1
    assert scene.queue.sent[0].receive_count == 1


async def test_a_lost_lease_stops_the_handler_and_the_message_is_handled_again() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=10))
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        await scene.show_again()
        await until(lambda: handler.cancelled == 1)
        assert now() < 36  # noticed by the first heartbeat, long before its own clock would show it
        await until(lambda: not scene.queue.messages)
    assert len(handler.calls) == 2


async def test_a_failed_heartbeat_is_repeated_before_the_lease_ends() -> None:
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


async def test_messages_are_deleted_ten_per_request() -> None:
    scene, handler = Scene(), Script()
    requests = counted(scene.queue, "delete")
    for number in range(30):
        await scene.queue.send(body(number))
    await scene.consume_all(handler, slots=30)
    assert requests == [10, 10, 10]


async def test_messages_finished_within_50_ms_are_deleted_in_one_request() -> None:
    scene, handler = Scene(), Script()
    requests = counted(scene.queue, "delete")

    async def one_after_the_other(received: Message) -> Outcome:
        await asyncio.sleep(0.02 * int(received == message(1)))
        return await handler(received)

    await scene.queue.send(body(0))
    await scene.queue.send(body(1))
    await scene.consume_all(one_after_the_other)
    assert requests == [2]


async def test_a_delete_that_fails_is_repeated_and_its_lease_renewed_meanwhile() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("delete", *[TransientError("throttled")] * 20)
    await scene.queue.send(body())
    await scene.consume_all(handler)
    assert now() > 60
    assert (len(handler.calls), scene.queue.sent[0].receive_count) == (1, 1)


async def test_a_finished_message_that_lost_its_lease_is_left_to_its_redelivery() -> None:
    scene, handler = Scene(), Script()
    asked: list[tuple[float, str]] = []
    delete = scene.queue.delete

    async def noted(receipts: list[str]) -> Failures:
        asked.extend((now(), receipt) for receipt in receipts)
        return await delete(receipts)

    scene.queue.delete = noted  # type: ignore[assignment,method-assign]
    scene.queue.faults.during(0.01, 90, connection_reset(), "delete", "set_visibility")
    await scene.queue.send(body())
    await scene.consume_all(handler)
    first, last = asked[0][1], asked[-1][1]
    assert first != last
    assert max(time for time, receipt in asked if receipt == first) < 60
    assert len(handler.calls) == 1


async def test_a_redelivery_of_a_finished_message_is_deleted_without_being_handled() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("delete", *[TransientError("throttled")] * 5)
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: len(handler.calls) == 1)
        await scene.show_again()
        await until(lambda: not scene.queue.messages)
    assert len(handler.calls) == 1
    assert scene.queue.sent[0].receive_count == 2


async def test_only_the_failed_deletes_of_a_batch_are_repeated() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("delete", Partial())
    for number in range(5):
        await scene.queue.send(body(number))
    async with scene.consuming(handler, slots=5):
        await until(lambda: not scene.queue.messages, within=timedelta(seconds=3))
    assert len(handler.calls) == 5


async def test_a_message_that_cannot_be_deleted_does_not_delay_the_others() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.during(0, 600, Partial(), "delete")  # the first of a batch fails each time
    await scene.queue.send(body(1))
    async with scene.consuming(handler):
        await until(lambda: now() > 300)
        await scene.queue.send(body(2))
        await until(lambda: len(scene.queue.messages) == 1, within=timedelta(seconds=2))
        await until(lambda: not scene.queue.messages)
    assert [message.receive_count for message in scene.queue.sent] == [1, 1]


async def test_a_successful_delete_resets_the_backoff_of_deletes() -> None:
    scene, handler = Scene(), Script()
    scene.queue.faults.add("delete", *[throttled()] * 10)
    waits: list[float] = []
    async with scene.consuming(handler):
        for number in range(10):
            await scene.queue.send(body(number))
            await until(lambda: not scene.queue.messages)
            scene.queue.faults.add("delete", throttled())
            began_at = now()
            await scene.queue.send(body(100 + number))
            await until(lambda: not scene.queue.messages)
            waits.append(now() - began_at)
    assert max(waits) < 2


async def test_an_expired_receipt_is_not_tried_again() -> None:
    scene, handler = Scene(), Script(takes=timedelta(seconds=1))
    requests = counted(scene.queue, "delete")
    await scene.queue.send(body())
    async with scene.consuming(handler):
        await until(lambda: bool(handler.calls))
        scene.queue.invalidate(scene.queue.messages[0])
        await until(lambda: not scene.queue.messages)
    assert (len(handler.calls), len(requests)) == (1, 2)


async def test_a_renewed_lease_never_outlasts_the_visibility_that_sqs_counts() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=2))
    set_visibility = scene.queue.set_visibility

    async def slowly(changes: Mapping[str, timedelta]) -> Failures:
        failures = await set_visibility(changes)
        await asyncio.sleep(4)
        return failures

    scene.queue.set_visibility = slowly  # type: ignore[method-assign]
    await scene.queue.send(body())
    async with scene.consuming(handler) as consumer:
        await until(lambda: now() > 36)
        (lease,) = consumer._running.values()
        assert 89 < lease.expires_at <= scene.queue.messages[0].visible_at


async def test_a_message_whose_lease_is_lost_is_not_made_visible() -> None:
    queue = FakeQueue()
    leases = Leases(queue, timedelta(seconds=60))
    queue.put("somebody's")
    (delivery,) = await queue.receive(1, wait=timedelta(0), visibility=timedelta(seconds=60))
    lease = leases.take(delivery)
    lease.is_lost = True
    await leases.show_again(lease)
    assert queue.messages[0].visible_at == 60


async def test_leases_are_renewed_at_half_their_life_and_in_one_request() -> None:
    scene, handler = Scene(), Script(takes=timedelta(minutes=10))
    requests = counted(scene.queue, "set_visibility")
    for number in range(3):
        await scene.queue.send(body(number))
    await scene.consume_all(handler, slots=3)
    assert requests == [3] * 20


@pytest.mark.parametrize("step", [TransientError("x"), PermanentError("x"), Defer(timedelta(0), "x"), Done()])
async def test_the_outcome_of_a_handler_that_ignores_its_lost_lease_is_discarded(step: Outcome | Exception) -> None:
    scene, handler = Scene(), Script([step], takes=timedelta(seconds=1))
    await scene.queue.send(body())
    async with scene.consuming(handler) as consumer:
        await until(lambda: bool(handler.calls))
        (lease,) = consumer._running.values()
        lease.is_lost = True
        await until(lambda: not handler.steps)
    assert scene.queue.messages == scene.queue.sent
    assert len(scene.queue.sent) == 1
    assert scene.queue.messages[0].visible_at > now() + 30
    assert scene.dead_letters.messages == []
