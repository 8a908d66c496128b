from __future__ import annotations

import codecs
import gzip
import io

import pytest
import zstandard

from contracts.column_types import DATE, INTEGER, TEXT, numeric
from contracts.datasets import Format, RecordForm
from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, UnreadableDeliveryError
from services.ingestion.records import read_records
from services.ingestion.records.opened import Limits
from shared.codecs import codec_of
from shared.codecs.codec import MIB
from shared.parquet import decode_parquet, encode_parquet
from tests.fixtures.data_sets import CSV, EVERY_COLUMN, JSON, LINES, data_set, records_in, rows_of, typed, written_as

AT_ROWS = written_as(JSON, path="data.rows")
SMALL = Limits(record_bytes=16_384, page_bytes=16_384, ratio_from=MIB)

REFUSED: dict[str, tuple[SourceTable, bytes, str]] = {
    "an empty file of CSV": (CSV, b"", "has no header"),
    "a header without a column": (CSV, b"id,note\n1,x\n", "has no column 'amount'; it has 'id', 'note'"),
    "a header with a column twice": (CSV, b"id,amount,note,id\n1,2,x,3\n", "the column 'id' more than once"),
    "another delimiter in the header": (CSV, b"id;amount;note\n1;2;x\n", "has no column 'id', 'amount', 'note'"),
    "another delimiter in the rows": (CSV, b"id,amount,note\n1;2;x\n2;3;x\n", "none of its first 2 records can be read"),
    "a giant number of columns": (CSV, b"id,amount,note" + b",x" * 2000, "names 2003 columns"),
    "a giant line": (CSV, b"id,amount,note\n1,2," + b"x" * 65_536, "a record of more than 0 MiB"),
    "a giant line of JSON": (LINES, b'{"id": "' + b"x" * 65_536, "a record of more than 0 MiB"),
    "a quote that is never closed": (CSV, b'id,amount,note\n1,2,x\n2,3,"y\n3,4,z\n', "at line 3 is never closed"),
    "a quote that is never closed in the header": (CSV, b'"id,amount,note\n1,2,x\n', "its header has a quote"),
    "text behind a quoted name": (CSV, b'"id"x,amount,note\n1,2,x\n', "its header has a quote"),
    "an early quote that is never closed": (
        CSV,
        b'id,amount,note\n1,2,"x\n' + b"2,3,y\n" * 9000,
        "a quote that is never closed",
    ),
    "Latin-1 called UTF-8": (CSV, "id,amount,note\n1,2,é\n".encode("latin-1"), "not text in utf-8 at byte 19"),
    "UTF-16 called UTF-8": (CSV, "id,amount,note\n".encode("utf-16"), "not text in utf-8 at byte 0"),
    "an unknown encoding": (written_as(CSV, encoding="utf-9"), b"id\n1\n", "'utf-9' is unknown"),
    "an encoding that is none": (written_as(CSV, encoding="hex"), b"id\n1\n", "'hex' is unknown"),
    "gzip that is cut off": (CSV, gzip.compress(b"id,amount,note\n" + b"1,2,x\n" * 99)[:-9], "damaged or cut off"),
    "gzip with garbage behind it": (CSV, gzip.compress(b"id,amount,note\n1,2,x\n") + b"garbage", "damaged or cut off"),
    "gzip with another checksum": (CSV, gzip.compress(b"id,amount,note\n1,2,x\n")[:-8] + bytes(8), "damaged or cut off"),
    "a gzip bomb": (CSV, gzip.compress(b"id,amount,note\n" + b"1,2,x\n" * 400_000), "expands to more than 300 times"),
    "zstd that is cut off": (
        CSV,
        zstandard.compress(b"id,amount,note\n" + b"1,2,x\n" * 99)[:-9],
        "the last frame does not end",
    ),
    "zstd with garbage behind it": (CSV, zstandard.compress(b"id,amount,note\n1,2,x\n") + b"garbage", "damaged or cut off"),
    "zstd that asks for much memory": (CSV, bytes.fromhex("28b52ffd0098") + bytes(99), "damaged or cut off"),
    "a zstd bomb": (CSV, zstandard.compress(b"id,amount,note\n" + b"1,2,x\n" * 400_000), "expands to more than 300 times"),
    "an Excel file": (CSV, b"PK\x03\x04" + bytes(99), "a ZIP archive or an Excel file"),
    "an empty document": (JSON, b"", "at line 1: '[' is expected"),
    "a document that is cut off in a record": (JSON, b'[{"id": 1},\n{"id":', "not JSON, at line 2: Expecting value"),
    "a document that is cut off in a text": (JSON, b'[{"id": 1, "note": "x', "Unterminated string"),
    "a document that is cut off behind a record": (JSON, b'[{"id": 1}', "']' is expected"),
    "an enclosing object that is cut off": (AT_ROWS, b'{"data": {"rows": [{"id": 1}]}', "'}' is expected"),
    "something behind the document": (JSON, b'[{"id": 1}]\n[]', "at line 2: something follows the end"),
    "other names": (LINES, b'{"ID": 1}\n{"Id": 2}\n', "none of its first 2 records has 'id', only 'ID', 'Id'"),
    "a comma too many": (JSON, b'[{"id": 1},]', "Expecting value"),
    "a path that leads nowhere": (AT_ROWS, b'{"data": {"Rows": []}}', "no member 'rows' on the path"),
    "a path that leads to an object": (AT_ROWS, b'{"data": {"rows": {"id": 1}}}', "an object where the records should be"),
    "a path that leads to a number": (AT_ROWS, b'{"data": {"rows": 1}}', "'[' is expected"),
    "a path over an array": (AT_ROWS, b'{"data": [{"rows": []}]}', "'{' is expected"),
    "a path that is there twice": (AT_ROWS, b'{"data": {"rows": []}, "data": {"rows": []}}', "two members 'data' on the path"),
    "a giant record": (JSON, b'[{"id": 1, "note": "' + b"x" * 65_536 + b'"}]', "a record of more than 0 MiB"),
    "nesting without end": (JSON, b"[" * 10_000, "nested too deeply"),
    "lines that are not JSON": (LINES, b"id,amount,note\n1,2,x\n", "at 1 is not JSON: Expecting value at character 1"),
}

