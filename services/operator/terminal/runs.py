"""`starlift runs`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.operator.runs import RunOutcome, Runs, RunSummary, last_runs
from services.operator.terminal.session import AsJson, with_system
from services.operator.wording import clock, counted

PIPE_WIDTH = 160  # where there is no terminal: a line for each run

app = typer.Typer()


@app.command()
def runs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many runs to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the last runs and their results.

    For each run: who requested it, how many rows it read, and the seconds of each hop.
    """
    found = with_system(lambda system: last_runs(system, limit))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        console = Console()
        show_runs(console if console.is_terminal else Console(width=PIPE_WIDTH), found)


def show_runs(console: Console, found: Runs) -> None:
    """Print a line for each run."""
    if not found.runs:
        console.print("no run has begun yet; `starlift ingest` asks for one")
        return
    table = Table("run", "read at", "asked by", "kind", "rows", "seconds", "outcome", title=f"Runs of {found.source}")
    table.title_justify = "left"
    table.columns[4].justify = "right"
    for run in found.runs:
        kind = "" if run.full is None else "full" if run.full else "look-up" if run.is_answer else "changes"
        asked_by = run.trigger or ("loading" if run.is_answer else "")
        read_at = clock(run.taken_at) if run.taken_at else ""
        rows = "" if run.rows_read is None else f"{run.rows_read:,}"
        table.add_row(str(run.run), read_at, asked_by, kind, rows, seconds_of(run), outcome_of(run))
    console.print(table)
    console.print("seconds: ingesting + remodelling + loading, waits in queues included", highlight=False)


def seconds_of(run: RunSummary) -> str:
    """The seconds of the hops that are over."""
    hops = (run.seconds_ingesting, run.seconds_remodelling, run.seconds_loading)
    return " + ".join(f"{seconds:.1f}" for seconds in hops if seconds is not None)


def outcome_of(run: RunSummary) -> str:
    """What became of the run, in words."""
    batches = counted(run.batches or 0, "batch", "batches")
    match run.outcome:
        case RunOutcome.LOADED:
            refused = f", {counted(run.rows_quarantined, 'row', 'rows')} refused" if run.rows_quarantined else ""
            return f"loaded: {batches}, {counted(run.rows_loaded or 0, 'row', 'rows')}{refused}"
        case RunOutcome.MISSING:
            dead = f"; dead letters: {', '.join(run.dead_letters)}" if run.dead_letters else ""
            return f"{run.batches_loaded} of {batches} loaded{dead}"
        case RunOutcome.SUPERSEDED:
            return f"{run.batches_loaded} of {batches} loaded; superseded by a later full run"
        case RunOutcome.UNCHANGED:
            return "nothing had changed"
        case RunOutcome.RUNNING:
            return "running"
        case RunOutcome.VOID:
            return "void: it ended early, and the next run reads the same changes again"
