from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import TypeVar

import pytest

from contracts.messages import MESSAGE_BYTES_MAXIMUM
from shared.errors import DependencyDownError, PermanentError
from shared.queue import DELAY_MAXIMUM, Delivery, Depth, Outgoing, Queue
from tests.conformance.conftest import MAX_RECEIVE_COUNT, Queues
from tests.fixtures.limits import HANG, HANG_S

AT_ONCE = timedelta(0)
SHORT = timedelta(seconds=1)
LONG = timedelta(seconds=60)

AnswerT = TypeVar("AnswerT")


async def answer_that(ask: Callable[[], Awaitable[AnswerT]], holds: Callable[[AnswerT], bool]) -> AnswerT:
    """The first answer that satisfies the condition."""
    async with asyncio.timeout(HANG_S):
        while not holds(answer := await ask()):  # noqa: ASYNC110 - a server has no event to wait for
            await asyncio.sleep(0.05)
    return answer


async def receive_one(queue: Queue, *, visibility: timedelta = LONG) -> Delivery:
    (delivery,) = await answer_that(lambda: queue.receive(1, wait=SHORT, visibility=visibility), bool)
    return delivery


async def is_empty(queue: Queue) -> bool:
    return await queue.depth() == Depth(visible=0, in_flight=0, delayed=0)


async def test_a_sent_message_is_received(queues: Queues) -> None:
    body = '{"text": "ﬁancée 🚀 \\u0000"}'
    message_id = await queues.queue.send(body, attributes={"starlift.failure": '{"reason": "é"}', "other": "x"})
    delivery = await receive_one(queues.queue)
    assert delivery.message_id == message_id
    assert delivery.body == body
    assert delivery.attributes == {"starlift.failure": '{"reason": "é"}', "other": "x"}
    assert delivery.receive_count == 1
    assert timedelta(0) <= delivery.first_received_at - delivery.sent_at < HANG
    assert delivery.sent_at.utcoffset() == timedelta(0)


async def test_no_more_messages_are_received_than_requested(queues: Queues) -> None:
    for number in range(5):
        await queues.queue.send(str(number))
    assert len(await queues.queue.receive(3, wait=SHORT, visibility=LONG)) <= 3


async def test_at_most_ten_messages_are_received_per_request(queues: Queues) -> None:
    for number in range(12):
        await queues.queue.send(str(number))
    assert 1 <= len(await queues.queue.receive(30, wait=SHORT, visibility=LONG)) <= 10


async def test_a_poll_of_an_empty_queue_waits_and_returns_nothing(queues: Queues) -> None:
    started_at = asyncio.get_running_loop().time()
    assert await queues.queue.receive(10, wait=SHORT, visibility=LONG) == []
    assert asyncio.get_running_loop().time() - started_at >= 0.9


async def test_a_poll_ends_when_a_message_arrives(queues: Queues) -> None:
    wait = timedelta(seconds=20)  # the longest of SQS
    poll = asyncio.create_task(queues.queue.receive(1, wait=wait, visibility=LONG))
    await asyncio.sleep(0.1)
    await queues.queue.send("here")
    started_at = asyncio.get_running_loop().time()
    assert [delivery.body for delivery in await poll] == ["here"]
    assert asyncio.get_running_loop().time() - started_at < wait.total_seconds()


async def test_a_message_that_is_not_deleted_returns_after_its_visibility_timeout(queues: Queues) -> None:
    await queues.queue.send("again")
    first = await receive_one(queues.queue, visibility=SHORT)
    second = await receive_one(queues.queue)
    assert await queues.queue.receive(1, wait=AT_ONCE, visibility=LONG) == []
    assert (second.message_id, second.receive_count) == (first.message_id, 2)
    assert second.receipt_handle != first.receipt_handle
    assert second.first_received_at == first.first_received_at


async def test_visibility_zero_hands_a_message_back(queues: Queues) -> None:
    await queues.queue.send("back")
    delivery = await receive_one(queues.queue)
    failures = await queues.queue.set_visibility({delivery.receipt_handle: AT_ONCE})
    assert (failures.gone, failures.transient) == (frozenset(), frozenset())
    assert (await receive_one(queues.queue)).receive_count == 2


