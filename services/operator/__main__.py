"""The `starlift` command. Each command is a few lines here; what it does stands in its own module."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console

from contracts.messages import Mode
from infra.local.errors import StackError
from services.operator import demo as demonstration
from services.operator import render
from services.operator import up as stack_commands
from services.operator.exit_codes import ExitCode
from services.operator.ingest import RunNotLoadedError, request_run, resend_missing, wait_until_loaded
from services.operator.locate import NowhereError, operator_settings
from services.operator.proof.verify import Proof, Verdict, verdict_as_json
from services.operator.status import Status, read_status
from services.operator.system import OperatorSettings, System, open_system
from services.operator.up import SOURCE_URL_VARIABLE, WAREHOUSE_URL_VARIABLE
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.settings import explained

Result = TypeVar("Result")
EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 the warehouse differs, 4 not loaded, 130 interrupted."

app = typer.Typer(
    help="Keep a star-schema warehouse equal to an OLTP PostgreSQL database, and prove it.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SOURCE_HELP = "Your own source, read-only: postgresql://user:password@host/database."
WAREHOUSE_HELP = "Your own warehouse: postgresql://user:password@host/database."
people = Console()
complaints = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="Seconds between two runs.")]


def with_system(work: Callable[[System], Awaitable[Result]]) -> Result:
    """Do `work` on the Starlift that the environment describes, or that runs here."""

    async def opened() -> Result:
        async with open_system(operator_settings()) as system:
            return await work(system)

    return asyncio.run(opened())


@app.command()
def up(
    source_url: Annotated[str | None, typer.Option(envvar=SOURCE_URL_VARIABLE, help=SOURCE_HELP)] = None,
    warehouse_url: Annotated[str | None, typer.Option(envvar=WAREHOUSE_URL_VARIABLE, help=WAREHOUSE_HELP)] = None,
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything runs; `starlift down` ends it.")] = False,
    every: Seconds = 2.0,
) -> None:
    """Start the local stack and the three services; one line per event until Ctrl-C.

    Without URLs: embedded databases, and a simulator that writes to the source as an application would.
    """
    options = stack_commands.UpOptions(source_url=source_url, warehouse_url=warehouse_url, every=timedelta(seconds=every))
    if detach:
        stack_commands.up_detached(options, people)
    else:
        stack_commands.up_in_foreground(options, people)


@app.command()
def down() -> None:
    """Stop what `starlift up` started. Databases keep their data, queues and buckets do not."""
    people.print(stack_commands.down())


@app.command()
def ingest(
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every row again, not only what changed.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the run is in the warehouse.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Ask for a run."""

    async def work(system: System) -> str:
        request = await request_run(system, Mode.FULL if full else Mode.CHANGES)
        if not wait:
            return f"asked for a run, command {request.command.id}"
        with people.status("waiting for the run") as shown:
            manifest = await wait_until_loaded(
                system,
                request,
                limit=timedelta(seconds=timeout),
                on_progress=lambda done, of: shown.update(f"loaded {done} of {of} batches"),
            )
        return f"run {manifest.run} is loaded: {render.counted(len(manifest.batches), 'batch', 'batches')}"

    people.print(with_system(work), highlight=False)


@app.command()
def resend() -> None:
    """Send batches again that were announced and never loaded (a message that outlived its queue)."""
    people.print(f"sent again: {render.counted(with_system(resend_missing), 'batch', 'batches')}", highlight=False)


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show queues, dead letters, the last run, rows per table, freshness."""
    found: Status = with_system(read_status)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        render.show_status(people, found)


@app.command()
def verify(*, as_json: AsJson = False) -> None:
    """Compare the star with the source, row by row. Exit code 3 if they differ."""

    async def work(system: System) -> Verdict:
        with complaints.status("comparing") as shown:
            return await Proof.of(system).run(on_table=lambda table: shown.update(f"comparing {table}"))

    verdict = with_system(work)
    if as_json:
        typer.echo(json.dumps(verdict_as_json(verdict), indent=2))
    else:
        render.show_verdict(people, verdict)
    if not verdict.is_equal:
        raise typer.Exit(ExitCode.DIFFERENT)


@app.command()
def demo(
    *,
    orders: Annotated[int, typer.Option(min=1, help="Sales orders in the source to begin with.")] = 11_187,
    seconds: Annotated[float, typer.Option(min=1, help="How long the application writes.")] = 20.0,
) -> None:
    """Fill a source, load it, write to it for a while, prove the warehouse equal; then take everything down."""
    is_equal = demonstration.run(people, orders=orders, seconds=seconds)
    if not is_equal:
        raise typer.Exit(ExitCode.DIFFERENT)


def main() -> None:
    """Run the command; a mistake becomes one sentence and an exit code."""
    sys.exit(guarded(app))


def guarded(command: Callable[[], object]) -> int:
    """The exit code of `command`; what a person can mend is told in one sentence."""
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except ValidationError as error:
        return _complain(explained(error, OperatorSettings), ExitCode.USAGE)
    except NowhereError as error:
        return _complain(str(error), ExitCode.USAGE)
    except RunNotLoadedError as error:
        return _complain(str(error), ExitCode.NOT_LOADED)
    except (StackError, DependencyDownError, PermanentError, TransientError) as error:
        return _complain(str(error), ExitCode.FAILED)
    return ExitCode.DONE


def _complain(sentence: str, code: ExitCode) -> ExitCode:
    complaints.print(f"starlift: {sentence}", highlight=False, markup=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    main()
