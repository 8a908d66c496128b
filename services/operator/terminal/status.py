"""`starlift status`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.proofs import Outcome
from services.operator.locate import local_stack
from services.operator.status.look import LIMIT, look
from services.operator.status.report import StatusReport
from services.operator.terminal.harness import ExitCode
from services.operator.terminal.session import AsJson, opening, run
from services.operator.wording import clock, counted, printable, reasons_in_words

MINUTE_S = 60

app = typer.Typer()


@app.command()
def status(
    *,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for each part; later answers are left out.")
    ] = LIMIT.total_seconds(),
    as_json: AsJson = False,
) -> None:
    """Show services, queues, dead letters, rows and freshness.

    Exit code 5 if anything needs attention; 1 if everything known is healthy but a part did not answer in time.
    """
    local = local_stack()  # before the settings of the local stack replace our environment
    services, psql = (local.services(), local.psql()) if local else (None, None)
    report = run(look(opening(), timedelta(seconds=timeout), services=services, psql=psql))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        show_status(Console(), report)
    if report.problems:
        raise typer.Exit(ExitCode.UNHEALTHY)
    if report.late:
        raise typer.Exit(ExitCode.FAILED)


def show_status(console: Console, report: StatusReport) -> None:
    """Print services, queues, rows and freshness, and in the end what needs a person."""
    for table in _tables(report):
        console.print(table)
    if report.missing_batches is not None:
        console.print(_freshness(report), soft_wrap=True)  # one line, also through a pipe
    if "proof" not in report.silent:
        console.print(_proved(report), soft_wrap=True)
    for sentence in _warnings(report):
        console.print(Text(sentence, "yellow"), soft_wrap=True)
    if report.psql is not None:
        console.print(f"The star: {report.psql}", highlight=False, markup=False, soft_wrap=True)
    if report.services is None:
        console.print("Services are shown for a local stack only; on AWS ask ECS.", highlight=False, soft_wrap=True)
    for problem in report.problems:
        console.print(Text(f"not healthy: {problem}", "bold red"), soft_wrap=True)


def _tables(report: StatusReport) -> Iterator[Table]:
    """Services, queues and the warehouse, as far as they answered."""
    if report.services is not None:
        table = Table("service", "alive since", "restarts", "waits for", title="Services", title_justify="left")
        for name, service in report.services.items():
            since = clock(service.alive_since) if service.alive_since else "[bold red]not running[/]"
            table.add_row(name, since, f"{service.restarts:,}", Text(printable(service.waits_for or "")))
        yield table
    if report.queues:
        table = Table("service", "waiting", "in flight", "delayed", "dead letters", title="Queues", title_justify="left")
        for name, depth in report.queues.items():
            dead = report.dead_letters[name]
            shown = f"[bold red]{dead}[/]" if dead else "0"
            table.add_row(name, str(depth.visible), str(depth.in_flight), str(depth.delayed), shown)
        yield table
    if report.rows:
        table = Table("table", "rows", "fresh as of", title="Warehouse", title_justify="left")
        table.columns[1].justify = "right"
        for name, rows in report.rows.items():
            fresh = report.tables_fresh_as_of.get(name)
            table.add_row(Text(name), _rows(report, name, rows), clock(fresh) if fresh else "")
        yield table


def _rows(report: StatusReport, name: str, rows: int | None) -> str:
    if name in report.tables_not_created:
        return "not created yet"
    if rows is None:
        return "locked or large, never analysed"
    return f"{'about ' if name in report.rows_estimated else ''}{rows:,}"


def _warnings(report: StatusReport) -> Iterator[str]:
    if any(report.dead_letters.values()):
        yield "`starlift dlq list` prints why the messages failed."
    if (held_back_s := report.horizon_held_back_seconds or 0) > MINUTE_S:
        since = f"A transaction at the source has been open for {held_back_s:,.0f} s"
        yield f"{since}: every run reads again what has changed since."
    for name, columns in report.new_columns.items():
        known = f"the contract does not name {counted(len(columns), 'column', 'columns')} of source table '{name}'"
        yield f"{known}: {', '.join(columns)}"
    if report.quarantined:
        yield f"{counted(report.quarantined, 'row is', 'rows are')} in quarantine: `starlift quarantine list` prints why"
    if report.keys_compared_as_of is not None:
        yield _deletes(report, report.keys_compared_as_of)
    if report.missing_batches:
        missing = counted(len(report.missing_batches), "batch is", "batches are")
        yield f"{missing} not loaded yet, {report.overdue_batches or 0:,} of them overdue"
    if report.late:
        yield f"not known: {', '.join(report.late)}: {report.silent[report.late[0]]}; `--timeout` sets how long to wait"


def _deletes(report: StatusReport, compared_as_of: datetime) -> str:
    """As of when deleted rows are marked, or what that waits for."""
    waits = []
    if report.tables_in_comparison:
        waits.append(f"the comparison of {counted(len(report.tables_in_comparison), 'table', 'tables')} is not finished")
    if report.oldest_question_seconds is not None:
        asked = counted(report.open_questions, "question is", "questions are")
        waits.append(f"{asked} open, the oldest for {report.oldest_question_seconds:,.0f} s")
    if waits:
        return f"Deleted rows are being looked for, as of {clock(compared_as_of)}: {'; '.join(waits)}."
    return f"Deleted rows are marked as of {clock(compared_as_of)}."


def _freshness(report: StatusReport) -> str:
    if report.last_run_at is None:
        return "No run has completed yet."
    last = f"Last run {report.last_run} at {clock(report.last_run_at)}"
    if report.fresh_as_of is None:
        return f"{last}; nothing is loaded yet."
    return f"{last}; the warehouse shows the source as of {clock(report.fresh_as_of)}, {report.behind_seconds:.1f} s ago."


def _proved(report: StatusReport) -> Text:
    """What the last proof found, and why there is no newer one. As a Text: a reason may look like markup."""
    proof, failure = report.proved, report.proof_failure
    if proof is None:
        shown = Text("Never proved yet: `starlift verify` compares everything with the source.")
    elif proof.outcome is Outcome.DIFFERENT:
        rows = f"{proof.different:,} of {proof.rows:,} rows; `starlift verify` names them."
        shown = Text.assemble((f"Found different {_ago(report, proof.taken_at)}", "bold red"), f": {rows}")
    elif proof.outcome is Outcome.PENDING:
        reasons = "; ".join(reasons_in_words(proof.reasons))
        shown = Text.assemble((f"Pending {_ago(report, proof.taken_at)}", "bold yellow"), f": {reasons}.")
    else:
        words = f"{proof.rows:,} rows, {proof.in_flight:,} in flight, {proof.quarantined:,} in quarantine."
        shown = Text(f"Proved equal {_ago(report, proof.taken_at)}: {words}")
    if failure is not None:
        shown.append(f"\nThe last proof failed {_ago(report, failure.failed_at)}: {failure.reason}", "bold red")
    elif report.is_proof_old:
        shown.append(" No proof since: check that the proof schedule is running.", "yellow")
    return shown


def _ago(report: StatusReport, moment: datetime) -> str:
    seconds = (report.at - moment).total_seconds()
    return f"{seconds:.0f} s ago" if seconds < MINUTE_S * 2 else f"{seconds / MINUTE_S:,.0f} min ago"