async def test_visibility_can_be_renewed(queues: Queues) -> None:
    await queues.queue.send("mine")
    clock, hidden = asyncio.get_running_loop().time, timedelta(seconds=2)
    took = hidden.total_seconds()
    while took >= hidden.total_seconds():  # otherwise it may have been renewed when no longer in flight
        began = clock()
        delivery = await receive_one(queues.queue, visibility=hidden)
        await queues.queue.set_visibility({delivery.receipt_handle: LONG})
        took = clock() - began
        if took >= hidden.total_seconds():
            await queues.queue.set_visibility({delivery.receipt_handle: AT_ONCE})
    assert await queues.queue.receive(1, wait=timedelta(seconds=3), visibility=LONG) == []


async def test_messages_are_renewed_and_deleted_ten_per_request(queues: Queues) -> None:
    for number in range(23):
        await queues.queue.send(str(number))
    receipts: list[str] = []
    while len(receipts) < 23:
        receipts += [found.receipt_handle for found in await queues.queue.receive(10, wait=SHORT, visibility=LONG)]
    assert not (await queues.queue.set_visibility(dict.fromkeys(receipts, LONG))).gone
    assert not (await queues.queue.delete(receipts)).gone
    await answer_that(lambda: is_empty(queues.queue), bool)


async def test_deleting_may_be_repeated(queues: Queues) -> None:
    await queues.queue.send("once")
    delivery = await receive_one(queues.queue)
    await queues.queue.delete([delivery.receipt_handle])
    failures = await queues.queue.delete([delivery.receipt_handle])
    assert not failures.transient
    await answer_that(lambda: is_empty(queues.queue), bool)


async def test_an_unknown_receipt_counts_as_gone(queues: Queues) -> None:
    await queues.queue.send("somebody's")
    assert (await queues.queue.set_visibility({"nobody's": LONG})).gone == {"nobody's"}
    assert not (await queues.queue.delete(["nobody's"])).transient


async def test_no_request_is_made_without_receipts(queues: Queues) -> None:
    assert (await queues.queue.delete([])).gone == frozenset()
    assert (await queues.queue.set_visibility({})).gone == frozenset()


async def test_a_message_that_is_no_longer_in_flight_cannot_be_renewed(queues: Queues, implementation: str) -> None:
    if implementation != "fake":
        pytest.skip("LocalStack and moto renew a message that is not in flight; AWS answers MessageNotInflight")
    await queues.queue.send("lost")
    delivery = await receive_one(queues.queue)
    await queues.queue.set_visibility({delivery.receipt_handle: AT_ONCE})
    failures = await queues.queue.set_visibility({delivery.receipt_handle: LONG})
    assert failures.gone == {delivery.receipt_handle}


async def test_a_stale_receipt_deletes_nothing(queues: Queues, implementation: str) -> None:
    if implementation != "fake":
        pytest.skip("LocalStack and moto delete by a stale receipt; AWS need not")
    await queues.queue.send("newer owner")
    stale = await receive_one(queues.queue)
    await queues.queue.set_visibility({stale.receipt_handle: AT_ONCE})
    current = await receive_one(queues.queue)
    await queues.queue.delete([stale.receipt_handle])
    assert not (await queues.queue.set_visibility({current.receipt_handle: LONG})).gone


async def test_a_delayed_message_becomes_visible_later(queues: Queues) -> None:
    await queues.queue.send("much later", delay=DELAY_MAXIMUM)
    assert await queues.queue.receive(1, wait=AT_ONCE, visibility=LONG) == []
    assert await queues.queue.depth() == Depth(visible=0, in_flight=0, delayed=1)
    await queues.queue.send("later", delay=SHORT)
    assert (await receive_one(queues.queue)).body == "later"


async def test_depth_counts_waiting_delayed_and_in_flight_messages(queues: Queues) -> None:
    for number in range(3):
        await queues.queue.send(str(number))
    await receive_one(queues.queue)
    await answer_that(queues.queue.depth, lambda depth: depth == Depth(visible=2, in_flight=1, delayed=0))


