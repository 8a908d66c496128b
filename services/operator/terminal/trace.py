"""`starlift trace`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from services.operator.terminal.harness import ExitCode
from services.operator.terminal.session import with_system
from services.operator.trace.life import read_life
from services.operator.trace.render import life_as_json, show_life

app = typer.Typer()
people = Console()


# A key may be a negative number, which looks like an option.
@app.command(context_settings={"ignore_unknown_options": True})
def trace(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of the warehouse.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, a value for each of its columns.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Show the life of a row: each version, its run, messages, objects and times. Exit code 4 if it is not in the warehouse."""
    life = with_system(lambda system: read_life(system, table, key))
    if as_json:
        typer.echo(json.dumps(life_as_json(life), indent=2))
    else:
        show_life(people, life)
    if not life.is_known:
        raise typer.Exit(ExitCode.NOT_LOADED)
