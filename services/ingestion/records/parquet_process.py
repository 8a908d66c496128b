"""The process that reads Parquet: it writes the records of a file as JSON lines, with every number exact, decimals as texts."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial, reduce
from typing import Any, BinaryIO

from fastparquet import ParquetFile, parquet_thrift

from services.ingestion.delivery import UnreadableDeliveryError
from services.ingestion.records.parquet_records import REFUSED
from shared.codecs.codec import MIB

_ROW_GROUP_BYTES = 256 * MIB  # of the columns that are read, before compression
_ROW_GROUP_VALUES = 20_000_000  # likewise: a dictionary makes their bytes few
_ROWS = 10_000  # that are objects of Python at a time
_MEMORY = 4 * 1024 * MIB  # of addresses
_PER_SECOND = {"MILLIS": 10**3, "MICROS": 10**6, "NANOS": 10**9}


def main(number: int, columns: Mapping[str, tuple[bool, bool]]) -> None:
    """Write the records of the file of that number to stdout; or why they can't be read, and exit."""
    with suppress(ValueError, OSError):  # a system without this limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        with open(number, "rb") as file:
            write_lines(file, columns, sys.stdout.buffer)
    except UnreadableDeliveryError as error:
        sys.stderr.write(str(error))
        sys.exit(REFUSED)
    except Exception as error:  # noqa: BLE001 (of any type, with a text that may quote the file)
        sys.stderr.write(f"it is damaged, or not Parquet that can be read ({type(error).__name__}); write it again")
        sys.exit(REFUSED)


def write_lines(file: BinaryIO, columns: Mapping[str, tuple[bool, bool]], output: BinaryIO) -> None:
    """Write the records. Of each column: whether it has whole numbers, and whether bytes. Raises: UnreadableDeliveryError."""
    parquet = ParquetFile(file, verify=True)
    elements = dict(_single_values(parquet._schema))  # noqa: SLF001 (see shared/parquet.py)
    if missing := [name for name in columns if name not in elements]:
        shown = ", ".join(map(repr, list(elements)[:20]))
        columns_missing, advice = ", ".join(map(repr, missing)), "correct its columns, or those of the contract"
        raise UnreadableDeliveryError(f"it has no column {columns_missing} of single values; it has {shown}; {advice}")
    meanings = {name: _meaning(name, elements[name], *of) for name, of in columns.items()}
    for element in elements.values():  # the numbers and bytes as they are: see shared/parquet.py
        element.converted_type = element.logicalType = None
    parquet._base_dtype = None  # noqa: SLF001
    parquet.fmd.key_value_metadata = []
    parquet._set_attrs()  # noqa: SLF001
    encode = json.JSONEncoder(ensure_ascii=False).encode
    new: dict[str, Any] = dict.fromkeys(elements.keys() - columns.keys())
    for group in parquet.row_groups:
        read = [one.meta_data for one in group.columns if _text(one.meta_data.path_in_schema[0]) in columns]
        if (
            sum(one.total_uncompressed_size for one in read) > _ROW_GROUP_BYTES
            or group.num_rows * len(columns) > _ROW_GROUP_VALUES
        ):
            size = f"{_ROW_GROUP_BYTES // MIB} MiB or {_ROW_GROUP_VALUES // 10**6} million values"
            raise UnreadableDeliveryError(f"it has a row group of more than {size}; write smaller ones")
    for frame in parquet.iter_row_groups(columns=list(columns), categories=[], index=False):
        for start in range(0, len(frame), _ROWS):
            rows = frame.iloc[start : start + _ROWS].astype(object)
            values = [map(meanings[name], rows[name].where(rows[name].notna(), None)) for name in columns]
            for row in zip(*values, strict=True):
                output.write(f"{encode(new | dict(zip(columns, row, strict=True)))}\n".encode())
                new = {}


