from __future__ import annotations

from dataclasses import replace

from contracts.column_types import TEXT, TIMESTAMP
from contracts.datasets import Contents, Dataset, Format, RecordForm
from contracts.tables import SourceTable
from services.ingestion.records.seen_keys import SeenKeys
from tests.fixtures.data_sets import CSV, data_set, rows_of, typed


def kept(table: SourceTable, *pages: bytes) -> tuple[list[object], list[tuple[int, str]]]:
    """The first column of the rows that stay, and the place and reason of the others."""
    rows, bad = list[object](), list[tuple[int, str]]()
    with SeenKeys() as seen:
        for page in pages:
            found = seen.first_only(table, typed(page, table))
            assert len(found.places) == len(found.frame)
            rows += [tuple(row.values()) for row in rows_of(found)]
            bad += [(one.place, one.reason) for one in found.bad]
    return rows, bad


def test_the_first_record_of_a_key_stays_within_a_page_and_across_pages() -> None:
    header = b"id,amount,note\n"
    rows, bad = kept(CSV, header + b"2,1,a\n1,2,b\n2,3,c\n", header + b"3,4,d\n1,5,e\n")
    assert rows == [(2, 100, "a"), (1, 200, "b"), (3, 400, "d")]
    assert bad == [(4, "repeats the key of line 2"), (3, "repeats the key of line 3")]


def test_texts_are_compared_as_they_are_however_long() -> None:
    table = data_set(RecordForm(Format.CSV), {"a": TEXT, "b": TEXT}, ("a", "b"))
    long = b"x" * 200
    body = b"a,b\n1,2\n12,\xc3\xa9\n" + long + b",1\n" + long + b",2\n" + long + b",1\n1,2 \n"
    _, bad = kept(table, body)
    assert bad == [(6, "repeats the key of line 4")]


def test_versions_of_one_key_are_different_records() -> None:
    plain = data_set(RecordForm(Format.CSV), {"id": TEXT, "at": TIMESTAMP})
    table = replace(plain, dataset=Dataset(RecordForm(Format.CSV), Contents.INCREMENT, version="at"))
    body = b"id,at\nA,2026-11-01\nA,2026-11-02\nA,2026-11-01 00:00:00\nB,\nB,\n"
    assert [place for place, _ in kept(table, body)[1]] == [4, 6]
