"""How often a message has failed, and since when: what of it SQS forgets stands in the attributes of a copy.

A copy is a new message to SQS, which counts its receipts from one. Every copy that we send of an unfinished message says what
happened before; ids make it harmless that a crash between sending the copy and deleting the original leaves both.
"""

from __future__ import annotations

from datetime import UTC, datetime

from shared.queue import Delivery
from shared.wire_form import attributes_beside

ATTEMPTS_ATTRIBUTE = "starlift.attempts"  # how many attempts had failed when the copy was sent
FAILING_ATTRIBUTE = "starlift.failing_since"  # when the first of them failed, in ISO 8601
DEFERRED_ATTRIBUTE = "starlift.deferred_since"  # when the message was deferred first, in ISO 8601
_OURS = frozenset({ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE, DEFERRED_ATTRIBUTE})
_DIGITS_MAXIMUM = 9  # of a count that we wrote; a longer one is hand-made


def attempt_number(delivery: Delivery) -> int:
    """Which attempt this delivery is, from 1: those that failed before it was copied, and how often SQS has handed it out."""
    return _failed_before_copy(delivery) + delivery.receive_count


def failing_since(delivery: Delivery, now: datetime) -> datetime:
    """When the first attempt failed, or began: SQS tells no better. On the first attempt: now."""
    known = _time(delivery, FAILING_ATTRIBUTE)
    if known is None and attempt_number(delivery) > 1:
        known = delivery.first_received_at
    return now if known is None else min(known, now)


def deferred_since(delivery: Delivery, now: datetime) -> datetime:
    """When the message was deferred first. If never: now."""
    known = _time(delivery, DEFERRED_ATTRIBUTE)
    return now if known is None else min(known, now)


def handed_over(delivery: Delivery, now: datetime) -> dict[str, str]:
    """The attributes of a copy that stands for a delivery in which nothing failed: it counts the attempts before this one."""
    failed = attempt_number(delivery) - 1
    since = {FAILING_ATTRIBUTE: failing_since(delivery, now).isoformat()} if failed else {}
    is_deferred = DEFERRED_ATTRIBUTE in delivery.attributes
    waiting = {DEFERRED_ATTRIBUTE: deferred_since(delivery, now).isoformat()} if is_deferred else {}
    return attributes_beside(delivery.body, {ATTEMPTS_ATTRIBUTE: str(failed), **since, **waiting}, given(delivery))


def deferred(delivery: Delivery, now: datetime) -> dict[str, str]:
    """The attributes of a copy for later: it counts its attempts from one, and says since when the message has waited."""
    ours = {DEFERRED_ATTRIBUTE: deferred_since(delivery, now).isoformat()}
    return attributes_beside(delivery.body, ours, given(delivery))


def given(delivery: Delivery) -> dict[str, str]:
    """The attributes of the message without what is ours: a dead letter that is replayed starts afresh."""
    return {name: value for name, value in delivery.attributes.items() if name not in _OURS}


def _failed_before_copy(delivery: Delivery) -> int:
    text = delivery.attributes.get(ATTEMPTS_ATTRIBUTE, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAXIMUM else 0


def _time(delivery: Delivery, attribute: str) -> datetime | None:
    """The time in UTC; None also for a text made by hand."""
    try:
        time = datetime.fromisoformat(delivery.attributes.get(attribute, ""))
        return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
