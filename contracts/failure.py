"""Why a message became a dead letter: one message attribute that travels with it."""

from __future__ import annotations

import re
from datetime import UTC
from enum import StrEnum, unique
from hashlib import sha256
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field

FAILURE_ATTRIBUTE = "starlift.failure"
FAILURE_TEXT_BYTES_MAXIMUM = 512
_COUNT_MAXIMUM = 10_000_000_000  # attempts or replays in a record; consumers accept nine digits
FINGERPRINT_VERSION = 2  # of the fingerprints that this build makes

# What differs between failures of one cause: quoted names, UUIDs, hashes, numbers. The apostrophe of "can't" is not a quote.
_VARYING = re.compile(
    r"""(?<!\w)'[^']*(?:'|$)|"[^"]*(?:"|$)|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{16,}\b|\d+(?:[.,:-]\d+)*""",
    re.IGNORECASE,
)


@unique
class FailureReason(StrEnum):
    """The rule that made a message a dead letter."""

    UNDECODABLE = "undecodable"  # not a message of ours
    PERMANENT = "permanent"  # trying again can't help
    EXHAUSTED = "exhausted"  # every attempt failed


class FailureRecord(BaseModel, frozen=True, extra="ignore"):
    """What the consumer knew when it gave up. Holds no row data.

    A letter waits for a fortnight and may be read by an earlier build, so unknown fields are ignored: a record that is rejected
    loses the number of replays.
    """

    reason: FailureReason
    error_type: str  # name of the exception's class
    message: Annotated[str, Field(max_length=FAILURE_TEXT_BYTES_MAXIMUM)]  # text of the exception, or where it was raised
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # equal for failures of one cause; see `fingerprint_of`
    fingerprint_version: Annotated[int, Field(ge=1)] = 1  # 1: of type and frames only; 2: also of what the message says
    attempts: Annotated[int, Field(ge=1)] | None  # deliveries that failed; None: no service counted them
    first_failed_at: AwareDatetime  # by the clock of the service, as `last_failed_at`
    last_failed_at: AwareDatetime
    source_queue: str  # name of the queue that the message was received from
    service: str
    version: str  # of the service
    replays: Annotated[int, Field(ge=0)] = 0  # how often the message has come back from a dead-letter queue


def fingerprint_of(*parts: str) -> str:
    """The hash that groups failures: of the error's type, the frames it passed through, and its `normalised` message."""
    return sha256("\n".join(parts).encode(errors="backslashreplace")).hexdigest()[:16]


def normalised(message: str) -> str:
    """The text of a failure without the names, ids, hashes and numbers that differ from one message to the next."""
    return _VARYING.sub("#", message)


def read_failure(text: str) -> FailureRecord | None:
    """The record in an attribute; None if no consumer wrote it, as anyone who may send to the queue can make one up.

    The fingerprint of an older build's record is extended by what its message says.
    """
    try:
        record = FailureRecord.model_validate_json(text)
        for time in (record.first_failed_at, record.last_failed_at):
            time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    texts = (record.error_type, record.source_queue, record.service, record.version)
    is_plausible = max(record.attempts or 1, record.replays) <= _COUNT_MAXIMUM
    if not is_plausible or max(map(len, texts)) > FAILURE_TEXT_BYTES_MAXIMUM:
        return None
    if record.fingerprint_version >= FINGERPRINT_VERSION:
        return record
    extended = fingerprint_of(record.fingerprint, normalised(record.message))
    return record.model_copy(update={"fingerprint": extended, "fingerprint_version": FINGERPRINT_VERSION})
