"""What others write is read as it was, however it is spelled."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.datasets import Format, RecordForm
from contracts.tables import SourceTable
from services.ingestion.delivery import UnreadableDeliveryError
from services.ingestion.records.opened import Limits
from shared.parquet import decode_parquet, encode_parquet
from tests.fixtures.data_sets import CSV, EVERY_COLUMN, JSON, LINES, data_set, rows_of, typed, written_as
from tests.fixtures.properties import examples

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
TEXTS |= st.sampled_from(
    ["", '"', '""', ",", "\n", "\r\n", "\r", " a ", "'", "\\N", "NULL", "\u2028", "\x85", "\ufeff", '\\"', "=1+1"]
)
AMOUNTS = st.decimals(min_value=-(10**10) + 1, max_value=10**10 - 1, places=2)
Row = tuple[int, Decimal | None, str | None]
ROWS = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.none() | AMOUNTS, st.none() | TEXTS),
    unique_by=lambda row: row[0],
    max_size=20,
)
SMALL = st.builds(Limits, page_records=st.integers(1, 5))


def expected(rows: list[Row]) -> list[dict[str, object]]:
    return [
        {"id": number, "amount": None if amount is None else int(amount.scaleb(2)), "note": note}
        for number, amount, note in rows
    ]


@examples(60)
@given(
    ROWS,
    SMALL,
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_csv_writes_is_read_again(
    rows: list[Row], limits: Limits, delimiter: str, end: str, encoding: str, quoting: int
) -> None:
    null = "<none>"
    if any(set(note or "") & {"\r", "\n"} for _, _, note in rows):
        quoting = csv.QUOTE_ALL  # before Python 3.13 the writer quotes only the line end that it writes itself
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["note", "more", "amount", "id"])
    for number, amount, note in rows:
        assume(note != null)
        writer.writerow([null if note is None else note, "x", null if amount is None else amount, number])
    table = written_as(CSV, delimiter=delimiter, encoding=encoding.removesuffix("-sig"), null=null)
    found = typed(file.getvalue().encode(encoding), table, limits)
    assert (rows_of(found), found.bad) == (expected(rows), [])


@examples(60)
@given(
    ROWS, SMALL, st.sampled_from([True, False]), st.sampled_from([None, 2, "\t"]), st.sampled_from([None, "data", "data.rows"])
)
def test_what_json_writes_is_read_again(
    rows: list[Row],
    limits: Limits,
    is_ascii: bool,  # noqa: FBT001 (of Hypothesis)
    indent: int | str | None,
    path: str | None,
) -> None:
    records = [{"id": number, "amount": None if amount is None else float(0), "note": note} for number, amount, note in rows]
    spelled = [json.dumps(one, ensure_ascii=is_ascii, indent=indent) for one in records]
    exact = [
        text if amount is None else text.replace('"amount": 0.0', f'"amount": {amount}')
        for text, (_, amount, _) in zip(spelled, rows, strict=True)
    ]
    document = f"[{', '.join(exact)}]"
    for name in reversed(path.split(".") if path else []):
        document = f'{{"before": [{{"{name}": 1}}], "{name}": {document}, "behind": null}}'
    found = typed(document.encode(), written_as(JSON, path=path), limits)
    assert (rows_of(found), found.bad) == (expected(rows), [])
    if indent is None:
        found = typed("\n".join(exact).encode(), LINES, limits)
        assert (rows_of(found), found.bad) == (expected(rows), [])


TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    "\n",
    "\r",
    " ",
    "1",
    "-",
    ".",
    "e9",
    "true",
    "null",
    "NaN",
    "\\ud800",
    "\0",
    "\ufeff",
    "é",
]
TOKENS += [f'"{name}":' for name in EVERY_COLUMN] + ['{"id":1', '"2026-11-01"', '"2026-11-01T09:30:00Z"', '"\\u0000"', "9" * 30]
EVERY = [replace(one, columns=data_set(RecordForm(Format.CSV), EVERY_COLUMN).columns) for one in (CSV, LINES, JSON)]


@examples(200)
@given(
    st.binary(max_size=60) | st.lists(st.sampled_from(TOKENS), max_size=40).map(lambda tokens: "".join(tokens).encode()),
    st.sampled_from(EVERY),
)
def test_whatever_the_bytes_are_each_record_is_stored_or_named(body: bytes, table: SourceTable) -> None:
    header = f"{','.join(EVERY_COLUMN)}\n".encode() if table is EVERY[0] else b""
    try:
        found = typed(header + body, table)
    except UnreadableDeliveryError:
        return
    stored = decode_parquet(encode_parquet(found.frame, table.extract_types), table.extract_types)
    assert stored.equals(found.frame)
    assert len(found.places) == len(found.frame)
    assert all(one.reason and one.text.encode() is not None for one in found.bad)
