"""The outcome of a run, read from the documents it wrote."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from rich.console import Console

from contracts.messages import BatchIngested, BatchLoaded, BatchLoadedData, LoadedTable
from contracts.state import SourceState, StoredLease
from services.operator.progress import DeadMessage
from services.operator.runs import RunOutcome, Runs, RunSummary, last_runs, run_of, run_without_manifest
from services.operator.terminal.runs import PIPE_WIDTH, outcome_of, seconds_of, show_runs
from shared.envelope import opening
from shared.ledger import LoadedEvent
from tests.unit.services.operator.scene import BEGAN, Scene, checkpoint


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def loaded(batch: BatchIngested, began: float, committed: float) -> LoadedEvent:
    known = batch.data.model_dump(exclude={"extracts", "hashes", "gone", "answers"})
    data = BatchLoadedData(**known, tables=(LoadedTable(table="dim_staff", row_count=3),), quarantined=1)
    return LoadedEvent(BatchLoaded(**{**opening("tests"), "time": at(began)}, data=data), at(committed))


async def test_a_loaded_run_has_the_seconds_of_each_hop() -> None:
    manifest = await Scene().end_run(7, batches=2)
    first, second = (
        batch.model_copy(update={"time": at(seconds)}) for batch, seconds in zip(manifest.batches, (1, 2), strict=True)
    )
    manifest = manifest.model_copy(update={"batches": (first, second)})
    events = {first.data.batch_id: loaded(first, 5, 9), second.data.batch_id: loaded(second, 4, 6)}
    run = run_of(manifest, events, {})
    assert (run.seconds_ingesting, run.seconds_remodelling, run.seconds_loading) == (2, 3, 4)
    assert (run.outcome, run.batches, run.batches_loaded, run.rows_loaded, run.rows_quarantined) == (
        RunOutcome.LOADED,
        2,
        2,
        6,
        2,
    )
    assert seconds_of(run) == "2.0 + 3.0 + 4.0"
    assert outcome_of(run) == "loaded: 2 batches, 6 rows, 2 rows refused"


async def test_a_run_with_a_missing_batch_names_its_dead_letter() -> None:
    manifest = await Scene().end_run(7, batches=2)
    first, second = manifest.batches
    dead = {second.data.batch_id: DeadMessage("loading", "a1b2", 7)}
    run = run_of(manifest, {first.data.batch_id: loaded(first, 5, 9)}, dead)
    assert (run.outcome, run.dead_letters, run.seconds_loading) == (RunOutcome.MISSING, ("a1b2",), None)
    assert outcome_of(run) == "1 of 2 batches loaded; dead letters: a1b2"
    assert run_of(manifest, {}, {}, is_superseded=True).outcome is RunOutcome.SUPERSEDED


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (SourceState(run=8, checkpoint=checkpoint(8)), RunOutcome.UNCHANGED),
        (SourceState(run=8, checkpoint=checkpoint(7), lease=StoredLease(token=uuid4(), until=at(60))), RunOutcome.RUNNING),
        (SourceState(run=8, checkpoint=checkpoint(7), lease=StoredLease(token=uuid4(), until=at(-60))), RunOutcome.VOID),
        (SourceState(run=8), RunOutcome.VOID),
    ],
)
def test_the_last_run_without_a_manifest_is_unchanged_running_or_void(state: SourceState, outcome: RunOutcome) -> None:
    run = run_without_manifest(state, BEGAN)
    assert (run.run, run.outcome) == (8, outcome)
    assert outcome_of(run)


async def test_the_list_of_runs_is_empty_before_the_first_run() -> None:
    found = await last_runs(Scene().system, 5)
    assert found.runs == ()
    console = Console(file=io.StringIO(), record=True)
    show_runs(console, found)
    assert "no run has begun yet; `starlift ingest` asks for one" in console.export_text()


def test_every_run_is_one_line_when_piped() -> None:
    console = Console(file=io.StringIO(), width=PIPE_WIDTH, record=True)
    missing = RunSummary(
        run=1796004681388, outcome=RunOutcome.MISSING, taken_at=BEGAN, full=True, batches=2, batches_loaded=1, rows_read=1234
    )
    show_runs(console, Runs(source="totesys", runs=(missing,)))
    (line,) = [line for line in console.export_text().splitlines() if "1796004681388" in line]
    assert "2026-11-01 09:30:00 UTC" in line
    assert "1,234" in line
    assert "1 of 2 batches loaded" in line


async def test_a_run_that_answers_a_question_of_loading_is_labelled() -> None:
    manifest = await Scene().end_run(7)
    (batch,) = manifest.batches
    answer = batch.model_copy(update={"data": batch.data.model_copy(update={"answers": uuid4()})})
    run = run_of(manifest.model_copy(update={"batches": (answer,)}), {}, {})
    assert (run.is_answer, run_of(manifest, {}, {}).is_answer) == (True, False)
    console = Console(file=io.StringIO(), width=PIPE_WIDTH, record=True)
    show_runs(console, Runs(source="totesys", runs=(run,)))
    (line,) = [line for line in console.export_text().splitlines() if "2026-11-01" in line]
    assert [cell.strip() for cell in line.split("│")][3:5] == ["loading", "look-up"]
