"""Doorbells: events by which S3 says that something is in the drop zone. They only mean that a source should look now.

A run lists what waits. So it does not matter whether an event is lost, comes twice, is late, or is about another data set, and
nothing in it is used but its time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from contracts.messages import IngestSource, IngestSourceData, Message, Trigger, UndecodableMessageError, decode

ANY_SOURCE = "*"  # in a command made of a doorbell: the source from whose queue it comes
CLOCK_SKEW = timedelta(seconds=5)  # the clocks of S3 and of ingestion differ: a run may have looked just before the file came
_NESTED = 3  # EventBridge or S3, in a notification of SNS, in another one


def understood(body: str) -> Message:
    """The message in a body, or the command that a doorbell stands for. Raises: UndecodableMessageError, NewerMessageError."""
    try:
        return decode(body)
    except UndecodableMessageError:
        if (times := _rung(body, _NESTED)) is None:
            raise
    # Without a time it stands for itself: no run can be known to have begun after it.
    time = max(times, default=datetime.max.replace(tzinfo=UTC))
    data = IngestSourceData(source_name=ANY_SOURCE, trigger=Trigger.SCHEDULE)
    return IngestSource(id=uuid5(NAMESPACE_OID, body), source="aws:s3", time=time, data=data)


def _rung(body: str, nested: int) -> list[datetime] | None:
    """The times by which the S3 events in a body are over; None if it has none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"Service": "Amazon S3", "Event": "s3:TestEvent"}:
            return list(_times([document.get("Time")]))
        case {"Records": [_, *_] as records} if all(_is_of_s3(record) for record in records):
            return list(_times([record.get("eventTime") for record in records]))
        case {"source": "aws.s3", "detail-type": str(), "detail": {}}:
            return list(_times([document.get("time")]))
        case {"Type": "Notification", "TopicArn": str(), "Message": str(message)} if nested:
            return _rung(message, nested - 1)
    return None


def _is_of_s3(record: Any) -> bool:
    return isinstance(record, dict) and record.get("eventSource") == "aws:s3"


def _times(texts: list[Any]) -> Iterator[datetime]:
    for text in texts:
        try:
            time = datetime.fromisoformat(text) + CLOCK_SKEW
        except (ValueError, TypeError, OverflowError):
            continue
        if time.tzinfo is not None:
            yield time