async def test_a_message_received_too_often_is_dead_lettered_unchanged(queues: Queues) -> None:
    await queues.queue.send("poison", attributes={"origin": "x"})
    for _ in range(MAX_RECEIVE_COUNT):
        delivery = await receive_one(queues.queue)
        await queues.queue.set_visibility({delivery.receipt_handle: AT_ONCE})
    assert await queues.queue.receive(1, wait=SHORT, visibility=LONG) == []
    letter = await receive_one(queues.dead_letters)
    assert (letter.body, letter.attributes) == ("poison", {"origin": "x"})


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's advice; our messages have 2 KiB
async def test_the_largest_message_is_sent_and_a_larger_one_is_refused_by_name(queues: Queues) -> None:
    await queues.queue.send("x" * MESSAGE_BYTES_MAXIMUM)
    assert len((await receive_one(queues.queue)).body) == MESSAGE_BYTES_MAXIMUM
    with pytest.raises(PermanentError, match="put the data into an object"):
        await queues.queue.send("x" * (MESSAGE_BYTES_MAXIMUM + 1))


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_body_without_room_for_its_attributes_is_packed_with_them_and_unpacked(queues: Queues) -> None:
    # Nearly as hard to compress as a text can be: characters of one to four bytes, each as likely as the others of its length.
    draw = Random(1)  # noqa: S311 - the same text each time
    spans = [range(0x20, 0x7F), range(0x80, 0x800), range(0x800, 0xD800), range(0x10000, 0x110000)]
    text = "".join(chr(draw.choice(draw.choice(spans))) for _ in range(MESSAGE_BYTES_MAXIMUM // 2))
    body = text.encode()[: MESSAGE_BYTES_MAXIMUM - 3].decode(errors="ignore")
    body += "x" * (MESSAGE_BYTES_MAXIMUM - len(body.encode()))
    attributes = {"starlift.failure": "y" * 4000, "origin": "z"}
    await queues.queue.send(body, attributes=attributes)
    found = await receive_one(queues.queue)
    assert found.body == body
    assert found.attributes == attributes
    assert await queues.dead_letters.send_all([Outgoing(body, attributes)]) != [None]
    assert (await receive_one(queues.dead_letters)).body == body


async def test_the_error_of_a_missing_queue_names_the_set_up(queues: Queues) -> None:
    if queues.absent is None:
        pytest.skip("a fake is there when it is made")
    for attempt in (queues.absent.depth(), queues.absent.send("x"), queues.absent.receive(1, wait=AT_ONCE, visibility=LONG)):
        with pytest.raises(DependencyDownError, match=r"does not exist .*; rerun the set-up") as caught:
            await attempt
        assert caught.value.dependency == "sqs"


async def test_many_messages_are_sent_in_few_requests_and_keep_their_attributes(queues: Queues) -> None:
    wanted = {str(number): {"starlift.failure": f"é {number}"} for number in range(23)}
    ids = await queues.queue.send_all([Outgoing(body, attributes) for body, attributes in wanted.items()])
    found: dict[str, Delivery] = {}
    while len(found) < 23:
        found |= {delivery.message_id: delivery for delivery in await queues.queue.receive(10, wait=SHORT, visibility=LONG)}
    assert [found[message_id or ""].body for message_id in ids] == list(wanted)
    assert {delivery.body: delivery.attributes for delivery in found.values()} == wanted


async def test_large_messages_are_sent_in_requests_within_the_limit_of_sqs(queues: Queues) -> None:
    bodies = [str(number) * (MESSAGE_BYTES_MAXIMUM // 3) for number in range(5)]
    assert len(set(await queues.queue.send_all([Outgoing(body) for body in bodies]))) == 5
    assert (await answer_that(queues.queue.depth, lambda depth: depth.visible == 5)).visible == 5


async def test_no_message_of_a_list_is_sent_if_one_is_too_large(queues: Queues) -> None:
    with pytest.raises(PermanentError, match="SQS takes"):
        await queues.queue.send_all([Outgoing("small"), Outgoing("x" * (MESSAGE_BYTES_MAXIMUM + 1))])
    assert await is_empty(queues.queue)
