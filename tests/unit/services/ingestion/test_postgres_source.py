from __future__ import annotations

import csv
import io
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.column_types import BIGINT, BOOLEAN, INTEGER, TEXT, numeric
from services.ingestion.postgres_source import null_marker, parse_csv
from shared.codecs import codec_of

NULL = "5f0e2b7c91ad"
TYPES = {"_defect": TEXT, "number": INTEGER, "big": BIGINT, "money": numeric(18, 2), "yes": BOOLEAN, "text": TEXT, "last": TEXT}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
Row = tuple[Any, ...]


def written(rows: list[Row]) -> bytes:
    """Rows as COPY writes them in CSV: NULL as the marker, a text in quotes where necessary."""
    lines = (",".join(NULL if value is None else field(value) for value in row) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def field(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    text = str(value)
    if text == "" or any(special in text for special in ',"\n\r') or text == r"\.":
        return '"' + text.replace('"', '""') + '"'
    return text


def parsed(rows: list[Row]) -> list[Row]:
    frame = parse_csv(written(rows), TYPES, NULL)
    columns = [[None if pd.isna(value) else value for value in frame[name].tolist()] for name in TYPES]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        'the "Annexe"',
        '"',
        '""',
        "a,b,,c",
        "two\nlines",
        "two\r\nlines",
        "old\rMac",
        "\n",
        "",
        " ",
        "\t",
        r"\N",
        r"\.",
        "\\",
        "NULL",
        "nan",
        "NA",
        "None",
        "N/A",
        "#NAME?",
        "true",
        "007",
        "1e5",
        "1,000",
        "0x10",
        "\ufeffbom",
        "🚚 naïve 大阪",
        "\u2028",
        "\x1a",
        f"{NULL}1",
        "'; DROP TABLE x; --",
    ],
)
def test_a_text_is_read_unchanged(text: str) -> None:
    assert parsed([(None, 1, 2, 3, True, text, "end")]) == [(None, 1, 2, 3, True, text, "end")]
    assert parsed([(None, 1, 2, 3, True, "x", text)]) == [(None, 1, 2, 3, True, "x", text)]


def test_null_and_the_empty_text_are_distinguished_in_every_position() -> None:
    rows: list[Row] = [
        (None, None, None, None, None, None, None),
        (None, 1, 1, 1, False, "", ""),
        ("", 1, 1, 1, True, None, ""),
    ]
    assert parsed(rows) == rows


def test_integers_are_exact_in_columns_with_nulls() -> None:
    rows: list[Row] = [
        (None, 2**31 - 1, 2**63 - 1, 10**18 - 1, True, "", ""),
        (None, None, None, None, None, "", ""),
        (None, -(2**31), -(2**63), -(10**18) + 1, False, "", ""),
        (None, 0, 2**53 + 1, -1, False, "", ""),
    ]
    assert parsed(rows) == rows


def test_a_byte_order_mark_at_the_start_is_kept() -> None:
    assert parsed([("\ufeffdefect", 1, 1, 1, True, "", "")])[0][1:] == (1, 1, 1, True, "", "")
    assert parsed([(None, 1, 1, 1, True, "\ufeff", "")]) == [(None, 1, 1, 1, True, "\ufeff", "")]


def test_an_empty_result_gives_an_empty_frame() -> None:
    frame = parse_csv(b"", TYPES, NULL)
    assert len(frame) == 0
    assert list(frame.columns) == list(TYPES)


def test_every_column_has_the_physical_form_of_its_type() -> None:
    frame = parse_csv(written([(None, 1, 1, 1, True, "x", "y")]), TYPES, NULL)
    assert [str(frame[name].dtype) for name in TYPES] == [codec_of(kind).frame for kind in TYPES.values()]


@given(
    st.lists(
        st.tuples(
            st.none() | TEXTS.filter(lambda text: not text.startswith("\ufeff")),
            st.none() | st.integers(-(2**31), 2**31 - 1),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.integers(-(10**18) + 1, 10**18 - 1),
            st.none() | st.booleans(),
            st.none() | TEXTS,
            st.none() | TEXTS,
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(deadline=None, max_examples=150)
def test_any_rows_are_read_unchanged(rows: list[Row]) -> None:
    assert parsed(rows) == rows


def test_the_csv_writer_of_this_test_is_understood_by_the_csv_module() -> None:
    rows = [("a", 'q"q', "c,c", "l\nl", "")]
    lines = ",".join(field(value) for value in rows[0])
    assert list(csv.reader(io.StringIO(lines, newline=""))) == [list(rows[0])]


def texts_and_numbers(rows: list[tuple[str, int]], null: str) -> list[Row]:
    csv = "".join(f"x,{text},{number}\n" for text, number in rows).encode()
    frame = parse_csv(csv, {"_defect": TEXT, "text": TEXT, "number": INTEGER}, null)
    columns = [[None if pd.isna(value) else value for value in frame[name].tolist()] for name in ("text", "number")]
    return list(zip(*columns, strict=True))


def test_no_value_is_mistaken_for_the_null_marker() -> None:
    rows = [("1712000", 5), ("1712000.0", 6), ("1712e3", 1712000), ("N", 7)]
    assert texts_and_numbers(rows, "000001712000") == [(None, 5), (None, 6), ("1712e3", None), ("N", 7)]
    for _ in range(50):
        null = null_marker()
        assert null.startswith("N")
        assert texts_and_numbers(rows, null) == rows
