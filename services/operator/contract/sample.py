"""A data set as a sample of its records suggests it: their form, the columns with their types, and the key. All are guesses."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NoReturn

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    JSONB,
    MAX_SCALED_DIGITS,
    TEXT,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    ColumnType,
    numeric,
    verbatim,
)
from contracts.tables import NAME_BYTES_MAXIMUM
from services.operator.errors import UsageError
from shared.codecs import codec_of

RECORDS = 1_000  # that are looked at
FIELD_MAXIMUM = 131_072  # characters
_BYTES = 16 * 2**20  # that are read of a file
_DELIMITERS = ",;\t|"
_KEY_COLUMNS = 3  # at most, of a guessed key
_DECIMALS = 9  # a number with more of them stays a numeric without bounds
_GROWTH = 100  # so many times greater may values be than those of the sample
_WHOLE = re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII)  # 007 is a text
_NUMBER = re.compile(rf"{_WHOLE.pattern}(?:\.\d+)?", re.ASCII)
_KEY_NAME = re.compile(r"(?:.*[_ ])?(?:id|key|code|no|number|uuid)|.*[a-z]Id", re.IGNORECASE)
_OF_TEXTS = (DATE, TIMESTAMPTZ, TIMESTAMP)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # without dashes it may be any hash
_EXPONENT = 100  # of a number of JSON that is written out
_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".json": "json", ".jsonl": "json_lines", ".ndjson": "json_lines"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The first records of a file."""

    name: str  # for the data set, made of the file's
    form: Mapping[str, str]  # `file` of a document
    records: Sequence[Mapping[str, Any]]

    @property
    def types(self) -> dict[str, ColumnType]:
        """The columns, in the order in which they appear."""
        names = dict.fromkeys(name for record in self.records for name in record)
        is_csv = self.form["format"] == "csv"
        return {name: _type([*self._given(name)], is_csv=is_csv) for name in names}

    def _given(self, name: str) -> Iterator[Any]:
        return (record[name] for record in self.records if record.get(name) not in (None, ""))

    def key(self) -> tuple[str, ...]:
        """The fewest columns that tell all records apart; none if there are no such columns.

        Ids come before dates, and both before others. Several columns are tried in the order of the file, ids and dates first.
        """
        kinds = self.types
        fit = {
            name: _KEY_NAME.fullmatch(name) is not None
            for name, kind in kinds.items()
            if kind.may_be_key and not kind.is_decimal and kind != BOOLEAN and len([*self._given(name)]) == len(self.records)
        }
        alone = sorted(fit, key=lambda name: (not fit[name], kinds[name] != DATE))
        together = sorted(fit, key=lambda name: not fit[name] and kinds[name] != DATE)
        for count in range(1, _KEY_COLUMNS + 1):
            for names in combinations(alone if count == 1 else together, count):
                if len({tuple(str(record[name]) for name in names) for record in self.records}) == len(self.records):
                    return tuple(name for name in kinds if name in names)
        return ()


def is_sample(name: str) -> bool:
    """Whether a text that may be the URL of a database names a file of records."""
    return "://" not in name and Path(name).suffix.lower() in _SUFFIXES


def read_sample(path: Path) -> Sample:
    """The first records of a file. Raises: UsageError, without any value of a record."""
    text, encoding = _text(path)
    form = {"format": _SUFFIXES[path.suffix.lower()]}
    if form["format"] == "json" and encoding != "utf-8":
        _refuse(path, "is not UTF-8, as JSON has to be; convert it")
    match form["format"]:
        case "csv":
            delimiter, records = _csv_records(path, text)
            form |= {"delimiter": delimiter} if delimiter != "," else {}
        case "json_lines":
            records = _json_lines(path, text)
        case _:
            place, records = _json_records(path, text)
            form |= {"records": place} if place else {}
    form |= {"encoding": encoding} if encoding != "utf-8" else {}
    if not records:
        _refuse(path, f"has no record in its first {_BYTES // 2**20} MiB; take a sample that has some")
    for name in dict.fromkeys(name for record in records for name in record):
        if not name.isprintable() or not 0 < len(name.encode()) <= NAME_BYTES_MAXIMUM:
            _refuse(path, f"has a column whose name is empty, unprintable or longer than {NAME_BYTES_MAXIMUM} bytes; rename it")
    return Sample(re.sub(r"[^A-Za-z0-9_-]", "_", path.stem).lstrip("_-")[:50] or "records", form, records)


