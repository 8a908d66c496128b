from __future__ import annotations

import io

import typer
from rich.console import Console

from contracts.messages import BatchIngested
from contracts.quarantine import Problem
from services.operator.quarantine import Entry, Replayed
from services.operator.terminal.quarantine import app, replay_sentence, show_entries
from tests.unit.services.operator.scene import ingested

ENTRY = Entry(
    table="dim_shelf",
    key=(1, "[red]"),
    run=7,
    index=0,
    problems=(Problem(column="", reason="x is NaN"), Problem(column="label", reason="is NULL")),
    source_table="shelf",
    row={"row": 1},
)


def shown(*entries: Entry) -> str:
    console = Console(file=io.StringIO(), width=100, record=True)
    show_entries(console, entries)
    return console.export_text()


def batches(count: int) -> list[BatchIngested]:
    return [ingested(run) for run in range(1, count + 1)]


def test_a_row_is_a_line_with_its_reasons_and_values_are_not_markup() -> None:
    line = next(line for line in shown(ENTRY).splitlines() if "dim_shelf" in line)
    assert [cell.strip() for cell in line.strip("│ ").split("│")] == ["dim_shelf", "1, [red]", "x is NaN; label is NULL", "7"]
    assert "1 row; `starlift quarantine show TABLE KEY` shows one" in shown(ENTRY)


def test_a_key_may_be_a_negative_number() -> None:
    context = typer.main.get_group(app).commands["show"].make_context("show", ["dim_shelf", "-1", "a"])
    assert (context.params["table"], context.params["key"]) == ("dim_shelf", ["-1", "a"])


def test_an_empty_quarantine_is_reported_in_a_sentence() -> None:
    assert shown() == "nothing is in quarantine\n"


def test_a_replay_is_reported_in_a_sentence() -> None:
    assert replay_sentence(Replayed(3, batches(2), []), None) == "sent again: 3 rows in 2 batches"
    assert replay_sentence(Replayed(1, batches(1), []), 0) == "sent again: 1 row in 1 batch; still in quarantine: 0 rows"
    assert replay_sentence(Replayed(0, [], [ENTRY]), None) == (
        "sent again: 0 rows in 0 batches; "
        "not sent: 1 row whose batch is no longer known, which `starlift ingest --full` reads again"
    )
