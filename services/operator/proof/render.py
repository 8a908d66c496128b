"""The verdict of a proof for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.operator.proof.comparison import NAMED_MAXIMUM, Difference
from services.operator.proof.verdict import Verdict
from services.operator.render import MINUTE_S, clock, counted, printable

DIFFERENCES_SHOWN = 5  # of each table
DIFFERENCES_IN_REPORT = 1_000  # likewise


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
