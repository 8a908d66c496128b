"""What a delivery says about earlier attempts at its message, parsed once.

SQS counts the receipts of a message and knows when the first was. A copy is a new message to SQS, which counts its receipts
from one; so every copy that we send of an unfinished message carries in its attributes what happened before. A crash between
sending the copy and deleting the original leaves both: ids make that harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.queue import Delivery
from shared.wire_form import attributes_beside

ATTEMPTS_ATTRIBUTE = "starlift.attempts"  # how many attempts had failed when the copy was sent
FAILING_ATTRIBUTE = "starlift.failing_since"  # when the first of them failed, in ISO 8601
DEFERRED_ATTRIBUTE = "starlift.deferred_since"  # when the message was first deferred, in ISO 8601
_OURS = frozenset({ATTEMPTS_ATTRIBUTE, FAILING_ATTRIBUTE, DEFERRED_ATTRIBUTE})
_DIGITS_MAXIMUM = 9  # of a count that we wrote; a longer one is hand-made


@dataclass(frozen=True, slots=True)
class Attempt:
    """A delivery, and which attempt at its message it is. Times are aware UTC, none later than the parsing."""

    delivery: Delivery
    number: int  # from 1: the attempts that failed before the message was copied, and how often SQS has handed it out
    failing_since: datetime | None  # when the first attempt failed, or began; None if none has failed
    deferred_since: datetime | None  # when the message was first deferred; None if it never was

    def copy_attributes(self) -> dict[str, str]:
        """The attributes of a copy that takes the place of a delivery in which nothing failed: this attempt is not counted."""
        ours = {ATTEMPTS_ATTRIBUTE: str(self.number - 1)}
        if self.number > 1 and self.failing_since is not None:
            ours[FAILING_ATTRIBUTE] = self.failing_since.isoformat()
        if self.deferred_since is not None:
            ours[DEFERRED_ATTRIBUTE] = self.deferred_since.isoformat()
        return self.attributes_with(ours)

    def deferral_attributes(self, now: datetime) -> dict[str, str]:
        """The attributes of a copy for later: it counts its attempts from one, and says since when the message has waited."""
        return self.attributes_with({DEFERRED_ATTRIBUTE: (self.deferred_since or now).isoformat()})

    def attributes_with(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Attributes of ours, and the sender's as far as there is room."""
        return attributes_beside(self.delivery.body, ours, sender_attributes(self.delivery))


def read_attempt(delivery: Delivery, now: datetime) -> Attempt:
    """Parse the attributes of a delivery; a hand-made count counts nothing, and a hand-made time is ignored."""
    text = delivery.attributes.get(ATTEMPTS_ATTRIBUTE, "")
    is_ours = text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAXIMUM
    number = (int(text) if is_ours else 0) + delivery.receive_count
    failing = _time(delivery, FAILING_ATTRIBUTE) or (delivery.first_received_at if number > 1 else None)
    deferred = _time(delivery, DEFERRED_ATTRIBUTE)
    return Attempt(delivery, number, failing and min(failing, now), deferred and min(deferred, now))


def sender_attributes(delivery: Delivery) -> dict[str, str]:
    """The attributes of a delivery without what they say about earlier attempts: a replayed dead letter starts afresh."""
    return {name: value for name, value in delivery.attributes.items() if name not in _OURS}


def _time(delivery: Delivery, attribute: str) -> datetime | None:
    """The time in UTC; None for a text that is not one."""
    try:
        time = datetime.fromisoformat(delivery.attributes.get(attribute, ""))
        return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
