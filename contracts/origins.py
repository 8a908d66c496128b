"""Where a warehouse column comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FromSource:
    """The value of a column of the base table."""

    column: str  # of the base table
    absent: str | None = None  # the text that replaces NULL


@dataclass(frozen=True, slots=True)
class FromLookup:
    """The value of a column of a joined table."""

    lookup: str  # the joined table
    column: str  # of the joined table
    absent: str | None = None  # the text that replaces NULL


@dataclass(frozen=True, slots=True)
class DateOf:
    """The calendar date of a timestamp, in UTC."""

    column: str  # of the base table
    absent: str | None = None  # the timestamp of the base table to use where the first is NULL


@dataclass(frozen=True, slots=True)
class TimeOf:
    """The time of day of a timestamp, in UTC, to the microsecond."""

    column: str  # of the base table
    absent: str | None = None  # the timestamp of the base table to use where the first is NULL


@dataclass(frozen=True, slots=True)
class ParsedDate:
    """The date that a text of the base table spells as YYYY-MM-DD; any other text sends its row to quarantine."""

    column: str  # of the base table


@dataclass(frozen=True, slots=True)
class CurrencyNameOf:
    """The ISO 4217 name of the alphabetic code in a column of the base table; an unknown code sends its row to quarantine."""

    column: str  # of the base table


@dataclass(frozen=True, slots=True)
class CalendarPart:
    """A part of the calendar's own date."""

    part: str  # a name of contracts.calendar.CALENDAR_PARTS


Origin = FromSource | FromLookup | DateOf | TimeOf | ParsedDate | CurrencyNameOf | CalendarPart
