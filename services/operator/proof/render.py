"""The verdict of a proof as people read it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from services.operator.proof.comparison import NAMED_MAXIMUM, Difference
from services.operator.proof.verdict import Outcome, Verdict
from services.operator.render import clock, counted, printable, reasons_in_words

DIFFERENCES_SHOWN = 5  # per table
DIFFERENCES_IN_REPORT = 1_000  # likewise
COLOURS = {Outcome.EQUAL: "green", Outcome.PENDING: "yellow", Outcome.DIFFERENT: "red"}


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print a line per table, the named differences, and the verdict as a sentence."""
    stuck = ("stuck",) if verdict.stuck else ()  # a terminal has little room at 80 columns
    names = ("table", "expected", "found", "in flight", *stuck, "quarantine", "different")
    table = Table(*names, title="Proof", title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for found in verdict.tables:
        table.add_row(
            Text(found.table),
            *(f"{number:,}" for number in (found.expected, found.actual, found.in_flight)),
            *(f"[bold yellow]{found.stuck:,}[/]" if found.stuck else "0" for _ in stuck),
            f"{found.quarantined:,}",
            f"[bold red]{found.different:,}[/]" if found.different else "0",
        )
    console.print(table)
    for found in verdict.tables:
        for difference in found.differences[:DIFFERENCES_SHOWN]:
            # As a Text: a value may look like markup or an emoji.
            console.print(Text(f"{found.table} {describe(difference)}", "red"), soft_wrap=True)
        if found.different > DIFFERENCES_SHOWN:
            more = more_sentence(found.different - DIFFERENCES_SHOWN)
            console.print(Text(f"{found.table}: {more}", "red"), soft_wrap=True)
    console.print(verdict_sentence(verdict), highlight=False, soft_wrap=True)


def more_sentence(number: int) -> str:
    """How many differences are not shown."""
    return f"{number:,} more; --json names {NAMED_MAXIMUM:,} at most"


def describe(difference: Difference) -> str:
    """A difference in words: which row, and for each column what was expected and what was found."""
    key = ", ".join(map(printable, difference.key))
    columns = "; ".join(
        f"{name}: expected {expected!r}, found {found!r}" for name, (expected, found) in difference.columns.items()
    )
    return f"{key} is {difference.kind}" + (f" ({columns})" if columns else "")


def verdict_sentence(verdict: Verdict) -> str:
    """The verdict as one sentence, its first word coloured; a name in a reason may look like markup."""
    word, _, rest = verdict_words(verdict).partition(" ")
    return f"[bold {COLOURS[verdict.outcome]}]{word}[/] {escape(rest)}"


def verdict_words(verdict: Verdict) -> str:
    """The verdict as one sentence."""
    through = verdict.progress.consistent_through
    as_of = "before any load" if through is None else f"as of run {through.run}"
    aside = f"{counted(verdict.in_flight, 'row', 'rows')} in flight, {verdict.quarantined:,} in quarantine"
    if verdict.settled_at is not None:
        aside += f" (rows in flight were compared again at {clock(verdict.settled_at)})"
    if verdict.sample < 1:
        aside += f"; a sample of {verdict.sample:.2%} of the rows"
    rows = sum(table.expected for table in verdict.tables)
    at = clock(verdict.taken_at)
    reasons = "".join(f"; {reason}" for reason in reasons_in_words(verdict.reasons))
    match verdict.outcome:
        case Outcome.EQUAL:
            return f"EQUAL {as_of}: {rows:,} rows compared at {at}, {aside}."
        case Outcome.PENDING:
            stuck = counted(verdict.stuck, "row", "rows")
            return f"PENDING {as_of}: {stuck} stuck, {rows:,} compared at {at}, {aside}{reasons}."
        case Outcome.DIFFERENT:
            differences = sum(table.different for table in verdict.tables)
            stuck = f"{verdict.stuck:,} stuck, " if verdict.stuck else ""
            return f"DIFFERENT {as_of}: {differences:,} of {rows:,} rows differ at {at}, {stuck}{aside}{reasons}."
