"""The parts of a date that a calendar dimension may have; the date itself as the text YYYY-MM-DD."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from types import MappingProxyType

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
