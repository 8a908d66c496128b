"""Messages that no consumer can handle, among good ones: each ends with a record that explains it and delays no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import MESSAGE_BYTES_MAXIMUM, Message
from shared.catalog import SourceMismatchError
from shared.object_store import verified
from shared.outcome import Done, Outcome
from shared.testing import reference
from tests.fuzz.rubbish import RECORD
from tests.unit.shared.consumer.scene import Scene, body, message, now, until

pytestmark = pytest.mark.virtual_clock

REF = reference("landing", "runs/1/staff.parquet", b"as announced", row_count=1)


def changed(number: int, **changes: object) -> str:
    return json.dumps({**json.loads(body(number)), **changes})


@dataclass(frozen=True)
class Poison:
    """A message, what the handler does with it (None: it must never see it), and the expected outcome."""

    body: str
    act: Callable[[], object] | None
    reason: FailureReason
    attempts: int
    explanation: str


def violate_the_contract() -> None:
    raise SourceMismatchError("table 'staff' lacks column 'email_address' required by contract 'totesys'; restore it")


NO_MESSAGE, REFUSED, TRIED = FailureReason.UNDECODABLE, FailureReason.PERMANENT, FailureReason.EXHAUSTED
POISON = {
    "undecodable body": Poison("hello", None, NO_MESSAGE, 1, "the body is not JSON; Starlift does not send such messages"),
    "empty body": Poison("", None, NO_MESSAGE, 1, "the body is not JSON"),
    "no object": Poison("[1]", None, NO_MESSAGE, 1, "the body is a JSON list, not an object"),
    "unknown type": Poison(
        changed(3, type="starlift.brew_coffee.v1"), None, NO_MESSAGE, 1, "the type 'starlift.brew_coffee.v1' is not one of"
    ),
    "no type": Poison(changed(4, type=None), None, NO_MESSAGE, 1, "the type 'None' is not one of"),
    "data that lack": Poison(changed(5, data={}), None, NO_MESSAGE, 1, "source_name: Field required"),
    "data that are too many": Poison(changed(6, x=1), None, NO_MESSAGE, 1, "x: Extra inputs are not permitted"),
    "newer version": Poison(
        changed(7, type="starlift.ingest_source.v99"),
        None,
        TRIED,
        1,
        "is newer than version 2, which this build knows; deferred",
    ),
    "object gone": Poison(
        body(8), lambda: verified(REF, None), REFUSED, 1, "'landing/runs/1/staff.parquet', which does not exist; restore it"
    ),
    "hash differs": Poison(
        body(9),
        lambda: verified(REF, b"as Announced"),
        REFUSED,
        1,
        f"but the message names 12 bytes with sha256 {REF.sha256}; restore",
    ),
    "contract violated": Poison(body(10), violate_the_contract, REFUSED, 1, "table 'staff' lacks column 'email_address'"),
    "always raises": Poison(body(11), lambda: 1 / 0, TRIED, 5, "unexpected ZeroDivisionError in"),
}
ACTS: dict[Message, Callable[[], object] | None] = {
    message(number): poison.act for number in range(3, 12) for poison in POISON.values() if poison.body == body(number)
}
GOOD = range(100, 100 + 2 * len(POISON))


async def handle(received: Message) -> Outcome:
    act = ACTS.get(received)
    if act is not None:
        act()
    return Done()


async def test_poison_is_dead_lettered_with_a_reason_while_good_messages_flow() -> None:
    scene = Scene()
    for poison, good in zip([*POISON.values(), *POISON.values()], GOOD, strict=True):
        await scene.queue.send(poison.body)
        await scene.queue.send(body(good))
    async with scene.consuming(handle, slots=1, defer_limit=timedelta(minutes=20)):
        await until(lambda: not {body(good) for good in GOOD} & set(scene.queue.bodies))
        assert now() < 5
        await until(lambda: not scene.queue.messages)
    ends = [
        (letter.body, FailureRecord.model_validate_json(letter.attributes[FAILURE_ATTRIBUTE]))
        for letter in scene.dead_letters.messages
    ]
    for name, poison in POISON.items():
        records = [record for text, record in ends if text == poison.body]
        assert [(record.reason, record.attempts) for record in records] == [(poison.reason, poison.attempts)] * 2, name
        assert all(poison.explanation in record.message for record in records), records
    assert len(ends) == 2 * len(POISON)


HOSTILE_BODIES = {
    "a lone surrogate as type": r'{"type":"\ud800"}',
    "a lone surrogate as key": r'{"type":"starlift.ingest_source.v2","\ud800":1}',
    "a newer version that is long": changed(20, type="starlift.ingest_source.v9999", x="x" * 500_000),
    "an unknown field with a long name": changed(21, **{"x" * 500_000: 1}),
    "nested as deep as JSON is read": '{"type":' + "[" * 960 + "]" * 960 + "}",
    "nested deeper": "[" * 500_000,
    "an endless number": '{"type":' + "1" * 100_000 + "}",
    "NUL": "\0",
    "a byte order mark": "\ufeff{}",
    "as large as SQS takes": "x" * MESSAGE_BYTES_MAXIMUM,
    "as large as SQS takes, in three bytes each": "€" * (MESSAGE_BYTES_MAXIMUM // 3),
}
HOSTILE_ATTRIBUTES = {
    "as many as SQS takes": {f"x{number}": "x" for number in range(10)},
    "large ones": {"x": "x" * 500_000, "y": "y" * 500_000},
    "a record that is none": {FAILURE_ATTRIBUTE: "\0"},
    "endless counts": {FAILURE_ATTRIBUTE: json.dumps({**RECORD, "replays": 10**4000, "attempts": 10**4000})},
    "a time before time": {FAILURE_ATTRIBUTE: json.dumps({**RECORD, "first_failed_at": "0001-01-01T00:00:00+14:00"})},
    "long names": {FAILURE_ATTRIBUTE: json.dumps({**RECORD, "service": "x" * 500_000})},
    "times and counts of ours": {
        "starlift.attempts": "9" * 9,
        "starlift.failing_since": "0001-01-01T00:00:00+14:00",
        "starlift.deferred_since": "0001-01-01T00:00:00+14:00",
    },
}


async def test_no_message_breaks_the_executor_and_each_bad_one_is_dead_lettered_with_a_reason() -> None:
    scene = Scene()
    sent: list[tuple[str, dict[str, str]]] = [(text, {}) for text in HOSTILE_BODIES.values()]
    sent += [("rubbish", attributes) for attributes in HOSTILE_ATTRIBUTES.values()]
    for number, (text, attributes) in enumerate(sent):
        await scene.queue.send(text, attributes=attributes)
        await scene.queue.send(body(200 + number))
    async with scene.consuming(handle, defer_limit=timedelta(0)):
        await until(lambda: not scene.queue.messages)
        assert now() < 5
    assert sorted(letter.body for letter in scene.dead_letters.messages) == sorted(text for text, _ in sent)
    for letter in scene.dead_letters.messages:
        record = FailureRecord.model_validate_json(letter.attributes[FAILURE_ATTRIBUTE])
        assert record.message
        assert record.replays <= 1
        assert len(letter.attributes) <= 10


async def test_a_bug_around_one_delivery_costs_it_an_attempt_and_stops_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> dict[str, str]:
        raise ZeroDivisionError

    monkeypatch.setattr("shared.consumer.executor.dead_letter_attributes", broken)
    scene = Scene()
    await scene.queue.send("rubbish")
    for number in range(5):
        await scene.queue.send(body(300 + number))
    await scene.consume_all(handle)
    (letter,) = scene.dead_letters.messages  # by the queue's own redrive
    assert (letter.body, letter.receive_count) == ("rubbish", 10)
