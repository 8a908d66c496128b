"""What S3 says about the drop zone, by whatever way, means: look now."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.doorbells import ANY_SOURCE, CLOCK_SKEW, understood
from contracts.messages import IngestSource, Trigger, UndecodableMessageError, encode

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)


def record(name: str = "ObjectCreated:Put", key: str = "dropzone/budget/a+b%20%C3%A9.csv", **more: Any) -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-11-30T10:00:00.000Z",
        "eventName": name,
        "s3": {"bucket": {"name": "landing"}, "object": {"key": key, "versionId": "1"}},
    } | more


def by_sns(message: str) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-2:1:files", "Message": message, "MessageId": "1"}


RAW = {"Records": [record()]}
BY_EVENTBRIDGE = {
    "version": "0",
    "id": "1",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "time": "2026-11-30T10:00:00Z",
    "detail": {"bucket": {"name": "landing"}, "object": {"key": "dropzone/budget/a.csv"}},
}
TEST = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-30T10:00:00.000Z", "Bucket": "landing"}


@pytest.mark.parametrize(
    "document",
    [
        RAW,
        {"Records": [record(eventTime="2026-11-30T09:00:00.000Z"), record(key="dropzone/another/b.csv")]},
        {"Records": [record("ObjectRemoved:DeleteMarkerCreated")]},
        TEST,
        BY_EVENTBRIDGE,
        by_sns(json.dumps(RAW)),
        by_sns(json.dumps(TEST)),
        by_sns(json.dumps(by_sns(json.dumps(BY_EVENTBRIDGE)))),
    ],
)
def test_an_event_of_s3_is_a_scheduled_command_of_its_time(document: dict[str, Any]) -> None:
    command = understood(json.dumps(document))
    assert isinstance(command, IngestSource)
    assert (command.data.source_name, command.data.trigger, command.time) == (ANY_SOURCE, Trigger.SCHEDULE, AT + CLOCK_SKEW)
    assert understood(json.dumps(document)) == command, "twice is once"
    assert understood(encode(command)) == command


@pytest.mark.parametrize("time", [None, "yesterday", 7, "2026-11-30T10:00:00", "9999-12-31T23:59:59Z"])
def test_an_event_without_a_time_is_answered_by_no_earlier_run(time: Any) -> None:
    command = understood(json.dumps({"Records": [record(eventTime=time)]}))
    assert command.time > datetime(9999, 1, 1, tzinfo=UTC)


def deeply(document: dict[str, Any]) -> dict[str, Any]:
    for _ in range(9):
        document = by_sns(json.dumps(document))
    return document


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"Records": []},
        {"Records": [{"eventSource": "aws:kinesis"}]},
        {"Records": [record(), "rubbish"]},
        {"Records": {"eventSource": "aws:s3"}},
        {"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification", "detail": {}},
        by_sns("rubbish"),
        by_sns(json.dumps({"type": "starlift.ingest_source.v2"})),
        {"Type": "SubscriptionConfirmation", "TopicArn": "arn:aws:sns:eu-west-2:1:files", "Message": json.dumps(RAW)},
        deeply(RAW),
    ],
)
def test_anything_else_is_a_dead_letter_as_before(document: dict[str, Any]) -> None:
    with pytest.raises(UndecodableMessageError):
        understood(json.dumps(document))


@pytest.mark.parametrize("body", ["", "rubbish", "[" * 100_000, '{"Records": ' + "[" * 100_000])
def test_a_body_that_is_not_json_is_a_dead_letter_as_before(body: str) -> None:
    with pytest.raises(UndecodableMessageError):
        understood(body)
