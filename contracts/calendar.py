"""The parts of a date that a calendar dimension may have; the date itself as the text YYYY-MM-DD."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from contracts.column_types import Kind

DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTH_NAMES = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

CALENDAR_PARTS: Mapping[str, Callable[[dt.date], object]] = MappingProxyType(
    {
        "date": lambda date: date.isoformat(),
        "year": lambda date: date.year,
        "month": lambda date: date.month,
        "day": lambda date: date.day,
        "day_of_week": lambda date: date.weekday(),  # Monday = 0
        "day_name": lambda date: DAY_NAMES[date.weekday()],
        "month_name": lambda date: MONTH_NAMES[date.month - 1],
        "quarter": lambda date: (date.month + 2) // 3,
    }
)
PART_KINDS: Mapping[str, Kind] = MappingProxyType({"date": Kind.DATE, "day_name": Kind.TEXT, "month_name": Kind.TEXT})


def part_problems(part: str, kind: Kind, *, is_key: bool) -> Iterator[str]:
    """What is wrong with a column of this kind for the calendar's `part`; whole numbers may be integer or bigint."""
    if part not in CALENDAR_PARTS:
        yield f"is not a part of a date; the calendar has {sorted(CALENDAR_PARTS)}"
    elif kind not in ({PART_KINDS[part]} if part in PART_KINDS else {Kind.INTEGER, Kind.BIGINT}):
        yield f"is {kind} but contains the calendar's '{part}', which is {PART_KINDS.get(part, Kind.INTEGER)}"
    elif is_key and part != "date":
        yield "is in the key of a calendar, which must be the date alone"
