"""`starlift ingest` and `starlift resend`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from contracts.messages import Mode
from services.operator.files import require_none_refused
from services.operator.ingest import Waiting, request_run, resend_missing, wait_until_loaded
from services.operator.locate import local_stack
from services.operator.status.report import Service
from services.operator.system import System
from services.operator.terminal.session import WaitSeconds, with_system
from services.operator.wording import counted

LINE_EVERY = timedelta(seconds=5)  # where there is no terminal to show a spinner

app = typer.Typer()


@app.command()
def ingest(
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Read every row again, not only what changed; of files, what was delivered.")
    ] = False,
    compare_keys: Annotated[
        bool, typer.Option("--compare-keys", help="Look for deleted rows now; a full run always does.")
    ] = False,
    believe_empty: Annotated[
        bool,
        typer.Option(
            "--believe-empty",
            help="Treat an empty source table, or a whole snapshot without a record, as really empty: every row of it in the "
            "warehouse is marked deleted.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the run and every run before it are in the warehouse.")
    ] = False,
    timeout: WaitSeconds = 600.0,
) -> None:
    """Request a run: read the changes and load them.

    It takes the files that wait, or asks the API. With --wait, exit code 4 if the run is not loaded in time, or if a file or a
    fetch from an API was refused since the command was sent.
    """
    local = local_stack()

    async def work(system: System) -> str:
        mode = Mode.FULL if full else Mode.CHANGES
        request = await request_run(system, mode, compare_keys=compare_keys or believe_empty, believe_empty=believe_empty)
        if not wait:
            return f"asked for a run, command {request.command.id}"
        with waiting_shown(Console(stderr=True), local.services if local else dict) as show:
            manifest = await wait_until_loaded(system, request, limit=timedelta(seconds=timeout), on_progress=show)
        await require_none_refused(system, request.command.time)
        return loaded_sentence(manifest.run, len(manifest.batches))

    typer.echo(with_system(work))


def loaded_sentence(run: int, batches: int) -> str:
    """What a command that waited has come to: its last run. One that takes files looks once more in the end."""
    if not batches:
        return f"run {run} found nothing new; every run before it is loaded"
    return f"run {run} is loaded: {counted(batches, 'batch', 'batches')}; every run before it is loaded as well"


@app.command()
def resend() -> None:
    """Resend batches that were announced but never loaded, for example because their messages expired."""
    typer.echo(f"sent again: {counted(with_system(resend_missing), 'batch', 'batches')}")


@contextmanager
def waiting_shown(
    console: Console, services: Callable[[], Mapping[str, Service]], line_every: timedelta = LINE_EVERY
) -> Iterator[Callable[[Waiting], None]]:
    """Show what the command and the `services` wait for: beside a spinner, or without a terminal as a line per change."""
    line, at, because = "", time.monotonic(), ""
    with console.status("waiting for the run") as spinner:

        def show(waiting: Waiting) -> None:
            nonlocal line, at, because
            is_due = time.monotonic() - at >= line_every.total_seconds()
            if is_due:
                because = "".join(f"; {name} waits: {one.waits_for}" for name, one in services().items() if one.waits_for)
                at = time.monotonic()
            text = f"{waiting.sentence}{because}"
            spinner.update(Text(text))
            if is_due and not console.is_terminal and text != line:
                line = text
                console.print(f"waiting: {text}", highlight=False, markup=False, soft_wrap=True)

        yield show
