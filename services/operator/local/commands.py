"""The commands that need the local stack: `starlift up`, `down`, `demo`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console

from services.operator.exit_codes import ExitCode
from services.operator.local import demo as demonstration
from services.operator.local import demo_late_commit as late_commits
from services.operator.local.up import (
    SOURCE_URL_VARIABLE,
    WAREHOUSE_URL_VARIABLE,
    UpOptions,
    stop_stack,
    up_detached,
    up_in_foreground,
)

SOURCE_HELP = "Your own source, read-only: postgresql://user:password@host/database."
WAREHOUSE_HELP = "Your own warehouse: postgresql://user:password@host/database."

local_app = typer.Typer()
people = Console()

Port = Annotated[int | None, typer.Option(min=1024, max=65535, help="Port of LocalStack on 127.0.0.1; default: a free one.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="Seconds between two runs.")]


@local_app.command()
def up(
    source_url: Annotated[str | None, typer.Option(envvar=SOURCE_URL_VARIABLE, help=SOURCE_HELP)] = None,
    warehouse_url: Annotated[str | None, typer.Option(envvar=WAREHOUSE_URL_VARIABLE, help=WAREHOUSE_HELP)] = None,
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything runs; `starlift down` ends it.")] = False,
    every: Seconds = 2.0,
    prove_every: Annotated[float, typer.Option(min=1, help="Seconds between two proofs.")] = 60.0,
    localstack_port: Port = None,
) -> None:
    """Start the local stack and the three services; one line per event until Ctrl-C.

    Without URLs: embedded databases, and a simulator that writes to the source as an application would.
    """
    options = UpOptions(source_url, warehouse_url, timedelta(seconds=every), localstack_port, timedelta(seconds=prove_every))
    options.require_agreement()
    if detach:
        up_detached(options, people)
    else:
        up_in_foreground(options, people)


@local_app.command()
def down() -> None:
    """Stop what `starlift up` started. Databases keep their data, queues and buckets do not."""
    people.print(stop_stack())


@local_app.command()
def demo(
    *,
    orders: Annotated[int, typer.Option(min=1, help="Sales orders in the source to begin with.")] = 11_187,
    seconds: Annotated[float, typer.Option(min=1, help="How long the application writes.")] = 20.0,
    late_commit: Annotated[
        bool, typer.Option("--late-commit", help="Instead: what a watermark on last_updated loses, side by side.")
    ] = False,
) -> None:
    """Fill a source, load it, write to it for a while, prove the warehouse equal; then take everything down."""
    if late_commit:
        raise typer.Exit(ExitCode.DONE if late_commits.run(people) else ExitCode.DIFFERENT)
    raise typer.Exit(demonstration.run(people, orders=orders, seconds=seconds))
