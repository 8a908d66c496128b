"""`starlift verify`: what the command takes, prints and returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from contracts.proofs import Outcome
from services.operator.errors import OperatorError
from services.operator.proof.history import HistoryVerdict, keep_baseline
from services.operator.proof.repair import repair
from services.operator.proof.report import keep_report
from services.operator.proof.report import report as as_html
from services.operator.proof.row_comparison import NAMED_MAXIMUM
from services.operator.proof.verdict import Scope, Verdict
from services.operator.proof.verify import chosen_tables, verify_and_keep
from services.operator.proof.version_history import check_histories
from services.operator.system import OperatorSettings, System
from services.operator.terminal.harness import ExitCode
from services.operator.terminal.session import AsJson, with_system
from services.operator.wording import counted

DIFFERENCES_SHOWN = 5  # per table
COLOURS = {Outcome.EQUAL: "green", Outcome.PENDING: "yellow", Outcome.DIFFERENT: "red"}

app = typer.Typer()
people = Console()
aside = Console(stderr=True)


@app.command()
def verify(  # noqa: PLR0913 (each parameter is an option of the command)
    tables: Annotated[list[str] | None, typer.Argument(metavar="TABLE", help="Warehouse tables; default: all.")] = None,
    *,
    sample: Annotated[
        float, typer.Option(min=0.0005, max=1, help="Compare this share of the rows, chosen by their keys.")
    ] = 1.0,
    settle: Annotated[
        float,
        typer.Option(
            min=0, max=86_400, help="Seconds to wait for the next run, then compare rows in flight again; 0: don't wait."
        ),
    ] = 30.0,
    history: Annotated[
        bool,
        typer.Option("--history", help="Also check that no version of a fact or a dimension is lost or doubled."),
    ] = False,
    report: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the verdict as one page of HTML.")] = None,
    begin_anew: Annotated[
        bool,
        typer.Option(
            "--begin-anew",
            help="With --history: accept the facts as they are and check only what is loaded from now on, in later checks as "
            "well; for a star whose ledger was lost.",
        ),
    ] = False,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Record this proof as one of a regular series: `starlift status` reports when the next one is missing. The "
            "output, which may become a log, has no values: it has the address of a page in S3 with the rows that differ.",
        ),
    ] = False,
    with_repair: Annotated[bool, typer.Option("--repair", help="Read the rows that differ again, then compare again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the star with the source, row by row. Exit code 3 if they differ, 4 if rows are stuck on their way.

    A star of files or of an API is compared with what was delivered.
    """
    scope = scope_of(tables, sample, settle, record=record, report=report)
    if begin_anew and not history:
        raise typer.BadParameter("--begin-anew needs --history; pass both")

    async def work(system: System) -> tuple[Verdict, HistoryVerdict | None, OperatorSettings, str | None]:
        if begin_anew:
            await keep_baseline(system)
        verdict = await _compare(system, scope, is_regular=record)
        if with_repair and not verdict.is_equal:
            runs = await repair(system, verdict)
            aside.print(repaired_sentence(verdict, runs), highlight=False, soft_wrap=True)
            verdict = await _compare(system, scope, is_regular=record) if runs else verdict
        past = await _check_history(system, scope) if history else None
        is_flawed = verdict.different or (past is not None and not past.is_complete)
        kept = await keep_report(system, verdict, past) if record and is_flawed else None
        return verdict, past, system.settings, kept

    verdict, past, settings, kept = with_system(work)
    code = deliver(verdict, past, settings, as_json=as_json, report=report, kept=kept)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def scope_of(tables: list[str] | None, sample: float, settle: float, *, record: bool, report: Path | None = None) -> Scope:
    """What to compare. Raises: typer.BadParameter for what could not be done, before an hour is spent on it."""
    if record and (tables or sample < 1):
        raise typer.BadParameter("--record needs a proof of the whole star; leave out tables and --sample")
    if not isfinite(sample) or not isfinite(settle):
        raise typer.BadParameter("--sample and --settle must be finite numbers")
    if report is not None and not report.absolute().parent.is_dir():
        raise typer.BadParameter(f"--report: '{report.parent}' is not a directory; create it, or name another")
    return Scope(tuple(tables or ()), sample, timedelta(seconds=settle))


async def _compare(system: System, scope: Scope, *, is_regular: bool) -> Verdict:
    """Prove under a progress bar."""
    bar = Progress(TextColumn("comparing {task.description}"), BarColumn(), MofNCompleteColumn(), console=aside, transient=True)
    with bar:
        task = bar.add_task("", total=len(chosen_tables(system, scope)))
        proof = await verify_and_keep(
            system, scope, is_regular=is_regular, on_table=lambda table: bar.update(task, description=table, advance=1)
        )
    if proof.not_kept is not None:
        sentence = f"the verdict could not be recorded for `starlift status`: {proof.not_kept}"
        aside.print(sentence, style="yellow", markup=False, soft_wrap=True)
    return proof.verdict


