"""Rows of a data frame in the binary form of PostgreSQL's COPY, column by column.

asyncpg's `copy_records_to_table` encodes one Python object after the other, which costs many times as much. The form is that of
https://www.postgresql.org/docs/current/sql-copy.html: a row is its number of fields, and each field its number of bytes, or -1
for NULL, and the bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import asyncpg
import numpy as np
import pandas as pd

from contracts.column_types import BIGINT, BOOLEAN, TEXT, ColumnType
from shared.codecs import codec_of

ROWS_AT_ONCE = 20_000  # encoded in one go: a few MiB, some hundredths of a second
BYTES_AT_ONCE = 16 * 1024 * 1024  # of these rows, with each text as long as the longest of its column; one row may exceed it
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
_COUNT, _LENGTH = ">i2", ">i4"

Array: TypeAlias = "np.ndarray[Any, Any]"
Field: TypeAlias = "tuple[Array, list[Array]]"  # the number of bytes, of each row or of all, and what they are


def binary_copy(frame: pd.DataFrame, types: Mapping[str, ColumnType], constants: Sequence[bytes] = ()) -> Iterator[bytes]:
    """What COPY … WITH (FORMAT binary) reads: the columns of `types`, then a field with each of the `constants`.

    Raises: OverflowError for a number that its type can't hold.
    """
    yield _HEADER
    last = [(np.array(len(value), _LENGTH), [np.array(value, f"V{len(value)}")]) for value in constants]
    for start in range(0, len(frame), ROWS_AT_ONCE):
        yield from _encoded(frame.iloc[start : start + ROWS_AT_ONCE], types, last)
    yield _TRAILER


async def copy_rows(
    connection: asyncpg.Connection, schema: str | None, table: str, columns: Iterable[str], pieces: Iterable[bytes]
) -> None:
    """Copy rows in binary form into columns of a table, of `schema` or a temporary one."""

    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    await connection.copy_to_table(table, schema_name=schema, columns=list(columns), source=arriving(), format="binary")


def staged_type(kind: ColumnType) -> ColumnType:
    """The type of the column of a staging table that holds values of `kind` as they are in a data frame."""
    return {"text": TEXT, "boolean": BOOLEAN, "bigint": BIGINT}[codec_of(kind).staged]


def _encoded(rows: pd.DataFrame, types: Mapping[str, ColumnType], last: Sequence[Field]) -> Iterator[bytes]:
    """Some rows, in halves if texts are so long that they would take too much memory side by side."""
    fields, room = list[Field](), BYTES_AT_ONCE
    for name, kind in types.items():
        field = _texts(rows[name], room) if kind.travels_as_text else _numbers(rows[name], kind)
        if field is None:
            yield from _encoded(rows.iloc[: len(rows) // 2], types, last)
            yield from _encoded(rows.iloc[len(rows) // 2 :], types, last)
            return
        fields.append(field)
        room -= sum(values.nbytes for values in field[1])
    yield _side_by_side(len(rows), [*fields, *last])


def _numbers(column: pd.Series[Any], kind: ColumnType) -> Field:
    absent = column.isna().to_numpy()
    values = codec_of(kind).binary(column.to_numpy(dtype="int64", na_value=0))
    length = np.array(sum(part.itemsize for part in values), _LENGTH)
    return np.where(absent, -1, length).astype(_LENGTH) if absent.any() else length, values


def _texts(column: pd.Series[Any], room: int) -> Field | None:
    """Each text as long as the longest, or None if so they take more bytes than there is room for.

    `factorize` gives NULL the place -1, the last one.
    """
    places, texts = pd.factorize(column)
    encoded = [text.encode() for text in texts]
    lengths = np.array([*map(len, encoded), -1], _LENGTH)
    longest = max(1, lengths.max())
    if longest * len(column) > room and len(column) > 1:
        return None
    return lengths[places], [np.array([*encoded, b""], f"S{longest}")[places]]


def _side_by_side(row_count: int, fields: Sequence[Field]) -> bytes:
    """Every row's bytes: all fields in one array of equally long rows, without the bytes that a shorter field leaves over."""
    parts, shorter = [np.array(len(fields), _COUNT)], list[tuple[int, int, Array]]()
    for length, values in fields:
        parts.append(length)
        if length.ndim:
            shorter.append((len(parts), len(parts) + len(values), length))
        parts += values
    layout = np.dtype([(str(place), part.dtype) for place, part in enumerate(parts)])
    rows = np.empty(row_count, layout)
    for place, part in enumerate(parts):
        rows[str(place)] = part
    if not shorter:
        return rows.tobytes()
    matrix = rows.view("u1").reshape(row_count, layout.itemsize)
    ends = np.cumsum([0, *(part.itemsize for part in parts)])
    is_part = np.ones(matrix.shape, dtype=bool)
    for start, stop, length in shorter:
        is_part[:, ends[start] : ends[stop]] = np.arange(ends[stop] - ends[start]) < length[:, np.newaxis]
    return matrix[is_part].tobytes()