def _refuse(path: Path, why: str) -> NoReturn:
    raise UsageError(f"'{path}' {why}")


def _text(path: Path) -> tuple[str, str]:
    """The beginning of a file, without a line that is cut off there, and its encoding."""
    try:
        with path.open("rb") as file:
            start = file.read(_BYTES)
            start = start[: start.rfind(b"\n") + 1] if file.read(1) else start
    except OSError as error:
        _refuse(path, f"can't be read ({error.strerror}); correct the path")
    for encoding in ("utf-8", "cp1252"):
        with suppress(UnicodeDecodeError):
            if "\x00" not in (text := start.decode(encoding)):
                return text.removeprefix("\ufeff"), encoding
    _refuse(path, "is neither UTF-8 nor Windows-1252; convert it to UTF-8")


def _csv_records(path: Path, text: str) -> tuple[str, list[Mapping[str, Any]]]:
    lines = [*io.StringIO(text, newline="")]
    csv.field_size_limit(FIELD_MAXIMUM)  # of the process
    try:
        headers = {delimiter: next(csv.reader(lines, delimiter=delimiter), []) for delimiter in _DELIMITERS}
        delimiter = max(headers, key=lambda one: len(headers[one]))
        rows = [*islice(csv.reader(lines, delimiter=delimiter), 1, RECORDS + 1)]
    except csv.Error:
        _refuse(
            path,
            f"is not CSV: it has a field of more than {FIELD_MAXIMUM:,} characters, perhaps after an open quote; correct it",
        )
    header = headers[delimiter]
    if not all(header) or len(set(header)) < len(header):
        _refuse(path, "has a column without a name in its first line, or two of one name; correct the line")
    return delimiter, [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def _json_lines(path: Path, text: str) -> list[Mapping[str, Any]]:
    records = [_parsed(path, line) for line in islice(filter(str.strip, text.split("\n")), RECORDS)]
    return (
        records
        if all(isinstance(one, dict) for one in records)
        else _refuse(path, "has a line that is not an object; correct it")
    )


def _json_records(path: Path, text: str) -> tuple[str, list[Mapping[str, Any]]]:
    """The first array of objects, nearest to the root, and the keys that lead to it."""
    waiting = [("", _parsed(path, text))]
    for place, value in waiting:
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return place, value[:RECORDS]
        if isinstance(value, dict):
            waiting += [(f"{place}.{key}".lstrip("."), one) for key, one in value.items() if key and "." not in key]
    _refuse(path, "has no array of objects; take a sample that has records")


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError):
        _refuse(path, f"is not JSON, or has more than {_BYTES // 2**20} MiB; take its first records as a sample")


def _type(values: Sequence[Any], *, is_csv: bool) -> ColumnType:
    """The narrowest type that holds the values, with room for greater ones; a text where there is any doubt."""
    if not values:
        return TEXT
    if all(isinstance(value, bool) for value in values):
        return BOOLEAN
    if any(isinstance(value, dict | list | bool) for value in values):
        return JSONB
    texts = [format(one, "f") if isinstance(one, Decimal) and abs(one.adjusted()) < _EXPONENT else str(one) for one in values]
    if is_csv or not any(isinstance(value, str) for value in values):
        if all(map(_WHOLE.fullmatch, texts)):
            most = max(abs(int(text)) for text in texts) * _GROWTH
            return INTEGER if most < 2**31 else BIGINT if most < 2**63 else verbatim("numeric")
        if all(map(_NUMBER.fullmatch, texts)):
            scale = max(len(text.partition(".")[2]) for text in texts)
            digits = max(len(text.partition(".")[0].lstrip("-")) for text in texts) + scale
            is_small = scale <= _DECIMALS and digits + 2 <= MAX_SCALED_DIGITS
            return numeric(MAX_SCALED_DIGITS, scale) if is_small else verbatim("numeric")
        if {text.lower() for text in texts} <= {"true", "false"}:
            return BOOLEAN
    if all(map(_UUID.fullmatch, texts)):
        return UUID
    return next((kind for kind in _OF_TEXTS if all(_reads(kind, text) for text in texts)), TEXT)


def _reads(kind: ColumnType, text: str) -> bool:
    try:
        codec_of(kind).delivered(text)
    except (ValueError, OverflowError):
        return False
    return True
