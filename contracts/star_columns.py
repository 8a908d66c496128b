"""What a document leaves out about columns of the star: types, and the form in which values travel. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.column_types import DATE, INTEGER, TEXT, TIME, ColumnType, Kind
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, Origin, ParsedDate, TimeOf
from contracts.tables import Calendar, Column

_PART_TYPES = {"date": DATE, "day_name": TEXT, "month_name": TEXT}


def calendar(name: str, parts: Mapping[str, str]) -> Calendar:
    """The calendar whose columns hold these parts of a date."""
    columns = (Column(column, _PART_TYPES.get(part, INTEGER), CalendarPart(part)) for column, part in parts.items())
    key = tuple(column for column, part in parts.items() if part == "date")
    return Calendar(name, key[:1], tuple(columns))


def copied(found: ColumnType, wanted: ColumnType | None) -> tuple[ColumnType, ColumnType | None]:
    """The type in the star of a column that is copied, and the form in which it travels if that is not the source's."""
    if wanted is None:
        return (TEXT if found.is_text else found), None
    if (found.is_text and wanted.is_text) or (found.kind is wanted.kind is Kind.NUMERIC and found.scale == wanted.scale):
        return wanted, None
    return wanted, wanted


def made_from(kind: str, column: str, lookup: str | None, absent: str | None) -> tuple[Origin, ColumnType]:
    """The origin of a kind (document.Column.ORIGINS) that makes another type of a column's values, and that type."""
    match kind:
        case "date_of":
            return DateOf(column, absent, lookup), DATE
        case "time_of":
            return TimeOf(column, absent, lookup), TIME
        case "parsed_date":
            return ParsedDate(column, lookup), DATE
        case _:
            return CurrencyNameOf(column, lookup), TEXT
