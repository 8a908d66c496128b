"""The `starlift` command. Each command is a few lines here; what it does stands in its own module."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console

from contracts.messages import Mode
from services.operator import render
from services.operator.dlq.commands import dlq_app
from services.operator.exit_codes import ComplaintError, ExitCode
from services.operator.ingest import RunNotLoadedError, request_run, resend_missing, wait_until_loaded
from services.operator.locate import WrongSettingsError, has_local_stack, local_stack, operator_settings
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
from services.operator.quarantine_command import quarantine_app
from services.operator.session import with_system
from services.operator.status import look
from services.operator.system import System
from services.operator.trace.life import read_life
from services.operator.trace.render import life_as_json, show_life
from shared.errors import DependencyDownError, PermanentError, TransientError

EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 the warehouse differs, 4 not loaded or pending, 5 not healthy, "
    "130 interrupted."
)

app = typer.Typer(
    help="Keep a star-schema warehouse equal to an OLTP PostgreSQL database, and prove it.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(dlq_app)
app.add_typer(quarantine_app)
people = Console()
complaints = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")]


@app.command()
def ingest(
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every row again, not only what changed.")] = False,
    compare_keys: Annotated[
        bool, typer.Option("--compare-keys", help="Find deleted rows now; a full run does anyway.")
    ] = False,
    believe_empty: Annotated[
        bool, typer.Option("--believe-empty", help="Compare keys, also of tables that have no row left.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the run and every run before it are in the warehouse.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Ask for a run: read what has changed since the last one, and load it."""
    local = local_stack()

    async def work(system: System) -> str:
        mode = Mode.FULL if full else Mode.CHANGES
        request = await request_run(system, mode, compare_keys=compare_keys or believe_empty, believe_empty=believe_empty)
        if not wait:
            return f"asked for a run, command {request.command.id}"
        with render.waiting_shown(complaints, local.services if local else dict) as show:
            manifest = await wait_until_loaded(system, request, limit=timedelta(seconds=timeout), on_progress=show)
        batches = render.counted(len(manifest.batches), "batch", "batches")
        return f"run {manifest.run} is loaded: {batches}; every run before it is loaded as well"

    people.print(with_system(work), highlight=False)


@app.command()
def resend() -> None:
    """Send batches again that were announced and never loaded (a message that outlived its queue)."""
    people.print(f"sent again: {render.counted(with_system(resend_missing), 'batch', 'batches')}", highlight=False)


@app.command()
def status(
    *,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for answers; what takes longer is left out.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show services, queues, dead letters, the last run, rows and freshness. Exit code 5 if anything needs a person."""
    local = local_stack()  # before the settings of the local stack replace our environment
    services, reach = (local.services(), local.psql()) if local else (None, None)
    found = replace(asyncio.run(look(operator_settings(), timedelta(seconds=timeout))), services=services, reach=reach)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        render.show_status(people, found)
    if not found.is_healthy:
        raise typer.Exit(ExitCode.UNHEALTHY)


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
    as_json: AsJson = False,
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


# A key may be a negative number, which looks like an option.
@app.command(context_settings={"ignore_unknown_options": True})
def trace(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the warehouse.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, a value for each of its columns.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Tell the life of a row: each version, its run, messages, objects and times. Exit code 4 if it is not in the warehouse."""
    life = with_system(lambda system: read_life(system, table, key))
    if as_json:
        typer.echo(json.dumps(life_as_json(life), indent=2))
    else:
        show_life(people, life)
    if not life.is_known:
        raise typer.Exit(ExitCode.NOT_LOADED)


def main() -> None:
    """Run the command; a mistake becomes one sentence and an exit code."""
    if has_local_stack():
        from services.operator.local.commands import local_app  # noqa: PLC0415 (an image for AWS is without what it imports)

        app.add_typer(local_app)
    sys.exit(guarded(app))


def guarded(command: Callable[[], object]) -> int:
    """The exit code of `command`; what a person can mend is told in one sentence."""
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except ComplaintError as complaint:
        return _complain(str(complaint), complaint.code)
    except WrongSettingsError as error:
        return _complain(str(error), ExitCode.USAGE)
    except RunNotLoadedError as error:
        return _complain(str(error), ExitCode.NOT_LOADED)
    except (DependencyDownError, PermanentError, TransientError) as error:
        return _complain(str(error), ExitCode.FAILED)
    return ExitCode.DONE


def _complain(sentence: str, code: int) -> int:
    complaints.print(f"{render.COMPLAINT}{sentence}", highlight=False, markup=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
