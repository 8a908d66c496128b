"""The types that the source's columns have, and whether every value of them can be carried and compared as a contract says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from contracts.column_types import ColumnType, Kind, is_same_type
from contracts.tables import SourceTable

_ACCEPTED: Mapping[Kind, re.Pattern[str]] = {
    Kind.INTEGER: re.compile(r"smallint|integer"),
    Kind.BIGINT: re.compile(r"smallint|integer|bigint"),
    Kind.NUMERIC: re.compile(r"numeric(?:\((?P<precision>\d+),(?P<scale>-?\d+)\))?"),
    Kind.BOOLEAN: re.compile(r"boolean"),
    Kind.DATE: re.compile(r"date"),
    Kind.TIME: re.compile(r"time(\(\d\))? without time zone"),
    Kind.TIMESTAMP: re.compile(r"timestamp(\(\d\))? without time zone"),
    Kind.TIMESTAMPTZ: re.compile(r"timestamp(\(\d\))? with time zone"),
    Kind.ENUM: re.compile(r"text|character varying(\(\d+\))?"),
}
_COMPARED_BY_ITS_TEXT = frozenset({"text", "character varying", "bpchar"})


@dataclass(frozen=True, slots=True)
class SourceType:
    """A column's type as format_type() spells it; for a domain its base type, with its own name in `domain`.

    `unbounded` is the type without its bounds. `is_foreign` if it does not ship with PostgreSQL. `loose_collation` is the name
    of a collation under which different texts are equal.
    """

    name: str
    unbounded: str
    domain: str | None
    is_enum: bool
    is_string: bool
    is_foreign: bool
    loose_collation: str | None

    def __str__(self) -> str:
        return f"{self.domain} (a domain over {self.name})" if self.domain else self.name

    @property
    def is_padded(self) -> bool:
        """Whether it is character(n): two values that differ in blanks at the end are equal."""
        return self.unbounded == "bpchar"


def fits(found: SourceType, expected: ColumnType) -> bool:
    """Whether values can be carried as `expected`; of an unbounded numeric, the ones that fit."""
    if expected.kind is Kind.VERBATIM:
        return any(name and is_same_type(name, expected.name) for name in (found.name, found.unbounded, found.domain))
    if found.is_enum:
        return expected.is_text
    if expected.kind is Kind.TEXT:
        return found.is_string or found.is_foreign
    match = _ACCEPTED[expected.kind].fullmatch(found.name)
    if match is not None and expected.kind is Kind.NUMERIC and match["precision"]:
        precision, scale = int(match["precision"]), int(match["scale"])
        return scale <= expected.scale and precision - scale <= expected.precision - expected.scale
    return match is not None


def other_way(found: SourceType, expected: ColumnType) -> str:
    """What the contract may say instead, as a part of the sentence that refuses the column."""
    is_numeric = expected.kind is Kind.NUMERIC and found.unbounded == "numeric"
    return f" to verbatim('{found.name}')" if is_numeric else ""


def comparison_problem(table: SourceTable, column: str, found: SourceType, keys: Mapping[str, SourceType]) -> str | None:
    """Why a text column that is a key, or is compared with `keys` (by table), can't be compared by its text."""
    if not found.is_enum and found.unbounded not in _COMPARED_BY_ITS_TEXT:
        return (
            f"is {found}, which PostgreSQL does not compare by its text; a key, and what refers to one, must be text or varchar"
        )
    if found.loose_collation is not None:
        return (
            f"has the collation {found.loose_collation}, under which different texts are equal; a key, and what refers to one, "
            "must have a deterministic collation"
        )
    labels = [name for name, key in keys.items() if key.is_enum and key.name != found.name]
    if labels:
        return f"is {found}, but the key of '{labels[0]}' that it refers to is {keys[labels[0]].name}; give both one type"
    padded = [name for name, key in keys.items() if key.is_padded]
    if padded and column in table.key and not found.is_padded:
        return (
            f"is {found} and a key, and is compared with the key of '{padded[0]}' without blanks at the end; give both one type"
        )
    return None
