"""`starlift verify`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from services.operator.proof.baseline import keep_baseline
from services.operator.proof.command import (
    BeginAnew,
    History,
    Record,
    Report,
    Sample,
    Settle,
    Tables,
    repaired_sentence,
    require_history,
    scope_of,
    tell,
    verify_history,
)
from services.operator.proof.command import verify as compare
from services.operator.proof.history_verdict import HistoryVerdict
from services.operator.proof.repair import repair
from services.operator.proof.verdict import Verdict
from services.operator.proof.verify import Proof
from services.operator.system import System
from services.operator.terminal.session import with_system

app = typer.Typer()
complaints = Console(stderr=True)


@app.command()
def verify(  # noqa: PLR0913 (each parameter is an option of the command)
    tables: Tables = None,
    *,
    sample: Sample = 1.0,
    settle: Settle = 30.0,
    history: History = False,
    report: Report = None,
    begin_anew: BeginAnew = False,
    record: Record = False,
    mend: Annotated[bool, typer.Option("--repair", help="Have the rows that differ read again, then compare again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Compare the star with the source, row by row. Exit code 3 if they differ, 4 if rows are stuck on their way."""
    scope = scope_of(tables, sample, settle, record=record, report=report)
    require_history(history=history, begin_anew=begin_anew)

    async def work(system: System) -> tuple[Verdict, HistoryVerdict | None, str]:
        if begin_anew:
            await keep_baseline(Proof.of(system))
        verdict = await compare(system, scope, is_regular=record)
        if mend and not verdict.is_equal:
            runs = await repair(system, verdict)
            complaints.print(repaired_sentence(verdict, runs), highlight=False, soft_wrap=True)
            verdict = await compare(system, scope, is_regular=record) if runs else verdict
        return verdict, await verify_history(system, scope) if history else None, system.settings.source_name

    verdict, past, source_name = with_system(work)
    tell(verdict, past, as_json=as_json, report=report, source_name=source_name)