BAD: dict[str, tuple[SourceTable, bytes, int, str]] = {
    "too few fields": (CSV, b"1,2,x\n2,3\n", 3, "has 2 fields instead of 3"),
    "too many fields": (CSV, b"1,2,x\n2,3,y,z\n", 3, "has 4 fields instead of 3"),
    "text behind a quoted field": (
        CSV,
        b'1,2,x\n2,3,"y"z\n',
        3,
        "has text after a quoted field, or a quote inside it that is not written twice",
    ),
    "a key that is NULL": (CSV, b"1,2,x\n,3,y\n", 3, "has no key that can be read: id is NULL"),
    "a key that is no number": (CSV, b"1,2,x\nA,3,y\n", 3, "id is not a whole number from"),
    "an array": (LINES, b'{"id": 1}\n[2]\n', 2, "is not an object"),
    "a member twice": (LINES, b'{"id": 1}\n{"id": 2, "id": 3}\n', 2, "is an object with two members of one name"),
    "two records in a line": (LINES, b'{"id": 1}\n{"id": 2} {"id": 3}\n', 2, "is not JSON: Extra data at character 11"),
    "deep nesting": (LINES, b'{"id": 1}\n' + b"[" * 3000 + b"\n", 2, "nested too deeply"),
    "a record that is cut off": (LINES, b'{"id": 1}\n{"id": 2, "no', 2, "is not JSON: Unterminated string"),
    "a key with a fraction": (LINES, b'{"id": 1}\n{"id": 2.5}\n', 2, "id is not a whole number from"),
    "an element that is not an object": (JSON, b'[{"id": 1}, 7]', 2, "is not an object"),
    "an element with a member twice": (
        JSON,
        b'[{"id": 1}, {"id": 2, "id": 3}]',
        2,
        "is an object with two members of one name",
    ),
    "a key of 5,000 digits": (
        LINES,
        b'{"id": 1}\n{"id": ' + b"9" * 5000 + b"}\n",
        2,
        "id is a number of more than 1000 digits",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_delivery_that_cannot_be_read_is_refused_with_a_reason(case: str) -> None:
    table, body, reason = REFUSED[case]
    with pytest.raises(UnreadableDeliveryError) as refusal:
        records_in(body, table, SMALL)
    assert reason in str(refusal.value)


@pytest.mark.parametrize("case", BAD)
def test_a_record_that_cannot_be_read_is_named_by_its_line_and_the_others_are_read(case: str) -> None:
    table, body, place, reason = BAD[case]
    found = typed(b"id,amount,note\n" * (table is CSV) + body, table)
    assert rows_of(found)[0]["id"] == 1
    (bad,) = found.bad
    assert (bad.place, len(found.places)) == (place, 1)
    assert reason in bad.reason


def test_a_value_that_cannot_be_read_is_null_with_a_defect_that_names_its_column_and_line() -> None:
    body = b"id,amount,note\n1,2.50,x\n" + b'2,"12,5",x\n3,1e400,x\n4,NaN,\x00\n5,12.345,x\n6,99999999999,x\n7,,x\n'
    assert rows_of(typed(body, CSV)) == [
        {"id": 1, "amount": 250, "note": "x"},
        *(
            {"id": number, "amount": None, "note": note, "_defect": f"amount is not {form}{others} (line {number + 1})"}
            for form in ["a number of at most 10 digits and 2 decimals, such as 7.5"]
            for number, note, others in [
                (2, "x", ""),
                (3, "x", ""),
                (4, None, "; note is not a text in UTF-8 without a NUL"),
                (5, "x", ""),
                (6, "x", ""),
            ]
        ),
        {"id": 7, "amount": None, "note": "x"},
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_each_encoding_and_line_end_gives_the_same_records(end: str, encoding: str) -> None:
    text = end.join(["note,id,amount", f'"é, ""{end}""",1,2', "", "ü,2,3", ""])
    found = typed(text.encode(encoding), written_as(CSV, encoding=encoding.removesuffix("-sig")))
    assert [(row["id"], row["note"]) for row in rows_of(found)] == [(1, f'é, "{end}"'), (2, "ü")]
    assert found.places == [2, 5]


def test_a_byte_order_mark_is_passed_over_even_before_a_quote() -> None:
    body = codecs.BOM_UTF8 + b'"id",amount,note\n1,2,x\n'
    assert rows_of(typed(body, CSV)) == [{"id": 1, "amount": 200, "note": "x"}]
    assert rows_of(typed(codecs.BOM_UTF8 + b'{"id": 1}', LINES))[0]["id"] == 1


def test_null_is_the_field_that_the_contract_names() -> None:
    found = typed(b"id,amount,note\n1,\\N,\n2,3,\\N\n", written_as(CSV, null="\\N"))
    assert rows_of(found) == [{"id": 1, "amount": None, "note": ""}, {"id": 2, "amount": 300, "note": None}]


def test_compressed_files_are_recognized_by_their_first_bytes() -> None:
    body = b"id,amount,note\n1,2,x\n"
    more = b"".join(b"%d,3,y\n" % number for number in range(20_000))
    for compress in (gzip.compress, zstandard.compress):
        assert rows_of(typed(compress(body) + compress(more), CSV)) == rows_of(typed(body + more, CSV))


def test_the_records_of_a_document_are_found_at_its_path() -> None:
    body = b'\xef\xbb\xbf {"meta": {"rows": [1, {"a": "]}"}], "n": 1}, "data": {"a": 0, "rows": [ {"id": 1}\n,{"id": 2} ]}}\n'
    assert [row["id"] for row in rows_of(typed(body, AT_ROWS))] == [1, 2]
    assert [row["id"] for row in rows_of(typed(b'[{"id": 1}]', JSON))] == [1]
    assert records_in(b"[]", JSON) == []


def test_what_json_writes_as_numbers_is_exact() -> None:
    body = b"""{"id": 9007199254740993, "amount": 0.10, "note": 1.50}

{"id": 1.0, "amount": 1e2, "note": true}
{"id": 2, "amount": 1e999999, "note": {}}"""
    first, second, third = rows_of(typed(body, LINES))
    assert first == {"id": 9007199254740993, "amount": 10, "note": "1.50"}
    assert second == {"id": 1, "amount": 10_000, "note": "true"}
    assert third.pop("_defect") == "amount is a number of more than 1000 digits; note is an object or an array (line 4)"
    assert third == {"id": 2, "amount": None, "note": None}


def test_a_lone_surrogate_and_nan_are_defects_and_not_other_values() -> None:
    (row,) = rows_of(typed(b'{"id": 1, "amount": NaN, "note": "\\ud800"}', LINES))
    assert row.pop("_defect") == "amount is NaN; note is not a text in UTF-8 without a NUL (line 1)"


def test_columns_that_the_contract_does_not_know_are_reported_by_name() -> None:
    assert typed(b"id,amount,note,more\n1,2,x,y\n", CSV).new_columns == {"more"}
    assert typed(b'{"id": 1, "a": 1}\n{"id": 2, "b": 1}', LINES).new_columns == {"a", "b"}


def test_many_blank_lines_are_passed_over() -> None:
    assert [one.place for one in records_in(b"id,amount,note\n" + b"\n" * 17_000 + b"1,2,x\n", CSV, SMALL)] == [17_002]


def test_a_header_alone_is_a_delivery_without_records() -> None:
    assert records_in(b"id,amount,note\n", CSV) == []
    assert records_in(b"", LINES) == []


def test_a_key_of_other_types_is_spelled_as_postgresql_does() -> None:
    table = data_set(
        RecordForm(Format.CSV), {"month": DATE, "price": numeric(8, 3), "n": INTEGER, "t": TEXT}, ("month", "price", "n", "t")
    )
    found = typed(b"month,price,n,t\n2026-02-01,7.50,+07,\xc3\xa9\n", table)
    assert found.frame[table.key_text or ""].tolist() == ['["2026-02-01", "7.5", 7, "é"]']
    assert list(found.frame.columns) == list(table.extract_types)


def test_a_frame_has_the_form_of_an_extract_whatever_it_lacks() -> None:
    table = data_set(RecordForm(Format.CSV), EVERY_COLUMN)
    header = ",".join(EVERY_COLUMN).encode() + b"\n"
    rows = {
        "no rows": b"",
        "NULLs alone": b"1,,,,,,,\n",
        "usual texts": b"1,2.50,x,true,2026-11-01,2026-11-01 09:30:00.000001,2026-11-01T09:30:00Z,{}\n",
        "unusual texts": b"+01, 2.5,x,YES,2026-11-01 ,2026-11-01T09:30:00.000001Z,2026-11-01 11:30+02, {  }\n",
        "no values": b"1,2.501,\x00,x,2026-02-30,0000-01-01 00:00:00,2026-11-01 09:30,{\n",
    }
    frames = {name: typed(header + body, table).frame for name, body in rows.items()}
    form = {name: str(codec_of(kind).frame) for name, kind in table.extract_types.items()}
    assert [{str(name): str(kind) for name, kind in frame.dtypes.items()} for frame in frames.values()] == [form] * len(rows)
    assert frames["usual texts"].equals(frames["unusual texts"])
    for name in ("NULLs alone", "no values"):
        assert frames[name].drop(columns=["_defect", "id"]).isna().all(axis=None)
        assert decode_parquet(encode_parquet(frames[name], table.extract_types), table.extract_types).equals(frames[name])
    (defect,) = frames["no values"]["_defect"]
    assert [part.partition(" is not ")[0] for part in defect.split("; ")] == list(EVERY_COLUMN)[1:]


async def test_records_come_in_pages_of_bounded_size() -> None:
    body = b"id,amount,note\n" + b"1,2,x\n" * 25
    sizes = [len(page) async for page in read_records(io.BytesIO(body), CSV, Limits(page_records=10))]
    assert sizes == [10, 10, 5]
    assert [isinstance(one, BadRecord) for one in records_in(body, CSV)] == [False] * 25
