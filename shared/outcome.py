"""What becomes of a delivery: one of four outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from contracts.failure import FailureReason


@dataclass(frozen=True, slots=True)
class Done:
    """The message has had its effect: delete it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed: show the message again after `delay`."""

    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Defer:
    """Too early, but nothing failed: send a copy that is visible after `delay` (SQS: at most 15 minutes), then delete this one.

    The copy counts its attempts from one, and remembers when the message was first deferred: after the consumer's `defer_limit`
    it becomes a dead letter, since what it waits for does not come.
    """

    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """No attempt will help: move the message to the dead-letter queue, with `error` in its failure record."""

    reason: FailureReason
    error: BaseException


Outcome = Done | Retry | Defer | DeadLetter
