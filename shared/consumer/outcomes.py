"""What an error, or a handler's answer, means for a message."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

from contracts.failure import FailureReason
from contracts.messages import NewerMessageError, UndecodableMessageError
from shared.consumer.attempt import Attempt
from shared.consumer.backoff import retry_delay
from shared.consumer.dead_letter import error_text
from shared.consumer.rules import Rules
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.outcome import DeadLetter, Defer, Outcome, Retry

NEWER_MESSAGE_DELAY = timedelta(seconds=60)  # a rolling deployment takes minutes


class DeferredTooLongError(TransientError):
    """What the message waits for has not come: a deployment, the end of another run."""


def decisive(error: Exception) -> Exception:
    """The error of a group that decides: an outage first, since the others may follow from it; then what no attempt helps."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [decisive(leaf) for leaf in error.exceptions]
    for kind in (DependencyDownError, PermanentError):
        found = next((leaf for leaf in leaves if isinstance(leaf, kind)), None)
        if found is not None:
            return found
    return leaves[0]


def outcome_of(error: Exception, attempt: Attempt, rules: Rules, rng: Random) -> Outcome:
    """What an error means for the message, by what recovers it."""
    match error:
        case NewerMessageError():
            return Defer(NEWER_MESSAGE_DELAY, error_text(error))
        case UndecodableMessageError():
            return DeadLetter(FailureReason.UNDECODABLE, error)
        case PermanentError():
            return DeadLetter(FailureReason.PERMANENT, error)
        case _ if attempt.number >= rules.attempts:
            return DeadLetter(FailureReason.EXHAUSTED, error)
        case _:
            return Retry(retry_delay(attempt.number, rng), error_text(error))


def within_limits(outcome: Outcome, attempt: Attempt, rules: Rules, now: datetime) -> Outcome:
    """A handler may ask for another attempt or for a deferral: but not after the last attempt, and not for ever."""
    match outcome:
        case Retry() if attempt.number >= rules.attempts:
            return DeadLetter(FailureReason.EXHAUSTED, TransientError(outcome.reason))
        case Defer() if now - (attempt.deferred_since or now) >= rules.defer_limit:
            advice = f"deferred for longer than {rules.defer_limit}; remove the cause, then replay the dead letters"
            return DeadLetter(FailureReason.EXHAUSTED, DeferredTooLongError(f"{outcome.reason}; {advice}"))
        case _:
            return outcome
