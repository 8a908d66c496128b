"""The rows that could not become star rows, as JSON lines: which row, which table, why, and the row itself."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pandas as pd

from contracts.column_types import MICROSECONDS_PER_DAY, ColumnType, Kind
from contracts.tables import SourceTable
from services.remodelling.transform import Remodelled
from shared.key_lists import keys_of

LONG_VALUE = 10_000  # characters shown of a text; a replay reads the row from the landing bucket
DAY = dt.timedelta(days=1)
MIDNIGHT = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (the source's timestamps are without time zone)


def quarantine_lines(source: SourceTable, base: pd.DataFrame, results: Iterable[Remodelled]) -> list[str]:
    """One line per row and warehouse table that refused it."""
    lines = []
    for result in results:
        reasons: dict[int, list[dict[str, str]]] = {}
        for problem in result.problems:
            for position in base.index[problem.rows]:
                reasons.setdefault(position, []).append({"column": problem.column, "reason": problem.reason})
        refused = base.loc[list(reasons)]
        keys = keys_of(source, refused)
        columns = {
            column.name: [readable(value, column.type) for value in refused[column.name].tolist()] for column in source.columns
        }
        for number, why in enumerate(reasons.values()):
            row = {name: values[number] for name, values in columns.items()}
            key = dict(zip(source.key, keys[number], strict=True))
            entry = {
                "table": result.table.name,
                "source_table": source.name,
                "key": key,
                "problems": why,
                "row": _cut(row),
            }
            lines.append(json.dumps(entry, ensure_ascii=False))
    return lines


def _cut(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without the rest of its long texts."""
    return {
        name: f"{value[:LONG_VALUE]}… ({len(value):,} characters)"
        if isinstance(value, str) and len(value) > LONG_VALUE
        else value
        for name, value in row.items()
    }


def readable(value: Any, kind: ColumnType) -> Any:
    """A value in its physical form, as a person writes it."""
    if pd.isna(value):
        return None
    match kind.kind:
        case Kind.NUMERIC:
            return f"{Decimal(int(value)).scaleb(-kind.scale):f}"
        case Kind.DATE | Kind.TIMESTAMP | Kind.TIME:
            return _readable_moment(int(value), kind.kind)
        case Kind.TIMESTAMPTZ:
            return f"{_readable_moment(int(value), kind.kind)}+00"
        case Kind.INTEGER | Kind.BIGINT:
            return int(value)
        case Kind.BOOLEAN:
            return bool(value)
        case _:
            return str(value)


def _readable_moment(value: int, kind: Kind) -> str:
    days, microseconds = (value, 0) if kind is Kind.DATE else divmod(value, MICROSECONDS_PER_DAY)
    try:
        moment = MIDNIGHT + days * DAY + dt.timedelta(microseconds=microseconds)
    except OverflowError:
        return f"{days} days and {microseconds} µs from 1970-01-01"
    match kind:
        case Kind.DATE:
            return moment.date().isoformat()
        case Kind.TIME:
            return moment.time().isoformat()
        case _:
            return moment.isoformat(sep=" ")
