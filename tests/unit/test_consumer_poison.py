"""Messages that no consumer can work on, among others: each ends with a record that explains it, and holds up nobody."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import MESSAGE_BYTES_MAXIMUM, Message
from shared.errors import PermanentError
from shared.outcome import Done, Outcome
from tests.unit.consumer_scene import Scene, body, message, now, until

pytestmark = pytest.mark.virtual_clock

GOOD = range(100, 120)
RAISES, REFUSES = message(1), message(2)


def changed(number: int, **changes: object) -> str:
    return json.dumps({**json.loads(body(number)), **changes})


POISON = {
    "hello": (FailureReason.UNDECODABLE, 1, "the body is not JSON; nothing of ours sends such a message"),
    "[1]": (FailureReason.UNDECODABLE, 1, "the body is a JSON list, not an object"),
    "": (FailureReason.UNDECODABLE, 1, "the body is not JSON"),
    changed(3, type="starlift.brew_coffee.v1"): (FailureReason.UNDECODABLE, 1, "the type 'starlift.brew_coffee.v1' is none of"),
    changed(4, type=None): (FailureReason.UNDECODABLE, 1, "the type 'None' is none of"),
    changed(5, data={}): (FailureReason.UNDECODABLE, 1, "source_name: Field required"),
    changed(6, surprise=1): (FailureReason.UNDECODABLE, 1, "surprise: Extra inputs are not permitted"),
    changed(7, type="starlift.ingest_source.v99"): (
        FailureReason.EXHAUSTED,
        1,
        "is newer than version 2, which this build knows",
    ),
    body(1): (FailureReason.EXHAUSTED, 5, "unexpected ZeroDivisionError in"),
    body(2): (FailureReason.PERMANENT, 1, "the object is gone; restore it"),
}


async def handle(received: Message) -> Outcome:
    if received == RAISES:
        raise ZeroDivisionError
    if received == REFUSES:
        raise PermanentError("the object is gone; restore it")
    return Done()


async def test_poison_ends_explained_and_good_messages_flow_on_beside_it() -> None:
    scene = Scene()
    for poison, good in zip([*POISON, *POISON], GOOD, strict=True):
        await scene.queue.send(poison)
        await scene.queue.send(body(good))
    async with scene.consuming(handle, slots=1, defer_limit=timedelta(minutes=20)):
        await until(lambda: not {body(good) for good in GOOD} & set(scene.queue.bodies))
        assert now() < 5
        await until(lambda: not scene.queue.messages)
    ends = [
        (letter.body, FailureRecord.model_validate_json(letter.attributes[FAILURE_ATTRIBUTE]))
        for letter in scene.dead_letters.messages
    ]
    assert sorted(text for text, _ in ends) == sorted([*POISON, *POISON])
    for text, record in ends:
        reason, attempts, explanation = POISON[text]
        assert (record.reason, record.attempts) == (reason, attempts), text
        assert explanation in record.message


async def test_a_body_too_large_for_a_failure_record_beside_it_is_left_to_sqs() -> None:
    """No room for the record: the queue's own redrive takes the message as it is, and the log has said why ten times."""
    scene = Scene()
    await scene.queue.send("x" * MESSAGE_BYTES_MAXIMUM)
    await scene.consume_all(handle)
    (letter,) = scene.dead_letters.messages
    assert (len(letter.body), letter.receive_count, letter.attributes) == (MESSAGE_BYTES_MAXIMUM, 10, {})
