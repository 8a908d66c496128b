"""Tables and verdicts for people."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.operator.proof.comparison import Difference
from services.operator.proof.verify import Verdict
from services.operator.status import Status

COMPLAINT = "starlift: "  # how the one sentence begins that ends a command
DIFFERENCES_SHOWN = 5  # of each table


def show_status(console: Console, status: Status) -> None:
    """Queues, rows, freshness."""
    queues = Table("service", "waiting", "in flight", "delayed", "dead letters", title="Queues", title_justify="left")
    for name, depth in status.queues.items():
        dead = status.dead_letters[name]
        count = dead.visible + dead.in_flight
        queues.add_row(
            name, str(depth.visible), str(depth.in_flight), str(depth.delayed), f"[bold red]{count}[/]" if count else "0"
        )
    console.print(queues)
    rows = Table("table", "rows", title="Warehouse", title_justify="left")
    rows.columns[1].justify = "right"
    for name, number in status.rows.items():
        rows.add_row(name, "not created yet" if number is None else f"{number:,}")
    console.print(rows)
    console.print(_freshness(status), soft_wrap=True)  # one line, for whoever reads it through a pipe
    if status.progress.quarantined:
        console.print(f"[yellow]{counted(status.progress.quarantined, 'row was', 'rows were')} put in quarantine[/]")
    if status.progress.missing:
        missing, overdue = len(status.progress.missing), status.progress.overdue
        console.print(f"[yellow]{counted(missing, 'batch is', 'batches are')} not loaded yet, {overdue:,} of them overdue[/]")


def _freshness(status: Status) -> str:
    progress = status.progress
    if progress.checkpoint is None:
        return "No run has completed yet."
    run = f"Last run {progress.checkpoint.run} at {_clock(progress.checkpoint.started_at)}"
    if progress.fresh_as_of is None:
        return f"{run}; nothing is loaded yet."
    behind = (status.at - progress.fresh_as_of).total_seconds()
    return f"{run}; the warehouse shows the source as of {_clock(progress.fresh_as_of)}, {behind:.1f} s ago."


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Table by table, the differences by name, and the verdict in a sentence."""
    table = Table("table", "expected", "found", "in flight", "quarantine", "different", title="Proof", title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for found in verdict.tables:
        different = len(found.differences)
        table.add_row(
            found.table,
            f"{found.expected:,}",
            f"{found.actual:,}",
            f"{found.in_flight:,}",
            f"{found.quarantined:,}",
            f"[bold red]{different:,}[/]" if different else "0",
        )
    console.print(table)
    for found in verdict.tables:
        for difference in found.differences[:DIFFERENCES_SHOWN]:
            # As a Text: a value may look like markup or an emoji.
            console.print(Text(f"{found.table} {describe(difference)}", "red"), soft_wrap=True)
        if len(found.differences) > DIFFERENCES_SHOWN:
            console.print(f"[red]{found.table}: {len(found.differences) - DIFFERENCES_SHOWN:,} more; --json lists all[/]")
    console.print(verdict_sentence(verdict), highlight=False, soft_wrap=True)


def describe(difference: Difference) -> str:
    """A difference in words: which row, and for each column what was expected and what was found."""
    key = ", ".join(map(str, difference.key))
    columns = "; ".join(
        f"{name}: expected {expected!r}, found {found!r}" for name, (expected, found) in difference.columns.items()
    )
    return f"{key} is {difference.kind}" + (f" ({columns})" if columns else "")


def verdict_sentence(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    through = verdict.progress.consistent_through
    as_of = "before any load" if through is None else f"as of run {through.run}"
    aside = f"{verdict.in_flight:,} rows in flight, {verdict.quarantined:,} in quarantine"
    rows = sum(table.expected for table in verdict.tables)
    if verdict.is_equal:
        return f"[bold green]EQUAL[/] {as_of}: {rows:,} rows compared at {_clock(verdict.taken_at)}, {aside}."
    differences = sum(len(table.differences) for table in verdict.tables)
    if verdict.progress.overdue:
        overdue = counted(verdict.progress.overdue, "batch is", "batches are")
        aside += (
            f"; {overdue} overdue: `starlift resend` sends what was announced again, `starlift ingest --full` reads it again"
        )
    return f"[bold red]DIFFERENT[/] {as_of}: {differences:,} of {rows:,} rows differ at {_clock(verdict.taken_at)}, {aside}."
