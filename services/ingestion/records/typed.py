"""From records to a frame in the form of shared.codecs, as if a database had been read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from contracts.datasets import Format
from contracts.tables import SourceColumn, SourceTable
from services.ingestion.delivery import BadRecord, Record
from services.ingestion.records.opened import beginning, form_of
from shared.codecs import codec_of
from shared.codecs.codec import Codec
from shared.codecs.json_text import Unfit, jsonb_text

# Rows of a page whose defects name their place. Remodelling takes the rows of each different defect together.
PLACED_DEFECTS = 100


@dataclass(frozen=True, slots=True)
class TypedRecords:
    """Records with a readable key, as an extract has them, and the others."""

    frame: pd.DataFrame  # the columns of `extract_types`
    places: list[int]  # of the rows of `frame`
    bad: list[BadRecord]
    new_columns: frozenset[str]  # that the contract does not know


def place_word(table: SourceTable) -> str:
    """What the place of a record counts: lines of a text, or records."""
    return "line" if form_of(table).format in {Format.CSV, Format.JSON_LINES} else "record"


def frame_of(table: SourceTable, records: Sequence[Record | BadRecord]) -> TypedRecords:
    """The rows of a page of records. A value that can't be read is NULL, and its row has a defect that names its column."""
    bad = [one for one in records if isinstance(one, BadRecord)]
    found = [one for one in records if isinstance(one, Record)]
    columns, unfit = dict[str, Any](), dict[str, dict[int, str]]()
    rows = [one.values for one in found]  # noqa: PD011 (not of pandas)
    for column in table.stored_columns:
        columns[column.name], unfit[column.name] = _column(column, [one.get(column.name) for one in rows], table)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(found)))
    keyless = dict[int, str]()
    for name in table.key:
        for row in np.flatnonzero(frame[name].isna()).tolist():
            keyless.setdefault(row, f"{name} is {unfit[name].get(row, 'NULL')}")
    for row, why in keyless.items():
        text = json.dumps(rows[row], ensure_ascii=False, default=str)
        bad.append(BadRecord(found[row].place, f"has no key that can be read: {why}", beginning(text)))
    places = [one.place for one in found]
    frame.insert(0, table.defect, pd.Series(_defects(table, unfit, places), dtype=object))
    if keyless:
        bad.sort(key=lambda one: one.place)
        frame = frame.drop(index=list(keyless)).reset_index(drop=True)
        places = [place for row, place in enumerate(places) if row not in keyless]
    if table.key_text is not None:
        frame.insert(1, table.key_text, pd.Series(_key_texts(table, frame), dtype=object))
    return TypedRecords(frame, places, bad, frozenset(set[str]().union(*rows).difference(columns, table.others)))


def _column(column: SourceColumn, delivered: Sequence[Any], table: SourceTable) -> tuple[Any, dict[int, str]]:
    """The values of a column as an array in the form of a frame; and what those that can't be read are, by row."""
    codec = codec_of(column.type)
    rows = [row for row, value in enumerate(delivered) if value is not None] if None in delivered else range(len(delivered))
    present = delivered if isinstance(rows, range) else [delivered[row] for row in rows]
    texts = _texts(present, column, table)
    unfit = dict[int, str]()
    values: Sequence[Any]
    try:
        values = codec.delivered_all(texts)
    except (ValueError, OverflowError, TypeError):  # the last one: some are no texts
        values = list(map(_Parsed(codec).__getitem__, texts))
        unfit = {row: value.what for row, value in zip(rows, values, strict=True) if isinstance(value, Unfit)}
        rows = [row for row in rows if row not in unfit]
        values = [value for value in values if not isinstance(value, Unfit)]
    return _array(values, rows, len(delivered), codec.frame), unfit


class _Parsed(dict[str | Unfit, Any]):
    """The value of each text that has been seen: columns repeat theirs."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._codec = codec

    def __missing__(self, text: str | Unfit) -> Any:
        try:
            value = self._codec.delivered(text) if isinstance(text, str) else text
        except (ValueError, OverflowError):
            value = Unfit(f"not {self._codec.delivered_form}")
        self[text] = value
        return value


def _texts(values: Sequence[Any], column: SourceColumn, table: SourceTable) -> Sequence[str]:
    """Values that are not NULL, as texts; Unfit for one that has none. A text of JSON is also a jsonb."""
    form = form_of(table).format
    if form is Format.CSV:
        return values
    if column.type.name == "jsonb" and form is not Format.PARQUET:
        return [_json(value) for value in values]  # type: ignore[misc]
    return [value if isinstance(value, str) else _text(value, column) for value in values]  # type: ignore[misc]


def _json(value: object) -> str | Unfit:
    try:
        return jsonb_text(value)
    except ValueError:
        return value if isinstance(value, Unfit) else Unfit("not JSON that PostgreSQL can hold")


def _text(value: object, column: SourceColumn) -> str | Unfit:
    """A value of JSON as the text that PostgreSQL makes of it; a whole number is one however it is written."""
    if isinstance(value, Decimal) and column.type.is_whole_number and value == value.to_integral_value():
        return f"{value:.0f}"
    if isinstance(value, bool | int | Decimal):
        return jsonb_text(value)
    return value if isinstance(value, Unfit) else Unfit("an object or an array")


def _array(values: Sequence[Any], rows: Sequence[int], row_count: int, form: Any) -> Any:
    """An array in the form of a frame, with values in some rows and NULL in the others."""
    kind: Any = {"object": object, "boolean": bool}.get(form, "int64")
    whole = np.full(row_count, None if kind is object else 0, dtype=kind)
    whole[rows if isinstance(rows, list) else slice(None)] = np.fromiter(values, dtype=kind, count=len(values))
    if kind is object:
        return pd.Series(whole, dtype=object)
    is_null = np.ones(row_count, dtype=bool)
    is_null[rows if isinstance(rows, list) else slice(None)] = False
    return pd.arrays.BooleanArray(whole, is_null) if kind is bool else pd.arrays.IntegerArray(whole, is_null)


def _defects(table: SourceTable, unfit: Mapping[str, Mapping[int, str]], places: Sequence[int]) -> list[str | None]:
    """What is wrong with each row, as a text that names its columns."""
    found = dict[int, list[str]]()
    for name, rows in unfit.items():
        for row, what in rows.items():
            found.setdefault(row, []).append(f"{name} is {what}")
    defects: list[str | None] = [None] * len(places)
    for number, row in enumerate(sorted(found)):
        placed = f" ({place_word(table)} {places[row]})" if number < PLACED_DEFECTS else ""
        defects[row] = "; ".join(found[row]) + placed
    return defects


def _key_texts(table: SourceTable, frame: pd.DataFrame) -> list[str]:
    """The key of each row as a JSON array."""
    columns = []
    for name in table.key:
        spelled = cache(codec_of(table.column(name).type).spelled_key)
        columns.append(map(spelled, frame[name].tolist()))
    encode = json.JSONEncoder(ensure_ascii=False).encode
    return [encode(key) for key in zip(*columns, strict=True)]
