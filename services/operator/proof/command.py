"""`starlift verify`: what the command takes, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from services.operator import render
from services.operator.exit_codes import ComplaintError, ExitCode
from services.operator.proof.comparison import NAMED_MAXIMUM
from services.operator.proof.history import check_history
from services.operator.proof.history_render import show_history
from services.operator.proof.history_verdict import HistoryVerdict, history_as_json
from services.operator.proof.record import keep_failure, keep_record
from services.operator.proof.render import show_verdict
from services.operator.proof.report import report as as_html
from services.operator.proof.verdict import Outcome, Scope, Verdict, verdict_as_json
from services.operator.proof.verify import Proof
from services.operator.system import System
from shared.errors import DependencyDownError, PermanentError, TransientError

people = Console()
aside = Console(stderr=True)
_CLASSED = (DependencyDownError, PermanentError, TransientError)

Tables = Annotated[list[str] | None, typer.Argument(metavar="TABLE", help="Warehouse tables; default: all.")]
Sample = Annotated[float, typer.Option(min=0.0005, max=1, help="Compare this share of the rows, chosen by their keys.")]
Settle = Annotated[
    float,
    typer.Option(min=0, max=86_400, help="Seconds to wait for the next run, and compare again what was in flight; 0: don't."),
]
History = Annotated[bool, typer.Option("--history", help="Also check that no version of a fact is lost or duplicated.")]
BeginAnew = Annotated[
    bool,
    typer.Option(
        "--begin-anew",
        help="With --history: check only what is loaded from now on, now and later; for a star whose ledger was lost.",
    ),
]
Record = Annotated[
    bool, typer.Option("--record", help="One of a regular series of proofs: `status` reports when the next one is missing.")
]
Report = Annotated[Path | None, typer.Option(dir_okay=False, help="Write the verdict as one page of HTML.")]


async def verify(system: System, scope: Scope, *, is_regular: bool) -> Verdict:
    """Compare under a progress bar, and keep the verdict on the whole star, or why there is none, for `status`.

    Raises: ComplaintError; DependencyDownError, PermanentError, TransientError.
    """
    try:
        verdict = await _compare(system, scope)
    except ComplaintError:
        raise
    except Exception as error:  # a proof that can't be made must not fail silently, whatever the error
        if scope.is_everything:
            with suppress(*_CLASSED):
                reason = str(error) if isinstance(error, _CLASSED) else f"unexpected {type(error).__name__}; see the log"
                await keep_failure(system, reason)
        raise
    if scope.is_everything:
        try:
            await keep_record(system, verdict, is_regular=is_regular)
        except _CLASSED as error:
            if is_regular:
                raise
            aside.print(f"the verdict is not kept for `starlift status`: {error}", style="yellow", markup=False, soft_wrap=True)
    return verdict


async def _compare(system: System, scope: Scope) -> Verdict:
    proof = Proof.of(system)
    bar = Progress(TextColumn("comparing {task.description}"), BarColumn(), MofNCompleteColumn(), console=aside, transient=True)
    with bar:
        task = bar.add_task("", total=len(proof.chosen(scope)))

        def show(table: str) -> None:
            bar.update(task, description=table, advance=1)

        return await proof.run(scope, on_table=show)


async def verify_history(system: System, scope: Scope) -> HistoryVerdict:
    """Check the history of the facts in question."""
    with aside.status("checking the history") as shown:
        return await check_history(
            Proof.of(system), scope.tables, on_fact=lambda fact: shown.update(f"checking the history of {fact}")
        )


def scope_of(tables: list[str] | None, sample: float, settle: float, *, record: bool, report: Path | None = None) -> Scope:
    """What to compare. Raises: typer.BadParameter for what could not be done, before an hour is spent on it."""
    if record and (tables or sample < 1):
        raise typer.BadParameter("--record is for proofs of everything; leave out tables and --sample")
    if not isfinite(sample) or not isfinite(settle):
        raise typer.BadParameter("--sample and --settle are numbers; give one, not nan or inf")
    if report is not None and not report.absolute().parent.is_dir():
        raise typer.BadParameter(f"--report: '{report.parent}' is no directory; make it, or name another")
    return Scope(tuple(tables or ()), sample, timedelta(seconds=settle))


def require_history(*, history: bool, begin_anew: bool) -> None:
    """Raises: typer.BadParameter for --begin-anew without --history."""
    if begin_anew and not history:
        raise typer.BadParameter("--begin-anew needs --history; pass both")


def tell(verdict: Verdict, past: HistoryVerdict | None = None, *, as_json: bool, report: Path | None, source_name: str) -> None:
    """Show the verdict, with that of the history, and write the report. Exits with 3 for differences, 4 for stuck rows.

    Raises: ComplaintError where the report can't be written.
    """
    if as_json:
        history = {} if past is None else {"history": history_as_json(past)}
        typer.echo(json.dumps(verdict_as_json(verdict) | history, indent=2))
    else:
        show_verdict(people, verdict)
        if past is not None:
            show_history(people, past)
    if report is not None:
        _write(report, as_html(verdict, source_name, past))
    if verdict.outcome is Outcome.DIFFERENT or (past is not None and not past.is_complete):
        raise typer.Exit(ExitCode.DIFFERENT)
    if verdict.outcome is Outcome.PENDING:
        raise typer.Exit(ExitCode.NOT_LOADED)


def _write(report: Path, page: str) -> None:
    try:
        report.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ComplaintError(f"the report can't be written to '{report}': {error.strerror}", ExitCode.FAILED) from error


def repaired_sentence(verdict: Verdict, runs: Sequence[int]) -> str:
    """What a repair has done, and what it has not."""
    if not runs:
        return "no differing row can be read again"
    sentence = f"repaired by {'run' if len(runs) == 1 else 'runs'} {', '.join(map(str, runs))}"
    left = sum(table.unnamed for table in verdict.tables)
    if left:
        rest = render.counted(left, "row", "rows")
        sentence += (
            f"; of each table {NAMED_MAXIMUM:,} rows at most: {rest} left, which `--repair` again or `ingest --full` mends"
        )
    return f"{sentence}; comparing again"
