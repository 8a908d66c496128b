"""Tables and verdicts for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.operator.proof.comparison import NAMED_MAXIMUM, Difference
from services.operator.proof.verdict import Verdict
from services.operator.status import Status

MINUTE_S = 60
COMPLAINT = "starlift: "  # how the one sentence begins that ends a command
DIFFERENCES_SHOWN = 5  # of each table
DIFFERENCES_IN_REPORT = 1_000  # likewise


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


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Table by table, the differences by name, and the verdict in a sentence."""
    table = Table("table", "expected", "found", "in flight", "quarantine", "different", title="Proof", title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for found in verdict.tables:
        different = found.different
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
        if found.different > DIFFERENCES_SHOWN:
            console.print(f"[red]{found.table}: {more_sentence(found.different - DIFFERENCES_SHOWN)}[/]", soft_wrap=True)
    console.print(verdict_sentence(verdict), highlight=False, soft_wrap=True)


def more_sentence(number: int) -> str:
    """Of what is not shown."""
    return f"{number:,} more; --json names {NAMED_MAXIMUM:,} at most"


def printable(value: object) -> str:
    """A value as it may reach a terminal: what would steer it is spelled."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))


def describe(difference: Difference) -> str:
    """A difference in words: which row, and for each column what was expected and what was found."""
    key = ", ".join(map(printable, difference.key))
    columns = "; ".join(
        f"{name}: expected {expected!r}, found {found!r}" for name, (expected, found) in difference.columns.items()
    )
    return f"{key} is {difference.kind}" + (f" ({columns})" if columns else "")


def _why_not_settled(verdict: Verdict) -> Iterator[str]:
    """Why rows in flight may be in flight for ever, and what to do."""
    if verdict.progress.overdue:
        overdue = counted(verdict.progress.overdue, "batch is", "batches are")
        yield f"{overdue} overdue: `starlift resend` sends what was announced again, `starlift ingest --full` reads it again"
    if verdict.is_stalled:
        minutes = verdict.silence.total_seconds() / MINUTE_S
        yield (
            f"no run has read the source for {minutes:,.0f} min, so what is in flight stays there: see whether ingestion runs, "
            "then `starlift ingest --wait`"
        )


def verdict_sentence(verdict: Verdict) -> str:
    """The verdict in one sentence, its first word coloured."""
    word, _, rest = verdict_words(verdict).partition(" ")
    return f"[bold {'green' if verdict.is_equal else 'red'}]{word}[/] {rest}"


def verdict_words(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    through = verdict.progress.consistent_through
    as_of = "before any load" if through is None else f"as of run {through.run}"
    aside = f"{verdict.in_flight:,} rows in flight, {verdict.quarantined:,} in quarantine"
    if verdict.settled_at is not None:
        aside += f" (those were compared again at {clock(verdict.settled_at)})"
    if verdict.sample < 1:
        aside += f"; a sample of {verdict.sample:.2%} of the rows"
    rows = sum(table.expected for table in verdict.tables)
    if verdict.is_equal:
        return f"EQUAL {as_of}: {rows:,} rows compared at {clock(verdict.taken_at)}, {aside}."
    differences = sum(table.different for table in verdict.tables)
    aside += "".join(f"; {reason}" for reason in _why_not_settled(verdict))
    return f"DIFFERENT {as_of}: {differences:,} of {rows:,} rows differ at {clock(verdict.taken_at)}, {aside}."
