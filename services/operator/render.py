"""The status for people, and how numbers, times and foreign texts are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.operator.ingest import Waiting
from services.operator.status import Status

MINUTE_S = 60
LINE_EVERY_S = 5.0  # where there is no terminal to show a spinner
COMPLAINT = "starlift: "  # how the one sentence begins that ends a command


@contextmanager
def waiting_shown(console: Console) -> Iterator[Callable[[Waiting], None]]:
    """Show what a wait is for: beside a spinner; without a terminal in a line each LINE_EVERY_S, while it changes."""
    line, at = "", time.monotonic()
    with console.status("waiting for the run") as spinner:

        def show(waiting: Waiting) -> None:
            nonlocal line, at
            spinner.update(waiting.sentence)
            if not console.is_terminal and line != waiting.sentence and time.monotonic() - at >= LINE_EVERY_S:
                line, at = waiting.sentence, time.monotonic()
                console.print(f"waiting: {line}", highlight=False, markup=False, soft_wrap=True)

        yield show


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
    if any(depth.visible + depth.in_flight for depth in status.dead_letters.values()):
        console.print(
            "`starlift dlq list` tells what the dead letters died of.", style="yellow", highlight=False, soft_wrap=True
        )
    rows = Table("table", "rows", title="Warehouse", title_justify="left")
    rows.columns[1].justify = "right"
    for name, number in status.rows.items():
        rows.add_row(name, "not created yet" if number is None else f"{number:,}")
    console.print(rows)
    console.print(_freshness(status), soft_wrap=True)  # one line, for whoever reads it through a pipe
    console.print(_proved(status), soft_wrap=True)
    if (held_back_s := status.held_back_s or 0) > MINUTE_S:
        told = (
            f"A transaction at the source has been open for {held_back_s:,.0f} s: what has changed since is read by every run."
        )
        console.print(f"[yellow]{told}[/]", soft_wrap=True)
    for name, columns in (status.progress.checkpoint.new_columns if status.progress.checkpoint else {}).items():
        known = f"the contract does not know {counted(len(columns), 'column', 'columns')} of source table '{name}'"
        console.print(Text(f"{known}: {', '.join(columns)}", "yellow"), soft_wrap=True)
    if status.quarantined:
        held = counted(status.quarantined, "row is", "rows are")
        console.print(f"[yellow]{held} in quarantine: `starlift quarantine list` says why[/]", soft_wrap=True)
    if status.progress.missing:
        missing, overdue = len(status.progress.missing), status.progress.overdue
        console.print(f"[yellow]{counted(missing, 'batch is', 'batches are')} not loaded yet, {overdue:,} of them overdue[/]")


def _freshness(status: Status) -> str:
    progress = status.progress
    if progress.checkpoint is None:
        return "No run has completed yet."
    run = f"Last run {progress.checkpoint.run} at {clock(progress.checkpoint.started_at)}"
    if progress.fresh_as_of is None:
        return f"{run}; nothing is loaded yet."
    behind = (status.at - progress.fresh_as_of).total_seconds()
    return f"{run}; the warehouse shows the source as of {clock(progress.fresh_as_of)}, {behind:.1f} s ago."


def _proved(status: Status) -> str:
    proof = status.proof
    if proof is None:
        return "Never proved yet: `starlift verify --record` compares everything with the source."
    ago = (status.at - proof.taken_at).total_seconds()
    when = f"{ago:.0f} s ago" if ago < MINUTE_S * 2 else f"{ago / MINUTE_S:,.0f} min ago"
    if not proof.is_equal:
        return f"[bold red]Found different {when}[/]: {proof.different:,} of {proof.rows:,} rows; `starlift verify` names them."
    words = f"{proof.rows:,} rows, {proof.in_flight:,} in flight, {proof.quarantined:,} in quarantine."
    if status.is_proof_old:
        return f"[yellow]Proved equal {when}[/], and not since: {words} See why the schedule makes no proofs."
    return f"Proved equal {when}: {words}"


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def clock(moment: datetime) -> str:
    """A time of UTC, to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def printable(value: object) -> str:
    """A value as it may reach a terminal: what would steer it is spelled."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
