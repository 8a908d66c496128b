"""The rows that could not become star rows, for the quarantine: which row, which table, why, and the row itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pandas as pd

from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.quarantine import RECORD, Problem, RefusedRow
from contracts.tables import SourceTable
from services.remodelling.transform import Remodelled
from shared.codecs import codec_of
from shared.source_keys import keys_of

LONG_VALUE = 10_000  # characters shown of a text; a replay reads the row from the landing bucket


def refused_rows(
    contract: Contract,
    base_rows: Mapping[str, pd.DataFrame],
    results: Iterable[Remodelled],
    whole_runs: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[RefusedRow]:
    """One entry per base row and warehouse table that refused it. `base_rows` and `whole_runs` are by source table."""
    for result in results:
        if not result.refusals:
            continue
        source, base = contract.source_table(result.table.source), base_rows[result.table.source]
        reasons: dict[int, list[Problem]] = {}
        for refusal in result.refusals:
            for position in refusal.rows.index[refusal.rows]:  # the filter may have left out some of the base's
                reasons.setdefault(position, []).append(Problem(column=refusal.column, reason=refusal.reason))
        refused = base.loc[list(reasons)]
        keys = keys_of(source, refused)
        columns = {
            column.name: [_shown(value, column.type) for value in refused[column.name].tolist()] for column in source.columns
        }
        versions = _versions(source, refused)
        for number, problems in enumerate(reasons.values()):
            yield RefusedRow(
                table=result.table.name,
                source_table=source.name,
                key=dict(zip(source.key, keys[number], strict=True)),
                problems=tuple(problems),
                row={name: values[number] for name, values in columns.items()},
                order=(whole_runs.get(source.name, 0), versions[number]),
            )


def _versions(source: SourceTable, rows: pd.DataFrame) -> list[int | None]:
    """What tells the images of one key apart before their runs do; NULL if it could not be read."""
    version = source.dataset.version if source.dataset is not None else None
    return [None] * len(rows) if version is None else [None if pd.isna(one) else int(one) for one in rows[version]]


def unreadable_records(contract: Contract, records: Mapping[str, Sequence[str]]) -> Iterator[RefusedRow]:
    """One entry per record without a readable key and warehouse table that would have a row of it."""
    for source, defects in records.items():
        for star in contract.remodelled_from(source):
            for defect in defects:
                place, reason, text = defect.split("\n", 2)  # as services/ingestion/spool.py has joined them
                problems, row = (Problem(column="", reason=reason),), {RECORD: text} if text else {}
                yield RefusedRow(table=star.name, source_table=source, key={}, record=place, problems=problems, row=row)


def _shown(value: Any, kind: ColumnType) -> int | bool | str | None:
    """A value as a person writes it, without the rest of a long text."""
    if pd.isna(value):
        return None
    shown: int | bool | str = codec_of(kind).shown(value)
    if isinstance(shown, str) and len(shown) > LONG_VALUE:
        return f"{shown[:LONG_VALUE]}… ({len(shown):,} characters)"
    return shown