async def _check_history(system: System, scope: Scope) -> HistoryVerdict:
    with aside.status("checking the history") as shown:
        return await check_histories(system, scope.tables, lambda table: shown.update(f"checking the history of {table}"))


def repaired_sentence(verdict: Verdict, runs: Sequence[int]) -> str:
    """What a repair has done, and what it has not."""
    if not runs:
        return "no differing row can be read again"
    sentence = f"repaired by {'run' if len(runs) == 1 else 'runs'} {', '.join(map(str, runs))}"
    if left := sum(table.unnamed for table in verdict.tables):
        sentence += (
            f"; {counted(left, 'row', 'rows')} left, because a repair reads {NAMED_MAXIMUM:,} rows of a table at most: "
            "repeat --repair, or run `starlift ingest --full`"
        )
    return f"{sentence}; comparing again"


def deliver(
    verdict: Verdict,
    history: HistoryVerdict | None,
    settings: OperatorSettings,
    *,
    as_json: bool,
    report: Path | None,
    kept: str | None = None,
) -> ExitCode:
    """Print the verdict, with that of the history if it was checked, write the report, and return the exit code.

    If a page in S3, `kept`, names the rows, none is printed: their values would stay in a log.
    Raises: OperatorError if the report can't be written.
    """
    if as_json:
        past = {} if history is None else {"history": history.model_dump(mode="json")}
        typer.echo(json.dumps(verdict.model_dump(mode="json") | past, indent=2))
    else:
        show_verdict(people, verdict, kept, settings.source_name if len(settings.contract.sources) > 1 else None)
        if history is not None:
            show_history(people, history, kept)
    if report is not None:
        try:
            report.write_text(as_html(verdict, settings.source_name, history), encoding="utf-8")
        except OSError as error:
            raise OperatorError(f"the report can't be written to '{report}': {error.strerror}") from error
    if verdict.outcome is Outcome.DIFFERENT or (history is not None and not history.is_complete):
        return ExitCode.DIFFERENT
    return ExitCode.NOT_LOADED if verdict.outcome is Outcome.PENDING else ExitCode.DONE


def show_verdict(console: Console, verdict: Verdict, kept: str | None = None, source: str | None = None) -> None:
    """Print a line per table, the first differences of each, and the verdict as a sentence.

    The name of the `source`, of several, is in the sentence: alarms tell by it which one is proved (infra/terraform).
    """
    stuck = ("stuck",) if verdict.stuck else ()  # a terminal has little room at 80 columns
    table = Table(
        "table", "expected", "found", "in flight", *stuck, "quarantine", "different", title="Proof", title_justify="left"
    )
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
        _show_named(console, found.table, found.differences, found.different, kept)
    of_source = "" if source is None else f" (source {source})"
    console.print(f"{verdict_sentence(verdict)}{of_source}", highlight=False, soft_wrap=True)


def verdict_sentence(verdict: Verdict) -> str:
    """The verdict as one sentence, its first word coloured; a name in a reason may look like markup."""
    word, _, rest = verdict.sentence.partition(" ")
    return f"[bold {COLOURS[verdict.outcome]}]{word}[/] {escape(rest)}"


def show_history(console: Console, history: HistoryVerdict, kept: str | None = None) -> None:
    """Print fact by fact what was checked and what is wrong, and the verdict as a sentence."""
    for fact in history.facts:
        console.print(Text(fact.sentence), soft_wrap=True)
        _show_named(console, fact.table, fact.problems, fact.flawed, kept)
    word = "[bold green]HISTORY COMPLETE[/]" if history.is_complete else "[bold red]HISTORY FLAWED[/]"
    console.print(f"{word}: {history.sentence}", highlight=False, soft_wrap=True)


def _show_named(console: Console, name: str, found: Sequence[object], count: int, kept: str | None) -> None:
    """Print the first of `count` differences or problems of a table. As a Text: a value may look like markup or an emoji."""
    if kept is not None:
        if count:
            console.print(Text(f"{name}: {count:,}, named in {kept}", "red"), soft_wrap=True)
        return
    for one in found[:DIFFERENCES_SHOWN]:
        console.print(Text(f"{name} {one}", "red"), soft_wrap=True)
    if count > DIFFERENCES_SHOWN:
        more = f"{name}: {count - DIFFERENCES_SHOWN:,} more; --json names {NAMED_MAXIMUM:,} at most"
        console.print(Text(more, "red"), soft_wrap=True)
