"""How numbers, times and texts that are not ours are written in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

REASONS_SHOWN = 5
HEADING = "source "  # and its name: begins what a command prints about one of several sources
COMPLAINT = "starlift: "  # begins the sentence that a failed command prints


def reasons_in_words(reasons: Mapping[str, int]) -> Iterator[str]:
    """Each reason why rows are stuck with the number of rows, up to REASONS_SHOWN reasons."""
    for reason, count in list(reasons.items())[:REASONS_SHOWN]:
        yield f"{counted(count, 'row', 'rows')}: {reason}" if count else reason
    if len(reasons) > REASONS_SHOWN:
        yield f"{len(reasons) - REASONS_SHOWN:,} more reasons; `starlift verify --json` lists them all"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def clock(moment: datetime, precision: str = "seconds") -> str:
    """A time of UTC, to the second or as `precision` says: "microseconds"."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(' ', precision)} UTC"


def printable(value: object) -> str:
    """Escape what would steer a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
