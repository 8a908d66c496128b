"""`starlift ingest` and `starlift resend`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console

from contracts.messages import Mode
from services.operator import render
from services.operator.ingest import request_run, resend_missing, wait_until_loaded
from services.operator.locate import local_stack
from services.operator.system import System
from services.operator.terminal.session import with_system

app = typer.Typer()
people = Console()
complaints = Console(stderr=True)


@app.command()
def ingest(
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every row again, not only what changed.")] = False,
    compare_keys: Annotated[
        bool, typer.Option("--compare-keys", help="Find deleted rows now; a full run does anyway.")
    ] = False,
    believe_empty: Annotated[
        bool,
        typer.Option(
            "--believe-empty",
            help="Treat an empty source table as really empty: every row of it in the warehouse is marked deleted.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the run and every run before it are in the warehouse.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Ask for a run: read what changed since the last one, and load it."""
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
