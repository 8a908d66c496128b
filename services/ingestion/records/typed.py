"""From records to a frame in the form of shared.codecs, as if a database had been read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
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
    columns = {column.name: _values(column, found, table) for column in table.stored_columns}
    keyless = dict[int, str]()
    for name in table.key:
        for row, value in enumerate(columns[name]):
            if value is None or isinstance(value, Unfit):
                keyless.setdefault(row, f"{name} is {'NULL' if value is None else value.what}")
    if keyless:
        bad += [
            BadRecord(found[row].place, f"has no key that can be read: {why}", _beginning(found[row]))
            for row, why in keyless.items()
        ]
        found = [one for row, one in enumerate(found) if row not in keyless]
        columns = {name: [value for row, value in enumerate(values) if row not in keyless] for name, values in columns.items()}
    places = [one.place for one in found]
    frame = _frame(table, columns, _defects(table, columns, places), len(found))
    known = {*columns, *table.others}
    names = set[str]().union(*(one.values for one in found)) - known  # noqa: PD011 (not of pandas)
    return TypedRecords(frame, places, sorted(bad, key=lambda one: one.place), frozenset(names))


class _Parsed(dict[str, Any]):
    """The value of each text that has been seen: columns repeat theirs."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._codec = codec

    def __missing__(self, text: str) -> Any:
        try:
            value = self._codec.delivered(text)
        except (ValueError, OverflowError, RecursionError):
            value = Unfit(f"not {self._codec.delivered_form}")
        self[text] = value
        return value


def _values(column: SourceColumn, records: Sequence[Record], table: SourceTable) -> list[Any]:
    """The values of a column in the form of a frame; None for NULL, Unfit for one that can't be read."""
    name, parsed = column.name, _Parsed(codec_of(column.type))
    is_json = column.type.name == "jsonb" and form_of(table).format in {Format.JSON, Format.JSON_LINES}
    values = (one.values.get(name) for one in records)  # noqa: PD011 (not of pandas)
    if is_json:
        return [None if value is None else _json(value) for value in values]
    return [
        parsed[value] if type(value) is str else None if value is None else _of_text(_text(value, column), parsed)
        for value in values
    ]


def _of_text(text: str | Unfit, parsed: Mapping[str, Any]) -> Any:
    return parsed[text] if isinstance(text, str) else text


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


def _beginning(record: Record) -> str:
    return beginning(json.dumps(record.values, ensure_ascii=False, default=str))


def _defects(table: SourceTable, columns: dict[str, list[Any]], places: Sequence[int]) -> list[str | None]:
    """Which values of each row can't be read, which become None in `columns`."""
    found = dict[int, str]()
    for column in table.stored_columns:
        values = columns[column.name]
        if Unfit not in set(map(type, values)):
            continue
        for row, value in enumerate(values):
            if isinstance(value, Unfit):
                values[row] = None
                before = f"{found[row]}; " if row in found else ""
                found[row] = f"{before}{column.name} is {value.what}"
    defects: list[str | None] = [None] * len(places)
    for number, row in enumerate(sorted(found)):
        placed = f" ({place_word(table)} {places[row]})" if number < PLACED_DEFECTS else ""
        defects[row] = found[row] + placed
    return defects


def _frame(table: SourceTable, columns: Mapping[str, list[Any]], defects: Sequence[str | None], row_count: int) -> pd.DataFrame:
    own: dict[str, list[Any]] = {table.defect: list(defects)}
    if table.key_text is not None:
        spell = [codec_of(table.column(name).type).spelled_key for name in table.key]
        keys = zip(*(columns[name] for name in table.key), strict=True)
        own[table.key_text] = [
            json.dumps([one(value) for one, value in zip(spell, key, strict=True)], ensure_ascii=False) for key in keys
        ]
    values = own | dict(columns)
    return pd.DataFrame(
        {name: _series(values[name], codec_of(kind).frame) for name, kind in table.extract_types.items()},
        index=pd.RangeIndex(row_count),
    )


def _series(values: list[Any], form: Any) -> Any:
    if form == "object":
        return pd.Series(values, dtype=object)
    is_null = np.fromiter((value is None for value in values), dtype=bool, count=len(values))
    if is_null.any():
        values = [0 if value is None else value for value in values]
    if form == "boolean":
        return pd.arrays.BooleanArray(np.array(values, dtype=bool), is_null)
    return pd.arrays.IntegerArray(np.array(values, dtype="int64"), is_null)
