"""What others write is read as it was, however it is spelled."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from contracts.tables import SourceTable
from services.ingestion.delivery import UnreadableDeliveryError
from services.ingestion.records.opened import Limits
from tests.fixtures.data_sets import CSV, JSON, LINES, rows_of, typed, written_as
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


@examples(150)
@given(
    st.binary(max_size=60) | st.text(st.sampled_from('",\r\n\\ x1é'), max_size=60).map(str.encode),
    st.sampled_from([CSV, LINES, JSON]),
)
def test_whatever_the_bytes_are_each_record_is_read_or_named(body: bytes, table: SourceTable) -> None:
    try:
        found = typed((b"id,amount,note\n" if table is CSV else b"") + body, table)
    except UnreadableDeliveryError:
        return
    assert len(found.places) == len(found.frame)
    assert all(one.reason for one in found.bad)
