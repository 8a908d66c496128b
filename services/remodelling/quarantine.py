"""The rows that could not become star rows, as JSON lines: which row, which table, why, and the row itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from contracts.tables import SourceTable
from services.remodelling.transform import Remodelled
from shared.codecs import codec_of
from shared.key_lists import keys_of

LONG_VALUE = 10_000  # characters shown of a text; a replay reads the row from the landing bucket


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
            column.name: [
                None if pd.isna(value) else codec_of(column.type).shown(value) for value in refused[column.name].tolist()
            ]
            for column in source.columns
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
