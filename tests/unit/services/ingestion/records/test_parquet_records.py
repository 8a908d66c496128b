from __future__ import annotations

import io
from collections.abc import Generator
from pathlib import Path

import duckdb
import fastparquet
import pandas as pd
import pytest

from contracts.column_types import BIGINT, BOOLEAN, BYTEA, DATE, TEXT, TIME, TIMESTAMP, TIMESTAMPTZ, numeric, verbatim
from contracts.datasets import Format, RecordForm
from services.ingestion.delivery import UnreadableDeliveryError
from services.ingestion.records import parquet_process, parquet_records, record_pages
from services.ingestion.records.opened import Limits
from services.ingestion.records.parquet_process import write_lines
from tests.fixtures.data_sets import PARQUET, data_set, records_in, rows_of, typed


def written(tmp_path: Path, query: str) -> bytes:
    """What DuckDB, a writer that shares nothing with the reader, makes of a query."""
    path = tmp_path / "file.parquet"
    duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def test_values_of_parquet_are_exact(tmp_path: Path) -> None:
    columns = {
        "id": BIGINT,
        "small": numeric(12, 2),
        "large": verbatim("numeric(38,10)"),
        "good": BOOLEAN,
        "born": DATE,
        "opens": TIME,
        "at": TIMESTAMP,
        "sent": TIMESTAMPTZ,
        "note": TEXT,
        "seal": BYTEA,
        "few": BIGINT,
        "many": BIGINT,
    }
    query = """SELECT 9007199254740993::bigint AS id, '-0.05'::decimal(12,2) AS small,
        '1234567890123456789012345678.0000001280'::decimal(38,10) AS large,
        true AS good, date '1969-12-31' AS born, time '23:59:59.000001' AS opens, timestamp '1969-12-31 23:59:59.999999' AS at,
        timestamptz '2026-11-01 09:30:00+02' AS sent, 'é' AS note, '\\x00\\xff'::blob AS seal, 3::double AS few,
        -4::decimal(10,0) AS many, 7 AS more
        UNION ALL SELECT 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"""
    found = typed(written(tmp_path, query), data_set(RecordForm(Format.PARQUET), columns))
    first, second = rows_of(found)
    assert first == {
        "id": 9007199254740993,
        "small": -5,
        "large": "1234567890123456789012345678.000000128",
        "good": True,
        "born": -1,
        "opens": 86_399_000_001,
        "at": -1,
        "sent": 1_793_518_200_000_000,
        "note": "é",
        "seal": "\\x00ff",
        "few": 3,
        "many": -4,
    }
    assert second == {**dict.fromkeys(columns), "id": 2}
    assert (found.places, set(found.new_columns)) == ([1, 2], {"more"})


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": pd.Series([3, 1, 2]),
            "amount": pd.Series([1.0, None, 3.0]),
            "note": pd.Series(["x", None, "y"]),
            "at": pd.Series(["2026-11-01 09:30:00.5", "NaT", "1969-01-01 00:00:00"], dtype="datetime64[us]"),
        }
    )
    fastparquet.write(str(tmp_path / "a"), frame, row_group_offsets=[0, 2])
    table = data_set(RecordForm(Format.PARQUET), {"id": BIGINT, "amount": BIGINT, "note": TEXT, "at": TIMESTAMP})
    rows = [(row["id"], row["amount"], row["note"], row["at"]) for row in rows_of(typed((tmp_path / "a").read_bytes(), table))]
    assert rows == [(3, 1, "x", 1_793_525_400_500_000), (1, None, None, None), (2, 3, "y", -31_536_000_000_000)]


GOOD = "SELECT 1::bigint AS id, 2.5::decimal(12,2) AS amount, 'x' AS note"
REFUSED = {
    "a number that is not exact": (
        "SELECT 1 AS id, 2.5::double AS amount, 'x' AS note",
        "'amount' has the type DOUBLE, which is not exact",
    ),
    "a number without sign": ("SELECT 1::ubigint AS id, 2.5::decimal(12,2) AS amount, 'x' AS note", "'id' has the type INT64"),
    "a column that is missing": ("SELECT 1 AS id, 'x' AS note", "no column 'amount' of single values; it has 'id', 'note'"),
    "a list": ("SELECT 1 AS id, 2.5::decimal(12,2) AS amount, ['x'] AS note", "no column 'note' of single values"),
    "an object": (
        "SELECT 1 AS id, 2.5::decimal(12,2) AS amount, {'id': 'y', 'note': 1} AS note",
        "no column 'note' of single values",
    ),
}


def read(body: bytes) -> None:
    """Read in this process, since it takes a second to start one."""
    write_lines(io.BytesIO(body), {"id": (True, False), "amount": (False, False), "note": (False, False)}, io.BytesIO())


@pytest.mark.parametrize("case", REFUSED)
def test_a_type_that_has_no_exact_value_is_refused(case: str, tmp_path: Path) -> None:
    query, reason = REFUSED[case]
    with pytest.raises(UnreadableDeliveryError) as refusal:
        read(written(tmp_path, query))
    assert reason in str(refusal.value)


def test_a_large_row_group_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_process, "_ROW_GROUP_BYTES", 10)
    with pytest.raises(UnreadableDeliveryError, match="write smaller ones"):
        read(written(tmp_path, GOOD))


@pytest.mark.parametrize("damage", ["text", "no end", "noise in the footer", "noise in the pages"])
def test_damaged_parquet_is_refused_whatever_it_does_to_its_reader(damage: str, tmp_path: Path) -> None:
    many = "SELECT range AS id, 2.5::decimal(12,2) AS amount, 'x' || range AS note FROM range(1000)"
    body, noise = written(tmp_path, f"{many} UNION ALL {GOOD}"), bytes(range(256))
    footer = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    damaged = {
        "text": b"id,amount,note\n1,2,x\n",
        "no end": body[:-20],
        "noise in the footer": body[:footer] + noise + body[footer + 256 :],
        "noise in the pages": body[:4] + noise * (footer // 256) + body[4 + footer // 256 * 256 :],
    }[damage]
    with pytest.raises(UnreadableDeliveryError, match="damaged"):
        records_in(damaged, PARQUET)


def test_a_reader_that_crashes_refuses_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand files with damaged bytes, about twenty-five ended it by a segmentation fault."""
    monkeypatch.setattr(parquet_records, "_PROCESS", "services.of_no_such_name")
    with pytest.raises(UnreadableDeliveryError, match="it is damaged: reading it as Parquet ended with code 1"):
        records_in(written(tmp_path, GOOD), PARQUET)


def test_the_process_ends_when_no_more_is_asked_of_it(tmp_path: Path) -> None:
    body = written(tmp_path, "SELECT range AS id, 2.5::decimal(12,2) AS amount, 'x' AS note FROM range(200000)")
    pages = record_pages(io.BytesIO(body), PARQUET, Limits(page_records=10))
    assert len(next(pages)) == 10
    assert isinstance(pages, Generator)
    pages.close()  # which waits for it
