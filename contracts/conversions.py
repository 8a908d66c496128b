"""Which source types may become which contract types, and which compare here as they do in PostgreSQL. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.column_types import UUID, ColumnType, Kind
from contracts.origins import CurrencyNameOf, DateOf, Origin, ParsedDate, TimeOf

KEY_TYPES = "integer, bigint, text, uuid, date, timestamp or timestamptz"


def may_be_key(kind: ColumnType) -> bool:
    """Whether the type can order pages, and its text identify a row."""
    return kind.is_whole_number or kind.kind is Kind.TEXT or kind.is_moment or kind == UUID


def is_same_kind(one: ColumnType, other: ColumnType) -> bool:
    """Whether values of the two have one physical form."""
    return (one.kind, one.name) == (other.kind, other.name)


def join_alike(one: ColumnType, key: ColumnType) -> bool:
    """Whether joining the two in data frames gives the same rows as in PostgreSQL.

    A scaled number is compared by its digits, so 7.00 would match 700. A timestamp key is a number of microseconds, which no
    index of the source supports.
    """
    if key.kind in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        return False
    return is_same_kind(one, key) or (one.is_whole_number and key.is_whole_number) or (one.is_text and key.is_text)


def origin_problems(name: str, found: ColumnType, wanted: ColumnType, absent: str | None) -> Iterator[str]:
    """Why values of the source column `name`, of type `found`, can't be those of a column of type `wanted`."""
    if not is_same_kind(found, wanted) and not (found.is_text and wanted.is_text):
        yield f"is {wanted.family} but comes from '{name}', which is {found.family}"
    if found.scale != wanted.scale:  # a decimal travels as a whole number, which would be misread at another scale
        yield f"is {wanted.sql} but comes from '{name}', which is {found.sql}; give both the same scale"
    if wanted.precision < found.precision:
        yield f"is {wanted.sql}, too narrow for '{name}', which is {found.sql}"
    if absent is not None and not wanted.is_text:
        yield "has a text for absent values but is not a text"


def derivation_problems(origin: Origin, wanted: ColumnType) -> Iterator[str]:
    """Why a value derived from a source column doesn't fit a column of type `wanted`."""
    match origin:
        case DateOf() | ParsedDate() if wanted.kind is not Kind.DATE:
            yield f"is {wanted.kind} but holds a date"
        case TimeOf() if wanted.kind is not Kind.TIME:
            yield f"is {wanted.kind} but holds a time"
        case CurrencyNameOf() if not wanted.is_text:
            yield f"is {wanted.kind} but holds a text"
        case _:
            return
