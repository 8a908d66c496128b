"""`starlift status`."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console

from services.operator import render
from services.operator.locate import local_stack, operator_settings
from services.operator.status import look
from services.operator.terminal.harness import ExitCode
from services.operator.terminal.session import run

app = typer.Typer()
people = Console()


@app.command()
def status(
    *,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for answers; what takes longer is left out.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Show services, queues, dead letters, the last run, rows and freshness. Exit code 5 if anything needs a person."""
    local = local_stack()  # before the settings of the local stack replace our environment
    services, reach = (local.services(), local.psql()) if local else (None, None)
    found = replace(run(look(operator_settings(), timedelta(seconds=timeout))), services=services, reach=reach)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        render.show_status(people, found)
    if not found.is_healthy:
        raise typer.Exit(ExitCode.UNHEALTHY)
