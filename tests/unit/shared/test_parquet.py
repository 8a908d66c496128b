from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from fastparquet.util import ParquetException
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    JSONB,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    ColumnType,
    Kind,
    enum,
    numeric,
    varchar,
)
from shared.codecs import codec_of
from shared.parquet import NewerColumnsError, decode_columns, decode_parquet, empty_frame, encode_parquet

EPOCH = dt.date(1970, 1, 1)
DAY_US = 86_400_000_000
FIRST_DAY, LAST_DAY = (dt.date.min - EPOCH).days, (dt.date.max - EPOCH).days
TYPES = {
    "number": INTEGER,
    "big": BIGINT,
    "money": numeric(10, 2),
    "exact": numeric(18, 6),
    "whole": numeric(18, 0),
    "text": TEXT,
    "code": varchar(3),
    "label": enum("SALE", "PURCHASE"),
    "yes": BOOLEAN,
    "date": DATE,
    "time": TIME,
    "moment": TIMESTAMP,
    "instant": TIMESTAMPTZ,
    "json": JSONB,
}
PLAIN = {name: kind for name, kind in TYPES.items() if name not in {"instant", "json"}}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.integers(-(2**31), 2**31 - 1),
    "big": st.integers(-(2**63), 2**63 - 1),
    "money": st.integers(-(10**10) + 1, 10**10 - 1),
    "exact": st.integers(-(10**18) + 1, 10**18 - 1),
    "whole": st.integers(-(10**18) + 1, 10**18 - 1),
    "text": TEXTS,
    "code": TEXTS.map(lambda text: text[:3]),
    "label": st.sampled_from(["SALE", "PURCHASE"]),
    "yes": st.booleans(),
    "date": st.integers(FIRST_DAY, LAST_DAY),
    "time": st.integers(0, DAY_US - 1),
    "moment": st.integers(FIRST_DAY * DAY_US, (LAST_DAY + 1) * DAY_US - 1),
    "instant": st.integers(FIRST_DAY * DAY_US, (LAST_DAY + 1) * DAY_US - 1),
    "json": TEXTS,
}
Row = tuple[Any, ...]
ROWS: st.SearchStrategy[list[Row]] = st.lists(st.tuples(*(st.none() | values for values in VALUES.values())), max_size=8)


def frame_of(rows: list[Row], types: dict[str, ColumnType] = TYPES) -> pd.DataFrame:
    """Rows of physical values, None for NULL."""
    return pd.DataFrame(
        {
            name: pd.Series([row[index] for row in rows], dtype=codec_of(kind).frame)
            for index, (name, kind) in enumerate(types.items())
        }
    )


def rows_of(frame: pd.DataFrame) -> list[Row]:
    columns = [[None if pd.isna(value) else value for value in frame[name].tolist()] for name in frame.columns]
    return list(zip(*columns, strict=True))


def read_by_another(body: bytes, path: Path) -> tuple[dict[str, str], list[Row]]:
    """A file as read by DuckDB: each column's type, and the rows."""
    path.write_bytes(body)
    found = duckdb.read_parquet(str(path))
    return dict(zip(found.columns, map(str, found.types), strict=True)), found.fetchall()


@given(ROWS)
@settings(deadline=None, max_examples=60)
def test_every_value_comes_back_as_it_was(rows: list[Row]) -> None:
    found = decode_parquet(encode_parquet(frame_of(rows), TYPES), TYPES)
    assert rows_of(found) == rows
    assert [str(found[name].dtype) for name in TYPES] == [codec_of(kind).frame for kind in TYPES.values()]


def test_null_is_none_and_never_confused_with_a_text() -> None:
    texts = [None, "", "NULL", "None", "nan", "NaN", "<NA>", r"\N", " "]
    found = decode_parquet(
        encode_parquet(frame_of([(text,) for text in texts], {"text": TEXT}), {"text": TEXT}), {"text": TEXT}
    )
    assert found["text"].tolist() == texts


def test_a_frame_without_rows_keeps_its_columns() -> None:
    found = decode_parquet(encode_parquet(empty_frame(TYPES), TYPES), TYPES)
    assert list(found.columns) == list(TYPES)
    assert len(found) == 0


