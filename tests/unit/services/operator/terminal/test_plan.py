"""`starlift plan` as a person and as a script read it."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from services.operator.contract.plan import Change, Plan, Problem, TableRead
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import ExitCode, run_command
from services.operator.terminal.plan import exit_code_of, show_plan
from shared.star_schema.preview import Action
from tests.fixtures.delivered_contract import TEXT as DELIVERED

WRONG = """\
name: shop
star:
  dim_city:
    dimension: town
    columns: {city_id: }
  dim_person:
    dimension: person
    columns:
      person_id:
      born: birth
      city: city_id.nowhere
      land: country.name
  fact_visit:
    fact: visit
    columns: {visit_id: }
source:
  tables:
    person:
      key: person_id
      columns: {person_id: integer not null, city_id: integer, size: integer}
      foreign_keys: {city_id: city}
    city:
      key: city_id
      columns: {city_id: integer not null, name: text}
"""
LINES = (4, 10, 11, 12, 14)


@pytest.fixture(autouse=True)
def _no_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONTRACT", "SOURCE_URL", "UP_SOURCE_URL", "WAREHOUSE_URL", "UP_WAREHOUSE_URL"):
        monkeypatch.delenv(f"STARLIFT_{name}", raising=False)


def plan(*arguments: str) -> int:
    return run_command(starlift(), ["plan", *arguments])


def test_a_contract_with_five_mistakes_gives_each_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(WRONG)
    assert plan("--contract", str(file)) == 1
    *problems, last = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in problems] == [f"shop.yaml:{line}" for line in LINES]
    assert problems[1] == (
        "contract: shop.yaml:10: dim_person.born: table 'person' has no column 'birth'; it has city_id, person_id, size"
    )
    assert last == "5 problems"
    assert plan("--contract", str(file), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["part"], one["file"], one["line"]) for one in found["problems"]] == [
        ("contract", "shop.yaml", line) for line in LINES
    ]


def test_a_contract_that_is_not_found_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, sentence in {
        "shop.yaml": f"'shop.yaml' can't be read (No such file or directory); correct the path (looked in {tmp_path})",
        "shop": "Starlift ships no contract 'shop', only exchange_rates, totesys; give a file by its path, such as ./shop.yaml",
        "shop.py": "'shop.py' is a Python module, and contracts are YAML documents",
    }.items():
        assert plan("--contract", name) == 2
        assert capsys.readouterr().err.startswith(f"starlift: {sentence}")


def test_without_a_warehouse_everything_is_created(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["contract"], found["problems"], found["reads"]) == ("totesys", [], [])
    created = [one["name"] for one in found["changes"] if one["action"] == "create"]
    assert created[:2] == ["starlift", "public.dim_date"]
    assert "public.fact_payment_current" in created
    assert {one["action"] for one in found["changes"]} == {"create", "add"}
    assert plan() == 3
    assert capsys.readouterr().out.splitlines()[-1] == "warehouse: 15 to create, 24 to add"


def test_exit_codes() -> None:
    kept = Change(action=Action.KEEP, kind="column", name="public.t.c", detail="")
    added = kept.model_copy(update={"action": Action.ADD})
    problem = Problem(part="source", text="no")
    assert exit_code_of(Plan(contract="x")) == 0
    assert exit_code_of(Plan(contract="x", changes=(kept,))) == 0
    assert exit_code_of(Plan(contract="x", changes=(kept, added))) == 3
    assert exit_code_of(Plan(contract="x", changes=(added,), problems=(problem,))) == 1


def test_what_a_first_run_reads_is_shown_with_the_figure_that_its_time_is_based_on() -> None:
    big = TableRead(
        table="sale",
        rows=7_400_000,
        bytes=2**30,
        seconds=100,
        is_analysed=True,
        in_full_every_run=False,
        new_columns={"[x]": "text"},
    )
    odd = TableRead(
        table="v",
        rows=10,
        bytes=8192,
        seconds=0.2,
        is_analysed=False,
        in_full_every_run=True,
        why_in_full="a view",
        new_columns={},
    )
    console = Console(width=120, file=StringIO())
    show_plan(console, Plan(contract="x", reads=(big, odd), notes=("the source is a standby",)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "7,400,000" in text
    assert "10 (not analysed)" in text
    assert "every row, 0.2 s: a view" in text
    assert "new in sale, and not in the contract: [x] text\nnote: the source is a standby\n" in text
    assert text.splitlines()[-1] == (
        "a first run reads about 7,400,010 rows in 100 s, at 74,000 rows a second on two cores; warehouse: nothing to do"
    )


def test_of_data_sets_nothing_is_compared_and_where_they_are_put_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "delivered.yaml"
    history = "star:\n  dim_budget: {dimension: budget, history: true, columns: {product_id: , month: }}\n"
    file.write_text(DELIVERED.replace("star:\n", history))
    monkeypatch.setenv("STARLIFT_SOURCE_URL", "postgresql://reader@127.0.0.1:1/shop")
    assert plan("--contract", str(file)) == ExitCode.CHANGED
    printed = capsys.readouterr().out
    assert (
        "note: source 'plans' consists of files, which are put under dropzone/budget/, dropzone/product/ of the landing "
        "bucket: nothing is compared here; each record is checked when it is delivered\n"
        "note: source 'rates' is the API https://rates.example/v1: nothing is compared here; each record is checked when it is "
        "delivered\n"
        "note: each delivery of 'budget' adds a row to 'dim_budget_versions' for each record, even unchanged\n"
        "note: the source URL is not used: the main source, which STARLIFT_SOURCE_NAME names, has no database\n"
    ) in printed


def test_a_whole_snapshot_by_counted_pages_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "delivered.yaml"
    since = '          since: {parameter: since, column: day, first: "2026-01-01"}\n'
    paging = "paging: {by: offset, parameter: from, size: 50}"
    text = DELIVERED.replace(since, "").replace("paging: {by: cursor, parameter: cursor, at: next.cursor}", paging)
    file.write_text(text.replace("          contents: increment\n", ""))
    assert plan("--contract", str(file)) == ExitCode.CHANGED
    assert "the pages of 'exchange_rate' are counted: a row that moves to a page that has been read" in capsys.readouterr().out


def test_a_database_beside_data_sets_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "delivered.yaml"
    shop = "  shop: {tables: {item: {key: item_id, columns: {item_id: integer not null}}}}\n"
    star = "star:\n  dim_item: {dimension: item, columns: {item_id: }}\n"
    file.write_text(DELIVERED.replace("star:\n", star) + shop)
    monkeypatch.setenv("STARLIFT_SOURCE_URL", "postgresql://reader@127.0.0.1:1/shop")
    monkeypatch.setenv("STARLIFT_SOURCE_NAME", "shop")
    assert plan("--contract", str(file)) == ExitCode.FAILED
    printed = capsys.readouterr().out
    assert "source: shop: " in printed
    assert "URL is not used" not in printed