def _meaning(name: str, element: Any, is_whole: bool, is_bytes: bool) -> Callable[[Any], Any]:  # noqa: FBT001 (of the command)
    """What turns a value of the file, or NULL, into one of JSON. Raises: UnreadableDeliveryError for a type without one."""
    physical, converted = parquet_thrift.Type, parquet_thrift.ConvertedType
    kind, meant, logical = element.type, element.converted_type, element.logicalType
    unit, is_utc = _time_unit(element)
    turn: Callable[[Any], Any] | None = None
    if meant == converted.DECIMAL or (logical and logical.DECIMAL):
        scale = element.scale if element.scale is not None else logical.DECIMAL.scale
        turn = partial(_decimal, scale=scale, length=element.type_length or 0)
    elif kind == physical.BYTE_ARRAY:
        turn = (lambda value: "\\x" + value.hex()) if is_bytes else bytes.decode
    elif kind == physical.BOOLEAN:
        turn = bool
    elif kind in {physical.FLOAT, physical.DOUBLE} and is_whole:  # pandas writes whole numbers so where one is NULL
        turn = _whole
    elif meant == converted.DATE or (logical and logical.DATE):
        turn = _day
    elif unit is not None:
        turn = partial(_moment, unit=unit, zone="Z" if is_utc else "") if _is_timestamp(element) else partial(_time, unit=unit)
    elif kind in {physical.INT32, physical.INT64} and not (logical and logical.INTEGER and not logical.INTEGER.isSigned):
        turn = int if meant not in {converted.UINT_32, converted.UINT_64} else None
    if turn is None:
        raise UnreadableDeliveryError(
            f"its column '{name}' has the type {_name_of(kind, physical)}, which is not exact or does not say what its "
            "values mean; write a DECIMAL, a TIMESTAMP or a text"
        )
    known = turn
    return lambda value: None if value is None else known(value)


def _single_values(schema: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The columns that are not nested, by name. The schema is a tree, written from its root on."""

    def end(at: int) -> int:
        return reduce(lambda after, _: end(after), range(schema[at].num_children or 0), at + 1)

    at = 1
    while at < len(schema):
        if not schema[at].num_children and schema[at].repetition_type != parquet_thrift.FieldRepetitionType.REPEATED:
            yield _text(schema[at].name), schema[at]
        at = end(at)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _name_of(kind: int, names: Any) -> str:
    return next((name for name in dir(names) if getattr(names, name) == kind), "group")


def _is_timestamp(element: Any) -> bool:
    if element.logicalType is not None:
        return element.logicalType.TIMESTAMP is not None
    return element.converted_type in {
        parquet_thrift.ConvertedType.TIMESTAMP_MILLIS,
        parquet_thrift.ConvertedType.TIMESTAMP_MICROS,
    }


def _time_unit(element: Any) -> tuple[int | None, bool]:
    """How many parts of a second a time or a timestamp counts, and whether it is UTC."""
    logical = element.logicalType and (element.logicalType.TIMESTAMP or element.logicalType.TIME)
    if logical:
        unit = next(count for name, count in _PER_SECOND.items() if getattr(logical.unit, name) is not None)
        return unit, bool(logical.isAdjustedToUTC)
    units = {f"{kind}_{name}": count for name, count in _PER_SECOND.items() for kind in ("TIME", "TIMESTAMP")}
    converted = {getattr(parquet_thrift.ConvertedType, name, None): count for name, count in units.items()}
    return converted.get(element.converted_type) if element.converted_type is not None else None, True


def _decimal(value: Any, scale: int, length: int) -> str:
    """A decimal of its last digits, a number or bytes. numpy strips the zeros at the end of bytes of fixed length."""
    number = int.from_bytes(value.ljust(length, b"\0"), "big", signed=True) if isinstance(value, bytes) else int(value)
    digits = str(abs(number)).rjust(scale + 1, "0")
    whole, decimals = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return f"{'-' * (number < 0)}{whole}{'.' * (scale > 0)}{decimals}"


def _whole(value: Any) -> str:
    return f"{Decimal(float(value)):f}"


def _day(value: Any) -> str:
    return str(date(1970, 1, 1) + timedelta(int(value)))


def _moment(value: Any, unit: int, zone: str) -> str:
    seconds, rest = divmod(int(value), unit)
    return (
        f"{(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).replace(tzinfo=None)}{_fraction(rest, unit)}{zone}"
    )


def _time(value: Any, unit: int) -> str:
    seconds, rest = divmod(int(value), unit)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{_fraction(rest, unit)}"


def _fraction(rest: int, unit: int) -> str:
    return f".{rest:0{len(str(unit)) - 1}}"


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
