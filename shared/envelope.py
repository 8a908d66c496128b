"""The CloudEvents attributes of a new message: where it comes from, what caused it, which trace it belongs to."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TypedDict
from uuid import UUID, uuid4, uuid5

from contracts.messages import Message


class Envelope(TypedDict):
    """Keyword arguments of every message model."""

    id: UUID
    source: str
    time: datetime
    traceparent: str
    causationid: UUID | None


def opening(source: str) -> Envelope:
    """The envelope of a message that no message of ours caused: it opens a trace."""
    return Envelope(id=uuid4(), source=source, time=datetime.now(UTC), traceparent=_traceparent(), causationid=None)


def caused_by(cause: Message, source: str, *, subject: UUID, name: str) -> Envelope:
    """The envelope of a message that `cause` led to. Sent twice it has the same id: that of `subject` and `name`."""
    return Envelope(
        id=message_id(subject, name),
        source=source,
        time=datetime.now(UTC),
        traceparent=_traceparent(cause.traceparent),
        causationid=cause.id,
    )


def message_id(subject: UUID, name: str) -> UUID:
    """The id of the message `name` about `subject`: the same each time, also for a reader who looks for the message later."""
    return uuid5(subject, name)


def _traceparent(parent: str | None = None) -> str:
    """A new span of the parent's trace, or of a new one (W3C Trace Context)."""
    trace = secrets.token_hex(16) if parent is None else parent.split("-")[1]
    return f"00-{trace}-{secrets.token_hex(8)}-01"
