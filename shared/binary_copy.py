"""Rows of a data frame in the binary form of PostgreSQL's COPY, column by column.

asyncpg's `copy_records_to_table` encodes one Python object after the other, which costs many times as much. The form is that of
https://www.postgresql.org/docs/current/sql-copy.html: a row is its number of fields, and each field its number of bytes, or -1
for NULL, and the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from struct import Struct
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from contracts.column_types import ColumnType
from shared.codecs import codec_of

ROWS_AT_ONCE = 20_000  # encoded in one go: a few MiB, some hundredths of a second
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
_FIELDS, _LENGTH = Struct(">h"), Struct(">i")
_NULL = _LENGTH.pack(-1)

Matrix: TypeAlias = "np.ndarray[Any, Any]"  # bytes, as many in each row
Piece: TypeAlias = "Matrix | list[bytes]"  # a part of each row


def binary_copy(frame: pd.DataFrame, types: Mapping[str, ColumnType], constants: Sequence[bytes] = ()) -> Iterator[bytes]:
    """What COPY … WITH (FORMAT binary) reads: the columns of `types`, then a field with each of the `constants`.

    Raises: OverflowError for a number that its type can't hold.
    """
    yield _HEADER
    first = _FIELDS.pack(len(types) + len(constants))
    last = b"".join(_LENGTH.pack(len(value)) + value for value in constants)
    for start in range(0, len(frame), ROWS_AT_ONCE):
        part = frame.iloc[start : start + ROWS_AT_ONCE]
        fields = (_texts(part[name]) if kind.travels_as_text else _numbers(part[name], kind) for name, kind in types.items())
        yield _side_by_side([_repeated(first, len(part)), *fields, _repeated(last, len(part))])
    yield _TRAILER


def _numbers(column: pd.Series[Any], kind: ColumnType) -> Piece:
    absent = column.isna().to_numpy()
    values = column.to_numpy(dtype="int64", na_value=0)
    parts = [np.ascontiguousarray(part).view("u1").reshape(len(values), -1) for part in codec_of(kind).binary(values)]
    length = _LENGTH.pack(sum(part.shape[1] for part in parts))
    matrix = np.concatenate([_repeated(length, len(values)), *parts], axis=1)
    if not absent.any():
        return matrix
    rows = _rows_of(matrix)
    for row in np.flatnonzero(absent):
        rows[row] = _NULL
    return rows


def _texts(column: pd.Series[Any]) -> list[bytes]:
    known: dict[Any, bytes] = {}
    for text in column.unique():
        if isinstance(text, str):
            body = text.encode()
            known[text] = _LENGTH.pack(len(body)) + body
    return [known.get(text, _NULL) for text in column.tolist()]


def _side_by_side(pieces: Sequence[Piece]) -> bytes:
    """Every row's bytes. Neighbours of one length each become one before Python touches the rows."""
    columns = list[list[bytes]]()
    for is_list, group in groupby(pieces, lambda piece: isinstance(piece, list)):
        neighbours: list[Any] = list(group)
        if is_list:
            columns += neighbours
            continue
        matrix = np.concatenate(neighbours, axis=1)
        if len(neighbours) == len(pieces):
            return matrix.tobytes()
        columns += [_rows_of(matrix)] if matrix.shape[1] else []
    return b"".join(chain.from_iterable(zip(*columns, strict=True)))


def _repeated(piece: bytes, rows: int) -> Matrix:
    return np.broadcast_to(np.frombuffer(piece, "u1"), (rows, len(piece)))


def _rows_of(matrix: Matrix) -> list[bytes]:
    rows: list[bytes] = np.ascontiguousarray(matrix).view(f"V{matrix.shape[1]}")[:, 0].tolist()
    return rows
