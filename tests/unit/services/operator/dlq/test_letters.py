"""Reading dead letters: they may contain anything, and none of it may crash a command."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.dead_letters import Archived
from contracts.failure import FAILURE_ATTRIBUTE
from contracts.messages import encode
from services.operator.dlq.letters import Letter, read_letter
from services.operator.dlq.looking import described
from services.operator.dlq.operations import edited
from services.operator.terminal.dlq_render import letter_text
from shared.consumer.attempt import ATTEMPTS_ATTRIBUTE, DEFERRED_ATTRIBUTE, FAILING_ATTRIBUTE
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.fixtures.virtual_clock import run_on_virtual_clock
from tests.unit.services.operator.dlq.scene import SERVICE, failure
from tests.unit.services.operator.scene import Scene, ingested

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "type", "data", "snapshot", "run", "bucket", "key"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def letter(body: str, attributes: dict[str, str] | None = None, receive_count: int = 1) -> Letter:
    return read_letter(SERVICE, Delivery("1", body, "receipt", receive_count, EPOCH, EPOCH, attributes or {}))


@settings(deadline=None)
@given(body=st.text() | JSON.map(json.dumps), attribute=st.text() | JSON.map(json.dumps))
@example(body="[" * 100_000, attribute="[" * 100_000)
@example(body='{"data": {"snapshot": 3}}', attribute="")
@example(body='{"data": {"snapshot": null, "x": "\\ud800"}}', attribute="")
@example(body='{"id": "\\ud800", "type": "\\udfff"}', attribute="")
@example(body='{"data": {"snapshot": {"taken_at": "\x1b[2J\x9b2J"}}}', attribute="")
@example(body='{"id": "\\u001b[2J", "data": {"snapshot": {"taken_at": "\\u009b2J"}}}', attribute="")
@example(body="NaN", attribute="{}")
@example(body="1e999", attribute="{}")
def test_every_letter_can_be_read_shown_archived_and_written_as_json(body: str, attribute: str) -> None:
    found = letter(body, {FAILURE_ATTRIBUTE: attribute})
    view = run_on_virtual_clock(described(Scene().system, found))
    shown = "\n".join(letter_text(view))
    shown.encode()
    assert "\x1b" not in shown
    assert (found.message is None) == (found.problem is not None)
    line = json.dumps(view.model_dump(mode="json"))
    assert "\n" not in line
    assert json.loads(line)["body"] == body
    if body.isprintable():
        assert Archived.model_validate_json(found.archived.model_dump_json()).body == body
        assert body in shown or json.loads(body) == json.loads(shown[shown.index("could go back") :].partition("\n")[2])


def test_a_replay_resets_the_attempts_and_counts_itself() -> None:
    body = encode(ingested(7))
    ours = dict.fromkeys((ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE, DEFERRED_ATTRIBUTE), "4")
    found = letter(body, {**ours, "theirs": "x", FAILURE_ATTRIBUTE: failure(replays=1).model_dump_json()})
    assert found.outgoing.body == body
    assert found.outgoing.attributes == {"theirs": "x", FAILURE_ATTRIBUTE: failure(replays=2).model_dump_json()}


def test_ten_sender_attributes_leave_room_for_the_failure_record() -> None:
    """SQS allows at most ten attributes per message."""
    theirs = {f"theirs-{number}": "x" * number for number in range(1, 11)}
    found = letter(encode(ingested(7)), theirs)
    record = found.failure.model_copy(update={"replays": 1}).model_dump_json(ensure_ascii=True)
    assert found.outgoing.attributes == dict(list(theirs.items())[:8]) | {FAILURE_ATTRIBUTE: record}
    assert len(edited(found, found.document | {"source": "ann"}).attributes) == 9  # one is left for a body that is packed


def test_a_letter_that_cannot_be_replayed_has_no_outgoing_message() -> None:
    with pytest.raises(ValueError, match="letter 1 can't be replayed: the body is not JSON"):
        _ = letter("{").outgoing


def test_a_letter_without_a_failure_record_has_no_attempts() -> None:
    """It was sent by a person or moved by SQS, and its receive count grows with every look."""
    found = letter(encode(ingested(7)), receive_count=26)
    assert (found.failure.error_type, found.failure.attempts) == ("unknown", None)
    assert found.failure.message.startswith("no service recorded why: a person sent it, or SQS moved it")
    assert found.failure.fingerprint == letter("{").failure.fingerprint
    view = run_on_virtual_clock(described(Scene().system, found))
    assert "        failed  not recorded" in list(letter_text(view))


@pytest.mark.parametrize(
    ("document", "name", "advice"),
    [
        ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "landing"}, "an S3 test event", "discard it"),
        ({"Records": [{"eventSource": "aws:s3", "s3": {}}]}, "an S3 event notification", "only ingestion understands"),
        ({"Type": "Notification", "TopicArn": "arn", "Message": "{}"}, "an SNS notification", "raw message delivery"),
        ({"Type": "SubscriptionConfirmation", "TopicArn": "arn", "Token": "t"}, "an SNS subscription", "remove the queue"),
        (
            {"version": "0", "detail-type": "Event", "source": "aws", "detail": {}},
            "an EventBridge",
            "$.detail",
        ),
    ],
)
def test_letters_sent_by_aws_itself_are_recognised_and_explained(document: object, name: str, advice: str) -> None:
    problem = letter(json.dumps(document)).problem
    assert problem is not None
    assert name in problem
    assert advice in problem


def test_a_failure_record_of_a_later_build_keeps_its_count_of_replays() -> None:
    record = json.dumps(json.loads(failure(replays=3).model_dump_json()) | {"trace": "x"})
    assert letter(encode(ingested(7)), {FAILURE_ATTRIBUTE: record}).failure == failure(replays=3)


def test_an_older_version_is_upcast_to_this_build_s() -> None:
    """A batch that lists all keys: the list is dropped, since the next comparison finds the same."""
    document = json.loads(encode(ingested(7))) | {"type": "starlift.batch_ingested.v2"}
    document["data"] = {name: document["data"][name] for name in document["data"] if name not in {"gone", "hashes", "answers"}}
    document["data"]["keys"] = [{"table": "staff", "objects": []}]
    found = letter(json.dumps(document))
    assert (found.problem, found.type) == (None, "starlift.batch_ingested.v2")
    assert json.loads(found.outgoing.body)["type"] == "starlift.batch_ingested.v5"
    assert "keys" not in json.loads(found.outgoing.body)["data"]


def test_a_message_for_another_service_has_a_problem() -> None:
    assert letter(encode(ingested(7))).problem is None
    found = read_letter("loading", Delivery("1", encode(ingested(7)), "", 1, EPOCH, EPOCH))
    assert found.problem == "'starlift.batch_ingested.v5' is not for loading, which works on 'starlift.batch_remodelled.v6'"


def test_every_object_a_message_refers_to_is_found_at_any_depth() -> None:
    ref = {"bucket": "landing", "key": "k", "byte_count": 1, "row_count": 1, "sha256": "0" * 64}
    body = json.dumps(
        {"data": {"extracts": [{"table": "staff", "object": ref}, {"object": ref | {"key": "l"}}], "x": ref | {"key": "m"}}}
    )
    assert [one.key for one in letter(body).objects()] == ["k", "l", "m"]
