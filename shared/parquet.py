"""Parquet files of data frames in the form of shared.codecs, by fastparquet, with every value exact.

In the file the numbers carry their logical types (DECIMAL, DATE, TIME, TIMESTAMP), so that every other reader sees true values.
fastparquet would write Decimal objects as DOUBLE and read a DECIMAL as float; therefore the annotation is put on after its
writer has encoded the numbers, and taken off before its reader sees them. The functions used for that are not public: the
version is pinned, and a test reads the files with another engine.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import fastparquet
import pandas as pd
from fastparquet import parquet_thrift
from fastparquet.cencoding import ThriftObject
from fastparquet.writer import MARKER, iter_dataframe, make_metadata, make_row_group, write_thrift

from contracts.column_types import ColumnType
from shared.codecs import codec_of
from shared.codecs.codec import narrowed

# Its fastest level: at the default one, rows take a third more CPU time and 7 % less room.
_COMPRESSION = {"_default": {"type": "ZSTD", "args": {"level": 1}}}
_UNMASKED = {"Int64": "int64", "Int32": "int32", "boolean": "bool"}
COMPRESSED_ROWS = 1_000  # from here on: to set a compressor up takes longer than to encode a column of fewer
_CARRIED = "starlift.carried"  # in a file's metadata: the columns that no contract knows


class NewerColumnsError(ValueError):
    """A file was made under a contract that this build does not know. Recovery: wait until the deployment is through."""


def empty_frame(types: Mapping[str, ColumnType]) -> pd.DataFrame:
    """A frame of no rows with the physical form of `types`."""
    return pd.DataFrame({name: pd.Series(dtype=codec_of(kind).frame) for name, kind in types.items()})


def encode_parquet(frame: pd.DataFrame, types: Mapping[str, ColumnType], carried: Collection[str] = ()) -> bytes:
    """The Parquet file of `frame`, whose columns are those of `types` in their physical form; one row group.

    Those of the columns that are `carried` are noted in the file's metadata as columns that no contract knows.
    """
    physical = pd.DataFrame({name: _physical(frame[name], codec_of(kind).file) for name, kind in types.items()}, copy=False)
    texts = {name: "utf8" for name, kind in types.items() if kind.travels_as_text}
    metadata = make_metadata(physical, has_nulls=True, object_encoding=texts, index_cols=[])
    compression = _COMPRESSION if len(physical) >= COMPRESSED_ROWS else None
    file = io.BytesIO()
    file.write(MARKER)
    groups = [
        group
        for part in iter_dataframe(physical, None)
        if (group := make_row_group(file, part, metadata.schema, compression=compression, stats=False)) is not None
    ]
    metadata.schema = [metadata.schema[0], *(_annotated(element, types) for element in metadata.schema[1:])]
    metadata.row_groups = groups
    metadata.num_rows = len(physical)
    if carried:
        noted = ThriftObject.from_fields("KeyValue", key=_CARRIED, value=json.dumps(list(carried)))
        metadata.key_value_metadata = [*metadata.key_value_metadata, noted]
    footer_bytes = write_thrift(file, metadata)
    file.write(struct.pack("<I", footer_bytes))
    file.write(MARKER)
    return file.getvalue()


def _physical(column: pd.Series, kind: Any) -> Any:
    """A column as it is written; without a mask if it has no NULL, which takes fastparquet a quarter less time.

    Raises: OverflowError for a number that the file's type can't hold.
    """
    if kind == "Int32":
        narrowed(column.to_numpy("int64", na_value=0), "i4")
    is_plain = isinstance(kind, str) and kind in _UNMASKED and not column.hasnans
    return column.to_numpy(_UNMASKED[kind]) if is_plain else column.astype(kind)


def decode_parquet(body: bytes, types: Mapping[str, ColumnType]) -> pd.DataFrame:
    """The rows of a file that encode_parquet made of exactly `types`, in their physical form; what was carried is left out.

    Raises: NewerColumnsError for a column that `types` lacks or that has another scale; KeyError for one that the file lacks.
    """
    file = _opened(body)
    require_all_known(_known_columns(file), types)
    return _decoded(file, types)


def decode_columns(body: bytes, types: Mapping[str, ColumnType]) -> pd.DataFrame:
    """Some columns of a file that encode_parquet made, in their physical form, whatever others it has.

    Raises: NewerColumnsError for one that has another scale; KeyError for one that the file lacks.
    """
    return _decoded(_opened(body), types)


def known_columns(body: bytes) -> list[str]:
    """The columns of a file that encode_parquet made, without those that were carried."""
    return _known_columns(_opened(body))


def widened(frame: pd.DataFrame, types: Mapping[str, ColumnType]) -> pd.DataFrame:
    """The rows with all columns of `types`: NULL where `frame` has none."""
    nothing = [None] * len(frame)
    columns = {
        name: frame[name] if name in frame else pd.Series(nothing, frame.index, codec_of(kind).frame)
        for name, kind in types.items()
    }
    return pd.DataFrame(columns, copy=False)


def require_all_known(columns: Iterable[str], types: Mapping[str, ColumnType]) -> None:
    """Raises: NewerColumnsError for a column of a file that `types` lacks: leaving it out would lose it silently."""
    if unknown := [name for name in columns if name not in types]:
        raise NewerColumnsError(
            f"the file has columns that this build's contract does not have: {unknown}; deploy the newer contract"
        )


def require_fit(columns: Collection[str], scales: Mapping[str, int], types: Mapping[str, ColumnType]) -> None:
    """Check a file's columns, and the scales of its decimals: at another one they would be other numbers.

    Raises: KeyError for a column that the file lacks; NewerColumnsError for another scale.
    """
    if missing := [name for name in types if name not in columns]:
        raise KeyError(f"the file has no column {missing}; it has {list(columns)}")
    for name, kind in types.items():
        if scales.get(name, kind.scale) != kind.scale:
            raise NewerColumnsError(
                f"column '{name}' of the file has scale {scales[name]}, but this build's contract has {kind.sql}; "
                "deploy the newer contract"
            )


def _opened(body: bytes) -> fastparquet.ParquetFile:
    """The file, if it is one: fastparquet reads beyond the end of other bytes, which can crash the process."""
    return fastparquet.ParquetFile(io.BytesIO(body), verify=True)


def _decoded(file: fastparquet.ParquetFile, types: Mapping[str, ColumnType]) -> pd.DataFrame:
    scales = {_name(element): element.scale or 0 for element in file._schema[1:]}  # noqa: SLF001 (see the module's docstring)
    require_fit(_known_columns(file), scales, types)
    for element in file._schema[1:]:  # noqa: SLF001
        if element.type != parquet_thrift.Type.BYTE_ARRAY:
            element.converted_type = None
            element.logicalType = None
    file._base_dtype = None  # noqa: SLF001
    frame: pd.DataFrame = file.to_pandas(columns=list(types))
    return frame.astype({name: codec_of(kind).frame for name, kind in types.items() if not kind.travels_as_text})


def _known_columns(file: fastparquet.ParquetFile) -> list[str]:
    """The columns that a contract names; a carried column is a text, whatever type a later contract gives it."""
    carried = json.loads(file.key_value_metadata.get(_CARRIED, "[]"))
    return [name for name in file.columns if name not in carried]


def _name(element: Any) -> str:
    return element.name.decode() if isinstance(element.name, bytes) else str(element.name)


def _annotated(element: Any, types: Mapping[str, ColumnType]) -> Any:
    """The schema element with the logical type of its column."""
    kind = types[_name(element)]
    logical = codec_of(kind).logical
    if logical is None:
        return element
    bounds: dict[str, int] = {}
    meaning: dict[str, Any] = {}
    if kind.precision:
        bounds = {"precision": kind.precision, "scale": kind.scale}
        meaning = {"i32": True, **bounds}
    elif logical.name != "DATE":
        meaning = {"isAdjustedToUTC": logical.is_utc, "unit": ThriftObject.from_fields("TimeUnit", MICROS={})}
    described = ThriftObject.from_fields(f"{logical.name.title()}Type", **meaning)
    return parquet_thrift.SchemaElement(
        name=element.name,
        type=element.type,
        repetition_type=element.repetition_type,
        converted_type=getattr(parquet_thrift.ConvertedType, logical.converted),
        logicalType=ThriftObject.from_fields("LogicalType", **{logical.name: described}),
        i32=True,
        **bounds,
    )
