"""Why a message became a dead letter: travels with it as one message attribute."""

from __future__ import annotations

from datetime import UTC
from enum import StrEnum, unique
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

FAILURE_ATTRIBUTE = "starlift.failure"
FAILURE_TEXT_BYTES_MAXIMUM = 512
_COUNT_MAXIMUM = 10_000_000_000  # attempts or replays in a record; consumers accept nine digits


@unique
class FailureReason(StrEnum):
    """Which rule made it a dead letter."""

    UNDECODABLE = "undecodable"  # no message of ours
    PERMANENT = "permanent"  # trying again can't help
    EXHAUSTED = "exhausted"  # every attempt failed


class FailureRecord(BaseModel):
    """What the consumer knew when it gave up. Holds no row data.

    `fingerprint` is the same for failures of the same error at the same place in the code. `attempts` counts deliveries.
    `replays` counts how often the message has come back from a dead-letter queue.

    A letter waits for a fortnight and is read by earlier builds, too, so unknown fields are passed over: a record that can't be
    read would take the count of replays with it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: FailureReason
    error_type: str
    message: Annotated[str, Field(max_length=FAILURE_TEXT_BYTES_MAXIMUM)]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    attempts: Annotated[int, Field(ge=1)]
    first_failed_at: AwareDatetime
    last_failed_at: AwareDatetime
    source_queue: str
    service: str
    version: str
    replays: Annotated[int, Field(ge=0)] = 0


def read_failure(text: str) -> FailureRecord | None:
    """The record in an attribute; None if no consumer wrote it, as anyone who may send to the queue can make one up."""
    try:
        record = FailureRecord.model_validate_json(text)
        for time in (record.first_failed_at, record.last_failed_at):
            time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    texts = (record.error_type, record.source_queue, record.service, record.version)
    is_plausible = max(record.attempts, record.replays) <= _COUNT_MAXIMUM
    return record if is_plausible and max(map(len, texts)) <= FAILURE_TEXT_BYTES_MAXIMUM else None
