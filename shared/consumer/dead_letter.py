"""What a dead letter carries: the message as it was, and why it failed."""

from __future__ import annotations

from datetime import datetime

from contracts.failure import (
    FAILURE_ATTRIBUTE,
    FAILURE_TEXT_BYTES_MAXIMUM,
    FailureRecord,
    fingerprint_of,
    normalised,
    read_failure,
)
from contracts.messages import NewerMessageError, UndecodableMessageError
from shared.consumer.attempt import Attempt, given
from shared.consumer.rules import Rules
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.logs import frames_of, place_of
from shared.outcome import DeadLetter
from shared.wire_form import attributes_beside

_LOGGED_BYTES_MAXIMUM = 4096
_OURS = (TransientError, PermanentError, DependencyDownError, UndecodableMessageError, NewerMessageError)


def dead_letter_attributes(attempt: Attempt, outcome: DeadLetter, *, rules: Rules, queue: str, now: datetime) -> dict[str, str]:
    """The attributes of the dead letter: the failure record, and the message's own as far as there is room.

    The time of the first failure and the number of replays are those of an earlier failure record, if there is one: a replay
    counts itself there.
    """
    delivery = attempt.delivery
    earlier = read_failure(delivery.attributes.get(FAILURE_ATTRIBUTE, ""))
    record = FailureRecord(
        reason=outcome.reason,
        error_type=type(outcome.error).__qualname__,
        message=_message(outcome.error),
        fingerprint=fingerprint(outcome.error),
        fingerprint_version=2,
        attempts=attempt.number,
        first_failed_at=earlier.first_failed_at if earlier else attempt.failing_since or now,
        last_failed_at=now,
        source_queue=queue,
        service=rules.service,
        version=rules.version,
        replays=earlier.replays if earlier else 0,
    )
    ours = {FAILURE_ATTRIBUTE: record.model_dump_json(ensure_ascii=True)}
    return attributes_beside(delivery.body, ours, given(delivery))


def fingerprint(error: BaseException) -> str:
    """The same for the same error that said the same at the same place of a service, in every version that only moves lines.

    Type and place alone hide causes from each other: most errors are PermanentErrors, and one place reads every object.
    """
    frames = (frame for frame in frames_of(error) if not frame.startswith("shared.consumer."))
    return fingerprint_of(type(error).__qualname__, *frames, normalised(_message(error)))


def error_text(error: BaseException) -> str:
    """The text of one of our errors; for any other only its place, because its text may quote a row.

    A text may quote an object's key from a message, which may be of any length and hold lone surrogates.
    """
    if isinstance(error, _OURS):
        return _cut(str(error), _LOGGED_BYTES_MAXIMUM)
    return f"unexpected {type(error).__qualname__} in {place_of(error)}; its text is withheld, it may quote a row"


def _message(error: BaseException) -> str:
    return _cut(error_text(error), FAILURE_TEXT_BYTES_MAXIMUM)


def _cut(text: str, byte_count: int) -> str:
    return text.encode(errors="backslashreplace")[:byte_count].decode(errors="ignore")