@pytest.mark.parametrize("body", [b"no Parquet", b"", b"PAR1" + b"x" * 20])
def test_bytes_of_another_format_are_refused_before_they_are_parsed(body: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ParquetException, match="File parse failed"):
        decode_parquet(body, TYPES)
    assert "Corrupted" not in capfd.readouterr().out


def test_columns_that_are_all_null_come_back() -> None:
    rows: list[Row] = [(None,) * len(TYPES)] * 3
    assert rows_of(decode_parquet(encode_parquet(frame_of(rows), TYPES), TYPES)) == rows


def test_columns_are_written_and_read_in_the_requested_order() -> None:
    body = encode_parquet(frame_of([(1, "a")], {"number": INTEGER, "text": TEXT}), {"text": TEXT, "number": INTEGER})
    assert list(decode_parquet(body, {"text": TEXT, "number": INTEGER}).columns) == ["text", "number"]
    assert rows_of(decode_parquet(body, {"number": INTEGER, "text": TEXT})) == [(1, "a")]


@pytest.mark.parametrize("known", [{"number": INTEGER}, {"number": INTEGER, "renamed": TEXT}])
def test_an_unexpected_column_is_refused_and_not_dropped(known: dict[str, ColumnType]) -> None:
    types = {"number": INTEGER, "text": TEXT}
    body = encode_parquet(frame_of([(1, "a")], types), types)
    with pytest.raises(NewerColumnsError, match=r"columns that this build's contract does not have: \['text'\]"):
        decode_parquet(body, known)


def test_chosen_columns_are_read_whatever_other_columns_the_file_has() -> None:
    types = {"number": INTEGER, "text": TEXT, "money": numeric(10, 2)}
    body = encode_parquet(frame_of([(1, "a", 125), (2, "", None)], types), types)
    assert rows_of(decode_columns(body, {"money": numeric(10, 2), "text": TEXT})) == [(125, "a"), (None, "")]
    with pytest.raises(KeyError, match=r"the file has no column \['renamed'\]"):
        decode_columns(body, {"text": TEXT, "renamed": TEXT})
    with pytest.raises(NewerColumnsError, match="'money' of the file has scale 2"):
        decode_columns(body, {"money": numeric(10, 4)})


@pytest.mark.parametrize("known", [numeric(10, 4), numeric(10, 0), BIGINT])
def test_a_decimal_of_another_scale_is_not_misread(known: ColumnType) -> None:
    body = encode_parquet(frame_of([(125,)], {"money": numeric(10, 2)}), {"money": numeric(10, 2)})
    with pytest.raises(NewerColumnsError, match=r"'money' of the file has scale 2, but this build's contract has"):
        decode_parquet(body, {"money": known})


def test_a_decimal_of_another_precision_is_the_same_number() -> None:
    body = encode_parquet(frame_of([(125,)], {"money": numeric(10, 2)}), {"money": numeric(10, 2)})
    assert rows_of(decode_parquet(body, {"money": numeric(12, 2)})) == [(125,)]


@pytest.mark.parametrize(("written", "read"), [(BIGINT, INTEGER), (INTEGER, BIGINT)])
def test_an_integer_is_read_whichever_of_the_two_types_it_was_written_as(written: ColumnType, read: ColumnType) -> None:
    """Earlier builds wrote every integer in 64 bits; and a contract may make it a bigint."""
    rows = [(-(2**31),), (None,), (2**31 - 1,)]
    assert rows_of(decode_parquet(encode_parquet(frame_of(rows, {"n": written}), {"n": written}), {"n": read})) == rows


@pytest.mark.parametrize("others", [[], [(None,)]])
def test_an_integer_that_has_no_room_is_not_cut_off(others: list[Row]) -> None:
    with pytest.raises(OverflowError, match="a whole number has no room in 4 bytes"):
        encode_parquet(frame_of([(2**31,), *others], {"n": INTEGER}), {"n": INTEGER})


def test_a_missing_column_is_named() -> None:
    body = encode_parquet(frame_of([(1,)], {"number": INTEGER}), {"number": INTEGER})
    with pytest.raises(KeyError, match=r"no column \['text'\]"):
        decode_parquet(body, {"number": INTEGER, "text": TEXT})


