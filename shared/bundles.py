"""Bundles of data frames in the form of shared.codecs: of a few rows each, whose frames cost more than their values."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from contracts.bundles import Bundle, TableRows
from contracts.column_types import ColumnType
from shared.codecs import codec_of
from shared.parquet import require_all_known, require_fit

# The name of the rows, the rows, their types, and the columns that no contract knows.
Part: TypeAlias = tuple[str, pd.DataFrame, Mapping[str, ColumnType], Collection[str]]


def encode_bundle(parts: Iterable[Part]) -> bytes:
    """A bundle. Parts of one name, whose columns are the same, become one table; the same parts make the same bytes."""
    tables = dict[str, TableRows]()
    for name, frame, types, carried in parts:
        columns = {column: values_of(frame[column]) for column in types}
        if name in tables:
            for column, values in columns.items():
                tables[name].columns[column] += values
        else:
            scales = {column: kind.scale for column, kind in types.items() if kind.scale}
            tables[name] = TableRows(columns=columns, scales=scales, carried=tuple(carried))
    return gzip.compress(Bundle(tables=tables).model_dump_json().encode(), compresslevel=1, mtime=0)


def decode_bundle(body: bytes) -> Mapping[str, TableRows]:
    """The rows of a bundle by name."""
    return Bundle.model_validate_json(gzip.decompress(body)).tables


def frame_of(rows: TableRows, types: Mapping[str, ColumnType]) -> pd.DataFrame:
    """Rows whose columns are exactly `types`; what was carried is left out.

    Raises: NewerColumnsError for a column that `types` lacks or that has another scale; KeyError for one that the rows lack.
    """
    require_all_known(rows.known, types)
    return some_columns(rows, types)


def some_columns(rows: TableRows, types: Mapping[str, ColumnType]) -> pd.DataFrame:
    """Some columns of rows, which may have others. Raises: as `frame_of`."""
    require_fit(rows.known, dict.fromkeys(rows.known, 0) | rows.scales, types)
    return pd.DataFrame({name: _array(rows.columns[name], codec_of(kind).frame) for name, kind in types.items()}, copy=False)


def _array(values: list[Any], form: str) -> Any:
    """A column of a data frame; `pd.array` takes ten times as long, because it looks at each value."""
    if form == "object":
        return pd.Series(values, dtype=object)  # of an array pandas would make its own texts
    is_null = np.array([value is None for value in values], dtype=bool)
    plain, array = ("int64", pd.arrays.IntegerArray) if form == "Int64" else ("bool", pd.arrays.BooleanArray)
    return array(np.array([value or 0 for value in values], dtype=plain), is_null)


def values_of(column: pd.Series[Any]) -> list[Any]:
    """The values of a column of a data frame: whole numbers, texts, booleans, and None for NULL."""
    values: list[Any] = column.to_numpy(dtype=object, na_value=None).tolist()  # type: ignore[call-overload]  # the stubs know no None
    return values
