"""The key of a dimension that stands for no row at all: why it can't be what a contract says. Pure."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from contracts.column_types import DATE, UUID, ColumnType
from contracts.tables import Dimension

if TYPE_CHECKING:
    from contracts.contract import Contract


def unknown_problems(contract: Contract, dimension: Dimension) -> Iterator[str]:
    """Why `unknown` can't be a key of the dimension, or a value of the columns that refer to it."""
    if dimension.unknown is None:
        return
    if len(dimension.key) != 1:
        yield f"'{dimension.name}' has `unknown`, but its key is not one column"
        return
    referring = [(fact.name, column) for fact, column in contract.references_to(dimension.name)]
    if not referring:
        yield f"'{dimension.name}' has `unknown`, but no fact refers to it"
    for table, column in [(dimension.name, dimension.column(dimension.key[0])), *referring]:
        if (problem := _unfit(dimension.unknown, column.type)) is not None:
            yield f"'{table}.{column.name}' can't hold `unknown: {dimension.unknown}`, {problem}"


def _unfit(text: str, kind: ColumnType) -> str | None:
    """Why a text does not spell a value of a type as PostgreSQL does."""
    try:
        if kind.is_whole_number:
            fits = str(int(text)) == text and kind.unscaled is not None and int(text) in kind.unscaled
        elif kind == DATE:
            fits = dt.date.fromisoformat(text).isoformat() == text
        elif kind == UUID:
            fits = str(uuid.UUID(text)) == text
        elif kind.is_text:
            fits = "\x00" not in text and (not kind.length or len(text) <= kind.length)
        else:
            return f"for it is {kind.family}: only an integer, a bigint, a text, a date or a uuid may be unknown"
    except ValueError:
        fits = False
    return None if fits else f"which is not a value of {kind.sql} as PostgreSQL writes it"
