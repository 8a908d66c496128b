"""What a dead letter carries: the message as it was, and why it died."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256

from pydantic import ValidationError

from contracts.failure import FAILURE_ATTRIBUTE, FAILURE_TEXT_BYTES_MAXIMUM, FailureRecord
from contracts.messages import NewerMessageError, UndecodableMessageError
from shared.consumer.attempts import attempt_number, failing_since, given
from shared.consumer.rules import Rules
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.logs import frames_of, place_of
from shared.outcome import DeadLetter
from shared.queue import Delivery

_OURS = (TransientError, PermanentError, DependencyDownError, UndecodableMessageError, NewerMessageError)


def dead_letter_attributes(
    delivery: Delivery, outcome: DeadLetter, *, rules: Rules, queue: str, now: datetime
) -> dict[str, str]:
    """The attributes of the dead letter: those that the message was given, and the failure record in one of them.

    An earlier failure record tells when the message failed first and how often it was replayed; who replays it counts that.
    """
    earlier = _earlier_failure(delivery.attributes)
    record = FailureRecord(
        reason=outcome.reason,
        error_type=type(outcome.error).__qualname__,
        message=_clipped(error_text(outcome.error)),
        fingerprint=fingerprint(outcome.error),
        attempts=attempt_number(delivery),
        first_failed_at=earlier.first_failed_at if earlier else failing_since(delivery, now),
        last_failed_at=now,
        source_queue=queue,
        service=rules.service,
        version=rules.version,
        replays=earlier.replays if earlier else 0,
    )
    return {**given(delivery), FAILURE_ATTRIBUTE: record.model_dump_json(ensure_ascii=True)}


def fingerprint(error: BaseException) -> str:
    """The same for the same error at the same place of a service, in every version that only moves lines."""
    frames = (frame for frame in frames_of(error) if not frame.startswith("shared.consumer."))
    return sha256("\n".join((type(error).__qualname__, *frames)).encode()).hexdigest()[:16]


def error_text(error: BaseException) -> str:
    """Our own errors tell their text; any other one tells only where it came from, its text may quote a row."""
    if isinstance(error, _OURS):
        return str(error)
    return f"unexpected {type(error).__qualname__} in {place_of(error)}; its text is withheld, it may quote a row"


def _earlier_failure(attributes: Mapping[str, str]) -> FailureRecord | None:
    text = attributes.get(FAILURE_ATTRIBUTE)
    if text is None:
        return None
    try:
        return FailureRecord.model_validate_json(text)
    except ValidationError:
        return None  # a hand-made attribute must not keep a message from its dead-letter queue


def _clipped(text: str) -> str:
    return text.encode()[:FAILURE_TEXT_BYTES_MAXIMUM].decode(errors="ignore")
