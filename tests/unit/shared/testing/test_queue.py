"""The faults of the fake queue. The conformance suite tests the behaviour that it shares with SQS."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest

from contracts.messages import MESSAGE_BYTES_MAXIMUM
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import Delivery, Failures
from shared.testing import AnswerLost, FakeQueue, Hangs, Partial, connection_reset, throttled
from tests.unit.shared.consumer.scene import now

pytestmark = pytest.mark.virtual_clock
MINUTE = timedelta(minutes=1)
AT_ONCE = timedelta(0)


async def received(queue: FakeQueue) -> Delivery:
    (delivery,) = await queue.receive(1, wait=AT_ONCE, visibility=MINUTE)
    return delivery


async def test_a_throttled_or_reset_request_does_nothing_once() -> None:
    queue = FakeQueue()
    queue.faults.add("send", throttled(), connection_reset())
    with pytest.raises(TransientError):
        await queue.send("x")
    with pytest.raises(DependencyDownError):
        await queue.send("x")
    assert queue.messages == []
    await queue.send("x")
    assert queue.bodies == ["x"]


async def test_a_request_whose_answer_is_lost_has_its_effect() -> None:
    queue = FakeQueue()
    queue.faults.add("send", AnswerLost())
    with pytest.raises(DependencyDownError):
        await queue.send("x")
    delivery = await received(queue)
    queue.faults.add("delete", AnswerLost(is_slow=True))
    with pytest.raises(DependencyDownError):
        await queue.delete([delivery.receipt_handle])
    assert (queue.messages, now()) == ([], 5)


async def test_a_poll_whose_answer_is_lost_hides_what_it_would_have_brought() -> None:
    queue = FakeQueue()
    queue.put("x")
    queue.faults.add("receive", AnswerLost())
    with pytest.raises(DependencyDownError):
        await received(queue)
    assert await queue.receive(1, wait=AT_ONCE, visibility=MINUTE) == []
    (delivery,) = await queue.receive(1, wait=2 * MINUTE, visibility=MINUTE)
    assert delivery.receive_count == 2
    assert now() == pytest.approx(60)


async def test_a_poll_that_hangs_ends_ten_seconds_late_and_takes_nothing() -> None:
    queue = FakeQueue()
    queue.put("x")
    queue.faults.add("receive", Hangs())
    with pytest.raises(DependencyDownError):
        await queue.receive(1, wait=MINUTE, visibility=MINUTE)
    assert now() == 70
    assert (await received(queue)).receive_count == 1


async def test_every_other_entry_of_a_partial_batch_fails() -> None:
    queue = FakeQueue()
    for text in "abc":
        queue.put(text)
    receipts = [delivery.receipt_handle for delivery in await queue.receive(10, wait=AT_ONCE, visibility=MINUTE)]
    queue.faults.add("delete", Partial())
    assert await queue.delete(receipts) == Failures(transient=frozenset({receipts[0], receipts[2]}))
    assert queue.bodies == ["a", "c"]
    queue.faults.add("set_visibility", Partial())
    failures = await queue.set_visibility(dict.fromkeys(receipts, AT_ONCE))
    assert failures == Failures(transient=frozenset({receipts[0], receipts[2]}), gone=frozenset({receipts[1]}))


async def test_a_message_that_is_no_longer_in_flight_cannot_be_renewed() -> None:
    queue = FakeQueue()
    message = queue.put("x")
    delivery = await received(queue)
    queue.expire(message)
    assert (await queue.set_visibility({delivery.receipt_handle: MINUTE})).gone == {delivery.receipt_handle}
    assert (await received(queue)).receive_count == 2


async def test_an_invalid_receipt_fails_and_its_message_returns_after_its_timeout() -> None:
    queue = FakeQueue()
    message = queue.put("x")
    receipt = (await received(queue)).receipt_handle
    queue.invalidate(message)
    assert (await queue.set_visibility({receipt: AT_ONCE})).gone == {receipt}
    assert (await queue.delete([receipt])).gone == {receipt}
    assert (await queue.depth()).in_flight == 1
    assert len(await queue.receive(1, wait=2 * MINUTE, visibility=MINUTE)) == 1


async def test_no_message_is_hidden_for_more_than_twelve_hours_in_all() -> None:
    queue = FakeQueue()
    queue.put("x")
    receipt = (await received(queue)).receipt_handle
    assert not (await queue.set_visibility({receipt: timedelta(hours=12)})).gone
    assert (await queue.set_visibility({receipt: timedelta(hours=12, seconds=1)})).gone == {receipt}


async def test_a_duplicate_has_the_same_id_and_a_receipt_of_its_own() -> None:
    queue = FakeQueue()
    message = queue.put("x")
    first = await received(queue)
    queue.duplicate(message)
    second = await received(queue)
    assert (second.message_id, second.receive_count) == (first.message_id, 2)
    await queue.delete([first.receipt_handle])
    assert not (await queue.set_visibility({second.receipt_handle: MINUTE})).gone
    await queue.delete([second.receipt_handle])
    queue.duplicate(message)  # its deletion was missed
    assert (await received(queue)).message_id == first.message_id


async def test_faults_happen_as_scheduled_and_stop_when_cleared() -> None:
    queue = FakeQueue()
    queue.faults.add("depth", throttled(), at=60)
    queue.faults.during(100, 200, connection_reset(), "send", "depth")
    await queue.depth()
    await queue.receive(1, wait=MINUTE, visibility=MINUTE)
    with pytest.raises(TransientError):
        await queue.depth()
    await queue.receive(1, wait=MINUTE, visibility=MINUTE)
    for _ in range(3):
        with pytest.raises(DependencyDownError):
            await queue.send("x")
    queue.faults.clear()
    await queue.send("x")


async def test_a_random_order_depends_only_on_its_seed() -> None:
    async def order(seed: int) -> list[str]:
        queue = FakeQueue(order=Random(seed))  # noqa: S311 - the point is that it repeats
        for text in "abcdefgh":
            queue.put(text)
        return [delivery.body for delivery in await queue.receive(10, wait=AT_ONCE, visibility=MINUTE)]

    assert await order(1) == await order(1) != await order(2)
    assert sorted(await order(1)) == list("abcdefgh")


async def test_a_message_that_sqs_would_reject_is_refused_before_it_is_sent() -> None:
    queue = FakeQueue("loading")
    await queue.send("é" * (MESSAGE_BYTES_MAXIMUM // 2))
    with pytest.raises(PermanentError, match="1048579 bytes, SQS takes 1048576; put the data into an object"):
        await queue.send("é" * (MESSAGE_BYTES_MAXIMUM // 2) + "xyz")
    with pytest.raises(PermanentError, match="delayed by 0 to 15 minutes"):
        await queue.send("x", delay=timedelta(minutes=16))
    assert len(queue.messages) == 1
