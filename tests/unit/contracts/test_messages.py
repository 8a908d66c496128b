from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from contracts import messages, upcasts
from contracts.messages import (
    BatchIngested,
    BatchIngestedData,
    BatchLoaded,
    BatchLoadedData,
    BatchRemodelled,
    BatchRemodelledData,
    Extract,
    ExtractChunk,
    ExtractChunkData,
    IngestSource,
    IngestSourceData,
    KeyRange,
    LoadedTable,
    LookUpKeys,
    LookUpKeysData,
    Message,
    Mode,
    NewerMessageError,
    Role,
    RowsOf,
    Snapshot,
    StarRows,
    Trigger,
    UndecodableMessageError,
    decode,
    encode,
)
from contracts.objects import BatchKeys
from shared.testing import EPOCH, reference

ENVELOPE: dict[str, Any] = {
    "id": uuid4(),
    "source": "tests",
    "time": EPOCH,
    "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
    "causationid": uuid4(),
}
BATCH: dict[str, Any] = {
    "source_name": "totesys",
    "run": 7,
    "batch_id": BatchKeys("totesys", 7, 0).batch_id,
    "index": 0,
    "is_last": True,
    "snapshot": Snapshot(taken_at=EPOCH, horizon=1000, wal_position="0/16B3748"),
}
OBJECT = reference("landing", "key", b"rows", row_count=1)
EXTRACTS = (
    Extract(table="staff", role=Role.BASE, object=OBJECT),
    Extract(table="department", role=Role.PARTNER, object=OBJECT),
)
GONE = (RowsOf(table="staff", keys=((1,), (2,))), RowsOf(table="shelf", keys=((1, "a"),)))
EXAMPLES: list[Message] = [
    IngestSource(**ENVELOPE, data=IngestSourceData(source_name="totesys", mode=Mode.FULL, trigger=Trigger.SCHEDULE)),
    ExtractChunk(
        **ENVELOPE,
        data=ExtractChunkData(
            source_name="totesys",
            run=7,
            index=3,
            contract="c" * 64,
            snapshot=BATCH["snapshot"],
            next_xid=1001,
            exported="00000003-0000001B-1",
            table="shelf",
            rows=KeyRange(after=(1, "a"), until=None),
        ),
    ),
    BatchIngested(**ENVELOPE, data=BatchIngestedData(**BATCH, extracts=EXTRACTS, hashes=OBJECT)),
    BatchRemodelled(
        **ENVELOPE, data=BatchRemodelledData(**BATCH, tables=(StarRows(table="dim_staff", object=OBJECT),), hashes=OBJECT)
    ),
    LookUpKeys(**ENVELOPE, data=LookUpKeysData(source_name="totesys", rows=GONE, believe_empty=True)),
    BatchIngested(**ENVELOPE, data=BatchIngestedData(**BATCH, extracts=(), gone=GONE, answers=uuid4())),
    BatchRemodelled(**ENVELOPE, data=BatchRemodelledData(**BATCH, tables=(), gone=GONE, answers=uuid4())),
    BatchRemodelled(**ENVELOPE, data=BatchRemodelledData(**BATCH, tables=(), quarantine=OBJECT)),
    BatchLoaded(
        **ENVELOPE, data=BatchLoadedData(**BATCH, tables=(LoadedTable(table="dim_staff", row_count=3),), quarantined=0)
    ),
]


def changed(**changes: object) -> str:
    return json.dumps({**json.loads(encode(EXAMPLES[0])), **changes})


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.type)
def test_a_message_is_encoded_and_decoded_unchanged(message: Message) -> None:
    assert decode(encode(message)) == message


def test_there_is_an_example_of_every_message() -> None:
    assert {type(message) for message in EXAMPLES} == set(messages.MESSAGE_MODELS)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("hello", "the body is not JSON"),
        ("", "the body is not JSON"),
        ("[1]", "the body is a JSON list, not an object"),
        ("{}", "the type 'None' is not one of"),
        (changed(type="com.example.thing"), "the type 'com.example.thing' is not one of"),
        (changed(type="starlift.unheard_of.v1"), "the type 'starlift.unheard_of.v1' is not one of"),
        (changed(surprise=1), "surprise: Extra inputs are not permitted"),
        (changed(data={"source_name": "totesys"}), "data.trigger: Field required"),
        (changed(data={"source_name": "totesys", "trigger": "operator", "rows": []}), "data.rows: Extra inputs"),
        (changed(time="2026-01-01T00:00:00"), "time: Input should have timezone info"),
        (changed(traceparent="none"), "traceparent: String should match pattern"),
        (changed(specversion="2.0"), "specversion: Input should be '1.0'"),
    ],
)
def test_a_foreign_message_is_refused_with_a_reason(body: str, expected: str) -> None:
    with pytest.raises(UndecodableMessageError, match=r".*") as caught:
        decode(body)
    assert expected in str(caught.value)


def test_the_values_of_a_bad_message_are_not_repeated() -> None:
    with pytest.raises(UndecodableMessageError) as caught:
        decode(changed(data={"source_name": "alice@example.com/", "trigger": "operator"}))
    assert "alice" not in str(caught.value)


def test_a_version_later_than_this_build_s_is_recognised() -> None:
    with pytest.raises(NewerMessageError, match=r"'starlift\.ingest_source\.v3' is newer than version 2"):
        decode(changed(type="starlift.ingest_source.v3"))


def test_an_old_message_is_upcast_through_every_version_to_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_v8(document: dict[str, Any]) -> dict[str, Any]:
        data = {"source_name": document["data"]["name"], "trigger": "operator"}
        return {**document, "type": "starlift.ingest_source.v9", "data": data}

    def from_v9(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "type": "starlift.ingest_source.v2", "data": {**document["data"], "mode": "full"}}

    monkeypatch.setitem(upcasts.UPCASTS, "starlift.ingest_source.v8", from_v8)
    monkeypatch.setitem(upcasts.UPCASTS, "starlift.ingest_source.v9", from_v9)
    message = decode(changed(type="starlift.ingest_source.v8", data={"name": "totesys"}))
    assert isinstance(message, IngestSource)
    assert message.data == IngestSourceData(source_name="totesys", mode=Mode.FULL, trigger=Trigger.OPERATOR)


def test_an_upcast_leads_to_a_known_version() -> None:
    for kind, step in upcasts.UPCASTS.items():
        assert messages.TYPE_PATTERN.match(kind)
        assert callable(step)


def test_the_id_of_a_batch_is_reproducible_and_unique() -> None:
    batches = [BatchKeys(source, run, index) for source in ("a", "b") for run in (1, 11) for index in (0, 1, 10)]
    ids = [batch.batch_id for batch in batches]
    assert ids == [batch.batch_id for batch in batches]
    assert len(set(ids)) == len(ids)
