"""What is read of a dead letter: anything may lie there, and nothing of it may end a command."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from contracts.failure import FAILURE_ATTRIBUTE
from contracts.messages import encode
from services.operator.dlq.letters import Archived, Letter, read_letter
from services.operator.dlq.render import json_line, letter_as_json, show_letter
from shared.consumer.attempt import ATTEMPTS_ATTRIBUTE, DEFERRED_ATTRIBUTE, FAILING_ATTRIBUTE
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.unit.services.operator.dlq.scene import SERVICE, failure
from tests.unit.services.operator.scene import ingested

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
@example(body='{"data": {"snapshot": {"taken_at": "\x1b[2J\x9b2J"}}}', attribute="")
@example(body='{"id": "\\u001b[2J", "data": {"snapshot": {"taken_at": "\\u009b2J"}}}', attribute="")
@example(body="NaN", attribute="{}")
def test_whatever_lies_there_can_be_read_shown_archived_and_written_as_json(body: str, attribute: str) -> None:
    found = letter(body, {FAILURE_ATTRIBUTE: attribute})
    shown = Console(file=(file := StringIO()), width=80)
    show_letter(shown, found, [])
    file.getvalue().encode()
    assert "\x1b" not in file.getvalue()
    assert (found.message is None) == (found.problem is not None)
    line = json_line(letter_as_json(found))
    assert "\n" not in line
    assert json.loads(line)["letter"] == "1"
    if body.isprintable():
        assert Archived.model_validate_json(Archived.of(found).model_dump_json()).body == body


def test_a_replay_starts_afresh_and_counts_itself() -> None:
    body = encode(ingested(7))
    ours = dict.fromkeys((ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE, DEFERRED_ATTRIBUTE), "4")
    found = letter(body, {**ours, "theirs": "x", FAILURE_ATTRIBUTE: failure(replays=1).model_dump_json()})
    assert found.outgoing.body == body
    assert found.outgoing.attributes == {"theirs": "x", FAILURE_ATTRIBUTE: failure(replays=2).model_dump_json()}


def test_what_can_t_go_back_is_not_made_up() -> None:
    with pytest.raises(ValueError, match="letter 1 can't be replayed: the body is not JSON"):
        _ = letter("{").outgoing


def test_a_letter_without_a_failure_record_was_moved_by_sqs_or_a_person() -> None:
    found = letter(encode(ingested(7)), receive_count=11)
    assert found.failure.error_type == "unknown"
    assert found.failure.attempts == 11
    assert found.failure.message.startswith("no service recorded why: SQS moved it after too many receives")
    assert found.failure.fingerprint == letter("{").failure.fingerprint


def test_a_failure_record_of_a_later_build_keeps_its_count_of_replays() -> None:
    record = json.dumps(json.loads(failure(replays=3).model_dump_json()) | {"trace": "x"})
    assert letter(encode(ingested(7)), {FAILURE_ATTRIBUTE: record}).failure == failure(replays=3)


def test_an_older_version_is_brought_to_this_build_s() -> None:
    """A batch of before there were key lists."""
    document = json.loads(encode(ingested(7))) | {"type": "starlift.batch_ingested.v1"}
    del document["data"]["keys"]
    found = letter(json.dumps(document))
    assert (found.problem, found.type) == (None, "starlift.batch_ingested.v1")
    assert json.loads(found.outgoing.body)["type"] == "starlift.batch_ingested.v2"
    assert json.loads(found.outgoing.body)["data"]["keys"] == []


def test_a_message_for_another_service_has_a_problem() -> None:
    assert letter(encode(ingested(7))).problem is None
    found = read_letter("loading", Delivery("1", encode(ingested(7)), "", 1, EPOCH, EPOCH))
    assert found.problem == "'starlift.batch_ingested.v2' is not for loading, which works on 'starlift.batch_remodelled.v2'"


def test_every_object_that_a_message_refers_to_is_found_however_deep() -> None:
    ref = {"bucket": "landing", "key": "k", "byte_count": 1, "row_count": 1, "sha256": "0" * 64}
    body = json.dumps(
        {"data": {"extracts": [{"table": "staff", "object": ref}, {"object": ref | {"key": "l"}}], "x": ref | {"key": "m"}}}
    )
    assert [one.key for one in letter(body).objects()] == ["k", "l", "m"]
