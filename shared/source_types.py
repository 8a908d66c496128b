"""The types that the source's columns have, and whether their texts compare as a contract needs it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.tables import SourceTable

_COMPARED_BY_ITS_TEXT = frozenset({"text", "character varying", "bpchar"})


@dataclass(frozen=True, slots=True)
class SourceType:
    """The type of a column; for a domain, its base type."""

    name: str  # as format_type() spells it
    unbounded: str  # the name without bounds
    domain: str | None  # the domain's own name
    is_enum: bool
    is_string: bool  # of PostgreSQL's category of string types
    is_foreign: bool  # it does not ship with PostgreSQL
    loose_collation: str | None  # a collation under which different texts are equal

    def __str__(self) -> str:
        return f"{self.domain} (a domain over {self.name})" if self.domain else self.name

    @property
    def is_padded(self) -> bool:
        """Whether it is character(n): two values that differ in blanks at the end are equal."""
        return self.unbounded == "bpchar"


def comparison_problem(table: SourceTable, column: str, found: SourceType, keys: Mapping[str, SourceType]) -> str | None:
    """Why a text column that is a key, or is compared with `keys` (by name), can't be compared by its text."""
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