def test_the_same_rows_make_the_same_bytes() -> None:
    rows = [(1, None, 250, -1, 7, "é", "GBP", "SALE", True, 0, 1, 2, 3, "{}")]
    assert encode_parquet(frame_of(rows), TYPES) == encode_parquet(frame_of(rows), TYPES)


def test_another_reader_sees_true_types(tmp_path: Path) -> None:
    types, _ = read_by_another(encode_parquet(frame_of([(None,) * len(TYPES)]), TYPES), tmp_path / "rows.parquet")
    assert types == {
        "number": "INTEGER",
        "big": "BIGINT",
        "money": "DECIMAL(10,2)",
        "exact": "DECIMAL(18,6)",
        "whole": "DECIMAL(18,0)",
        "text": "VARCHAR",
        "code": "VARCHAR",
        "label": "VARCHAR",
        "yes": "BOOLEAN",
        "date": "DATE",
        "time": "TIME",
        "moment": "TIMESTAMP",
        "instant": "TIMESTAMP WITH TIME ZONE",
        "json": "VARCHAR",
    }


def test_another_reader_sees_the_instant_whatever_its_own_time_zone(tmp_path: Path) -> None:
    instants = [(FIRST_DAY + 366) * DAY_US, -1, 0, 1_793_525_400_123_456]
    body = encode_parquet(frame_of([(instant,) for instant in instants], {"instant": TIMESTAMPTZ}), {"instant": TIMESTAMPTZ})
    (tmp_path / "rows.parquet").write_bytes(body)
    found = duckdb.read_parquet(str(tmp_path / "rows.parquet")).project("epoch_us(instant)").fetchall()
    assert [instant for (instant,) in found] == instants


def test_another_reader_sees_true_values(tmp_path: Path) -> None:
    leap, last = dt.date(2024, 2, 29), dt.date(9999, 12, 31)
    rows = [
        (-(2**31), 2**63 - 1, -1, 1, 10**18 - 1, "", "£", "SALE", False, FIRST_DAY, 0, FIRST_DAY * DAY_US),
        (
            1,
            -(2**63),
            10**10 - 1,
            -(10**18) + 1,
            0,
            "🚚\n'",
            "x",
            None,
            True,
            LAST_DAY,
            DAY_US - 1,
            (LAST_DAY + 1) * DAY_US - 1,
        ),
        (0, 0, 5, 0, 1, None, None, None, None, (leap - EPOCH).days, 1, 1),
    ]
    _, found = read_by_another(encode_parquet(frame_of(rows, PLAIN), PLAIN), tmp_path / "rows.parquet")
    numbers = [row[2:5] for row in found]
    assert numbers == [
        (Decimal("-0.01"), Decimal("0.000001"), Decimal(10**18 - 1)),
        (Decimal("99999999.99"), Decimal("-999999999999.999999"), Decimal(0)),
        (Decimal("0.05"), Decimal(0), Decimal(1)),
    ]
    assert [row[5] for row in found] == ["", "🚚\n'", None]
    assert [row[8] for row in found] == [False, True, None]
    assert [row[9] for row in found] == [dt.date.min, last, leap]
    assert [row[10] for row in found] == [dt.time.min, dt.time.max, dt.time(0, 0, 0, 1)]
    assert [row[11] for row in found] == [dt.datetime.min, dt.datetime.max, dt.datetime(1970, 1, 1, 0, 0, 0, 1)]  # noqa: DTZ001, DTZ901


def test_every_kind_is_covered() -> None:
    assert {kind.kind for kind in TYPES.values()} == set(Kind)


def test_a_carried_column_is_visible_to_other_readers_only(tmp_path: Path) -> None:
    types = {"number": INTEGER, "colour": TEXT}
    frame = pd.DataFrame({"number": pd.Series([1], dtype="Int64"), "colour": pd.Series(["red"], dtype="object")})
    body = encode_parquet(frame, types, carried=["colour"])
    assert list(decode_parquet(body, {"number": INTEGER}).columns) == ["number"]
    with pytest.raises(KeyError, match=r"the file has no column \['colour'\]"):
        decode_parquet(body, types)
    (tmp_path / "a.parquet").write_bytes(body)
    assert duckdb.read_parquet(str(tmp_path / "a.parquet")).fetchall() == [(1, "red")]
