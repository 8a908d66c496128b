"""Where a warehouse column comes from.

An origin's `lookup` names the lookup whose row holds its columns; None: the base row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from contracts.expression_parts import columns_read
from contracts.expressions import Expression


@dataclass(frozen=True, slots=True)
class FromSource:
    """The value of a column of the base table."""

    lookup: ClassVar[None] = None
    column: str
    absent: str | None = None  # the text that replaces NULL


@dataclass(frozen=True, slots=True)
class FromLookup:
    """The value of a column of a joined table."""

    lookup: str
    column: str
    absent: str | None = None  # the text that replaces NULL, also that of a row that does not exist


@dataclass(frozen=True, slots=True)
class DateOf:
    """The calendar date of a timestamp, in UTC."""

    column: str
    absent: str | None = None  # the timestamp of the same row to use where the first is NULL
    lookup: str | None = None


@dataclass(frozen=True, slots=True)
class TimeOf:
    """The time of day of a timestamp, in UTC, to the microsecond."""

    column: str
    absent: str | None = None  # the timestamp of the same row to use where the first is NULL
    lookup: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedDate:
    """The date that a text spells as YYYY-MM-DD; any other text sends its row to quarantine."""

    column: str
    lookup: str | None = None


@dataclass(frozen=True, slots=True)
class CurrencyNameOf:
    """The ISO 4217 name of an alphabetic code; an unknown code sends its row to quarantine."""

    column: str
    lookup: str | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """The value of an expression; one that the column's type cannot hold sends its row to quarantine."""

    expression: Expression

    @property
    def lookups(self) -> tuple[str | None, ...]:
        """The lookups whose rows it reads; None: the base row."""
        return tuple(dict.fromkeys(column.lookup for column in columns_read(self.expression)))


@dataclass(frozen=True, slots=True)
class CalendarPart:
    """A part of the calendar's own date."""

    lookup: ClassVar[None] = None
    part: str  # a name of contracts.calendar.CALENDAR_PARTS


Origin = FromSource | FromLookup | DateOf | TimeOf | ParsedDate | CurrencyNameOf | Computed | CalendarPart
