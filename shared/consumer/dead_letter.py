"""What a dead letter carries: the message as it was, and why it failed."""

from __future__ import annotations

from datetime import datetime

from contracts.failure import (
    FAILURE_ATTRIBUTE,
    FAILURE_TEXT_BYTES_MAXIMUM,
    FINGERPRINT_VERSION,
    FailureRecord,
    fingerprint_of,
    normalised,
    read_failure,
)
from shared.consumer.attempt import Attempt
from shared.consumer.rules import Rules
from shared.logs import error_text, frames_of
from shared.outcome import DeadLetter


def dead_letter_attributes(attempt: Attempt, outcome: DeadLetter, *, rules: Rules, queue: str, now: datetime) -> dict[str, str]:
    """The attributes of the dead letter: the failure record, and the message's own as far as there is room.

    The time of the first failure and the number of replays are those of an earlier failure record, if there is one: a replay
    counts itself there.
    """
    earlier = read_failure(attempt.delivery.attributes.get(FAILURE_ATTRIBUTE, ""))
    record = FailureRecord(
        reason=outcome.reason,
        error_type=type(outcome.error).__qualname__,
        message=error_text(outcome.error, FAILURE_TEXT_BYTES_MAXIMUM),
        fingerprint=fingerprint(outcome.error),
        fingerprint_version=FINGERPRINT_VERSION,
        attempts=attempt.number,
        first_failed_at=earlier.first_failed_at if earlier else attempt.failing_since or now,
        last_failed_at=now,
        source_queue=queue,
        service=rules.service,
        version=rules.version,
        replays=earlier.replays if earlier else 0,
    )
    return attempt.attributes_with({FAILURE_ATTRIBUTE: record.model_dump_json(ensure_ascii=True)})


def fingerprint(error: BaseException) -> str:
    """Equal for errors of one type with one message from one place in a service, also in a version that only moves lines.

    Type and place alone would put different causes together: most errors are PermanentErrors, and one place reads every object.
    """
    frames = (frame for frame in frames_of(error) if not frame.startswith("shared.consumer."))
    return fingerprint_of(type(error).__qualname__, *frames, normalised(error_text(error, FAILURE_TEXT_BYTES_MAXIMUM)))
