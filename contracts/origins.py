"""Where a warehouse column comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FromSource:
    """The value of a column of the base table; NULL becomes `absent` where one is given."""

    column: str
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class FromLookup:
    """The value of a column of a joined table; NULL becomes `absent` where one is given."""

    lookup: str
    column: str
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class DateOf:
    """The calendar date of a timestamp of the base table; where it is NULL, that of the timestamp `absent`."""

    column: str
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class TimeOf:
    """The time of day of a timestamp of the base table, to the microsecond; where it is NULL, that of `absent`."""

    column: str
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedDate:
    """The date that a text of the base table spells as YYYY-MM-DD; any other text sends its row to quarantine."""

    column: str


@dataclass(frozen=True, slots=True)
class CurrencyNameOf:
    """The ISO 4217 name of the alphabetic code in a column of the base table; an unknown code sends its row to quarantine."""

    column: str


@dataclass(frozen=True, slots=True)
class CalendarPart:
    """A part of the calendar's own date; `part` is one of contracts.calendar's names."""

    part: str


Origin = FromSource | FromLookup | DateOf | TimeOf | ParsedDate | CurrencyNameOf | CalendarPart
