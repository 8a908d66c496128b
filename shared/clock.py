"""The wall clock, for what people read and for what outlives a process; spans are measured by the event loop's clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
PAUSE_MINIMUM, PAUSE_MAXIMUM = timedelta(milliseconds=250), timedelta(seconds=2)  # between two looks while a command waits


def utc_now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def pause(waited_s: float) -> timedelta:
    """How long to wait before the next check: a tenth of the wait so far, so a long one ends only a little late."""
    return min(max(PAUSE_MINIMUM, timedelta(seconds=waited_s / 10)), PAUSE_MAXIMUM)
