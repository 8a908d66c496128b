"""`starlift verify`: what the command takes, and what it leaves behind."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from services.operator import render
from services.operator.exit_codes import ExitCode
from services.operator.proof.history import check_history
from services.operator.proof.history_render import show_history
from services.operator.proof.history_verdict import HistoryVerdict, history_as_json
from services.operator.proof.record import ProofRecord, keep_record
from services.operator.proof.report import report as as_html
from services.operator.proof.verdict import Scope, Verdict, verdict_as_json
from services.operator.proof.verify import Proof
from services.operator.system import System

people = Console()
aside = Console(stderr=True)

Tables = Annotated[list[str] | None, typer.Argument(metavar="[TABLE]...", help="Warehouse tables; without: all.")]
Sample = Annotated[float, typer.Option(min=0.0005, max=1, help="Compare this share of the rows, chosen by their keys.")]
Settle = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for the next run, and compare again what was in flight; 0: don't.")
]
History = Annotated[bool, typer.Option("--history", help="Check, too, that no version of a fact is lost or doubled.")]
Report = Annotated[Path | None, typer.Option(dir_okay=False, help="Write the verdict as one page of HTML.")]


async def verify(system: System, scope: Scope, *, record: bool) -> Verdict:
    """Compare under a progress bar; a proof of everything may be kept as the last one."""
    proof = Proof.of(system)
    bar = Progress(TextColumn("comparing {task.description}"), BarColumn(), MofNCompleteColumn(), console=aside, transient=True)
    with bar:
        task = bar.add_task("", total=len(proof.chosen(scope)))

        def show(table: str) -> None:
            bar.update(task, description=table, advance=1)

        verdict = await proof.run(scope, on_table=show)
    if record:
        await keep_record(system, ProofRecord.of(verdict))
    return verdict


async def verify_history(system: System, scope: Scope) -> HistoryVerdict:
    """Check the history of the facts in question."""
    with aside.status("checking the history") as shown:
        return await check_history(
            Proof.of(system), scope.tables, on_fact=lambda fact: shown.update(f"checking the history of {fact}")
        )


def scope_of(tables: list[str] | None, sample: float, settle: float, *, record: bool) -> Scope:
    """What to compare. Raises: typer.BadParameter for a part of the warehouse that is to be kept as the whole."""
    if record and (tables or sample < 1):
        raise typer.BadParameter("--record keeps a proof of everything; leave out tables and --sample")
    return Scope(tuple(tables or ()), sample, timedelta(seconds=settle))


def tell(verdict: Verdict, past: HistoryVerdict | None = None, *, as_json: bool, report: Path | None, source_name: str) -> None:
    """Show the verdict, with that of the history, and write the report. Exits with 3 if the warehouse differs."""
    if report is not None:
        report.write_text(as_html(verdict, source_name), encoding="utf-8")
    if as_json:
        history = {} if past is None else {"history": history_as_json(past)}
        typer.echo(json.dumps(verdict_as_json(verdict) | history, indent=2))
    else:
        render.show_verdict(people, verdict)
        if past is not None:
            show_history(people, past)
    if not verdict.is_equal or (past is not None and not past.is_complete):
        raise typer.Exit(ExitCode.DIFFERENT)
