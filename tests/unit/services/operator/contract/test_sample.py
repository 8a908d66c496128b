"""What is guessed of a file: never a type that loses something of a value of its records."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.type_names import type_name
from contracts.yaml_text import read_contract
from services.operator.contract.propose_file import propose_file
from services.operator.contract.sample import Sample, is_sample, read_sample
from services.operator.errors import UsageError
from tests.fixtures.data_sets import typed
from tests.fixtures.properties import examples
from tests.unit.services.operator.contract.catalogs import HOSTILE

COLUMNS = [
    (["1", "-20", "0"], "integer"),
    (["1", "30000000"], "bigint"),
    (["12345678901234567890"], "numeric"),
    (["007", "008"], "text"),
    (["+1", "2"], "text"),
    (["1", "2.50", "-0.125"], "numeric(18,3)"),
    (["1.0000000001"], "numeric"),
    (["1e5"], "text"),
    (["1,5"], "text"),
    (["true", "False"], "boolean"),
    (["0", "1"], "integer"),
    (["t", "f"], "text"),
    (["2026-01-31", "2024-02-29"], "date"),
    (["2026-02-30"], "text"),
    (["31.01.2026"], "text"),
    (["2026-01-31", "2026-01-31 10:00"], "timestamp"),
    (["2026-01-31T10:00:00Z", "2026-01-31T10:00:00.5+02:00"], "timestamptz"),
    (["2026-01-31T10:00:00Z", "2026-01-31T10:00:00"], "timestamp"),  # of which each is read as UTC
    (["2026-01-31T10:00:00+02:00", "2026-01-31T10:00:00"], "text"),
    (["10:00:00"], "text"),
    (["0b5a6f8e-1f5c-4a63-9d0e-4a1a7f0d9a11"], "uuid"),
    (["0b5a6f8e1f5c4a639d0e4a1a7f0d9a11"], "text"),
    (["NaN", "1"], "text"),
    (["", "", "7"], "integer"),
    (["", ""], "text"),
]
VALUES = [
    ([True, False], "boolean"),
    ([1, 2, None], "integer"),
    ([1, Decimal("2.50")], "numeric(18,2)"),
    ([Decimal("1E+999999")], "text"),
    (["1", "2"], "text"),
    (["1", 2], "text"),
    (["2026-01-31"], "date"),
    ([{"a": 1}], "jsonb"),
    ([[1], None], "jsonb"),
    ([1, True], "jsonb"),
    ([None], "text"),
]


@pytest.mark.parametrize(("texts", "guess"), COLUMNS)
def test_a_type_of_csv_is_guessed_with_care(texts: list[str], guess: str) -> None:
    assert type_name(Sample("s", {"format": "csv"}, [{"c": text} for text in texts]).types["c"]) == guess


@pytest.mark.parametrize(("values", "guess"), VALUES)
def test_a_type_of_json_is_guessed_from_its_values(values: list[Any], guess: str) -> None:
    assert type_name(Sample("s", {"format": "json"}, [{"c": value} for value in values]).types["c"]) == guess


@pytest.mark.parametrize(
    ("records", "key"),
    [
        ([{"name": "a", "shop_id": "1"}, {"name": "b", "shop_id": "2"}], ("shop_id",)),
        ([{"name": "a", "shop_id": "1"}, {"name": "b", "shop_id": "1"}], ("name",)),
        ([{"day": f"2026-01-0{day}", "code": code} for day, code in ((1, "a"), (1, "b"), (2, "a"))], ("day", "code")),
        ([{"day": f"2026-01-0{day}", "id": str(day)} for day in (1, 2)], ("id",)),
        ([{"note": str(day), "day": f"2026-01-0{day}"} for day in (1, 2)], ("day",)),
        (
            [
                {"id": item, "month": f"2026-0{month}-01", "code": code}
                for item, month, code in ((1, 1, 7), (2, 1, 7), (2, 2, 8))
            ],
            ("id", "month"),
        ),
        ([{"rate": "1.5"}, {"rate": "2.5"}], ()),
        ([{"id": "1"}, {"id": ""}], ()),
        ([{"id": "1"}, {"id": "1"}], ()),
    ],
)
def test_a_key_tells_all_records_apart(records: list[dict[str, str]], key: tuple[str, ...]) -> None:
    assert Sample("s", {"format": "csv"}, records).key() == key


def test_each_form_is_found_out(tmp_path: Path) -> None:
    def form(name: str, content: bytes) -> tuple[dict[str, str], int]:
        (tmp_path / name).write_bytes(content)
        sample = read_sample(tmp_path / name)
        return dict(sample.form), len(sample.records)

    assert form("a.csv", b"id,name\n1,a\n2,b\n3\n") == ({"format": "csv"}, 2)
    assert form("a.tsv", b"\xef\xbb\xbfid\tname\r\n1\ta;b\r\n") == ({"format": "csv", "delimiter": "\t"}, 1)
    assert form("b.csv", "id;name\n1;Zoë\n".encode("cp1252")) == ({"format": "csv", "delimiter": ";", "encoding": "cp1252"}, 1)
    assert form("c.csv", b"id|name\n" + b"1|Zo\xc3\xab\n" * 2_000_000) == ({"format": "csv", "delimiter": "|"}, 1000)
    assert form("a.jsonl", b'{"id": 1}\n\n{"id": 2}\n') == ({"format": "json_lines"}, 2)
    assert form("a.json", b'[{"id": 1}]') == ({"format": "json"}, 1)
    assert form("b.json", b'{"more": [], "data": {"rows": [{"id": 1}, {"id": 2}]}}') == (
        {"format": "json", "records": "data.rows"},
        2,
    )


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"", "has no record in its first 16 MiB"),
        ("a.csv", b"id,name\n", "has no record in its first 16 MiB"),
        ("a.csv", b"id,,name\n1,2,3\n", "has a column without a name"),
        ("a.csv", b"id,id\n1,2\n", "or two of one name"),
        ("a.csv", b'id\n"' + b"x" * 200_000, "it has a field of more than 131,072 characters"),
        ("a.csv", b"id\n\x81\n", "is neither UTF-8 nor Windows-1252"),
        ("a.csv", "id\n1\n".encode("utf-16"), "is neither UTF-8 nor Windows-1252"),
        ("a.json", b"[word", "is not JSON"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.json", b'{"word": 1}', "has no array of objects"),
        ("a.json", '[{"word": "ë"}]'.encode("cp1252"), "is not UTF-8"),
        ("a.jsonl", b'{"": 1}\n', "has a column whose name is empty"),
        ("a.jsonl", b'{"\\ud800": 1}\n', "has a column whose name is empty, unprintable"),
        ("a.csv", b"id," + b"x" * 64 + b"\n1,2\n", "or longer than 63 bytes"),
        ("a.jsonl", b"[1]\n", "has a line that is not an object"),
    ],
)
def test_a_file_of_which_nothing_can_be_guessed_is_refused_without_its_values(
    name: str, content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=problem) as refusal:
        read_sample(tmp_path / name)
    assert "word" not in str(refusal.value)


def test_only_the_name_of_a_file_of_records_is_one() -> None:
    assert all(map(is_sample, ["budget.csv", "./a/b.JSONL", "a.txt"]))
    assert not any(map(is_sample, ["@url.txt.", "postgresql://reader@db/shop.csv", "budget", "shop.yaml"]))


def test_a_proposal_says_where_files_go_and_leaves_out_what_may_be_secret(tmp_path: Path) -> None:
    (tmp_path / "Budget 2026.csv").write_text("product_id;month;amount;password\n1;2026-01-01;12.50;x\n1;2026-02-01;3;y\n")
    text = propose_file(read_sample(tmp_path / "Budget 2026.csv"), "plans")
    assert "# Put each file under dropzone/Budget_2026/: it replaces all rows" in text
    assert "# Left out: password: the name says that it may hold a secret; it is not read." in text
    contract = read_contract(text, "plans.yaml")
    (table,) = contract.source_tables
    assert (table.key, table.others) == (("month",), ("password",))
    assert [one.name for one in contract.warehouse_tables] == ["dim_date", "fact_Budget_2026"]
    (tmp_path / "same.csv").write_text("a,b\n1,1\n1,1\n")
    assert "several have the same a. Correct `key`." in propose_file(read_sample(tmp_path / "same.csv"), "plans")


_TEXTS = st.one_of(
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.booleans().map(str),
    st.uuids().map(str),
    st.just(""),
    st.from_regex(r"\A0*[0-9]{1,20}\Z"),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
)
_NAMES = st.lists(st.from_regex(r"\A[a-z]{1,8}\Z"), min_size=1, max_size=4, unique=True)


@examples(200)
@given(st.data())
def test_what_is_guessed_reads_every_record_of_the_sample(data: st.DataObject) -> None:
    names = ["row", *(name for name in data.draw(_NAMES) if name != "row")]
    columns = {name: data.draw(st.sampled_from([_TEXTS, _TEXTS.map(str.strip), st.integers().map(str)])) for name in names[1:]}
    records = [
        {"row": str(number)} | {name: data.draw(column) for name, column in columns.items()}
        for number in range(data.draw(st.integers(1, 5)))
    ]
    sample = Sample("sample", {"format": "csv"}, records)
    contract = read_contract(propose_file(sample, "sample"), "sample.yaml")
    body = io.StringIO()
    writer = csv.DictWriter(body, names)
    writer.writeheader()
    writer.writerows(records)
    found = typed(body.getvalue().encode(), contract.source_tables[0])
    assert found.bad == []
    assert found.frame[contract.source_tables[0].defect].isna().all()
    assert len(found.frame) == len(records)


@examples(100)
@given(st.lists(st.sampled_from([*HOSTILE, "1", "__", "_run", "date_id"]) | st.text(max_size=9), min_size=1, max_size=4))
def test_a_column_of_any_name_is_proposed_or_refused(names: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "Ünfit name.v2.jsonl")
        path.write_text(json.dumps({name: number for number, name in enumerate(names)}))
        with suppress(UsageError):
            contract = read_contract(propose_file(read_sample(path), "any"), "any.yaml")
            assert [column.name for column in contract.source_tables[0].columns] == [*dict.fromkeys(names)]


def test_numbers_of_json_are_read_exactly(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 10**17}) + '\n{"id": 2.0000001}\n')
    assert type_name(read_sample(tmp_path / "a.jsonl").types["id"]) == "numeric"
