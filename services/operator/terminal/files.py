"""`starlift files`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.datasets import DROP_ZONE
from contracts.files import Outcome
from services.operator.files import Files, WaitingFile, files_of_no_data_set, read_files
from services.operator.system import System
from services.operator.terminal.session import AsJson, with_system
from services.operator.wording import clock, counted, printable

PIPE_WIDTH = 160  # where there is no terminal: a line for each file

app = typer.Typer()


@app.command()
def files(
    *,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Show one data set only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many files of each data set to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what waits in the drop zone, and what became of other files: refused ones first, with their reasons.

    Of an API, show what became of the last fetch of each data set.
    """

    async def work(system: System) -> tuple[Files, list[WaitingFile]]:
        found = await read_files(system, dataset, limit=limit)
        return found, [] if dataset or system.source is not None else await files_of_no_data_set(system, system.contract)

    found, unknown = with_system(work)
    if as_json:
        typer.echo(found.model_copy(update={"waiting": (*found.waiting, *unknown)}).model_dump_json(indent=2))
    else:
        console = Console()
        show_files(console if console.is_terminal else Console(width=PIPE_WIDTH), found, unknown)


def show_files(console: Console, found: Files, unknown: list[WaitingFile]) -> None:
    """Print refused files, then those that wait, then the others."""
    for record in found.refused:
        console.print(Text(f"refused: {printable(record.key)}", "bold red"), soft_wrap=True)
        console.print(Text(f"  {printable(record.reason)}"), soft_wrap=True)
    for one in unknown:
        problem = f"no data set has the folder of {printable(one.key)}, so it is never taken; put it into the folder of one"
        console.print(Text(problem, "yellow"), soft_wrap=True)
    if not (found.waiting or found.recorded):
        console.print("no file waits, and none was taken (a source database has no files)")
        return
    table = Table("written at", "file", "outcome", "run", "records", "bad", title="Files", title_justify="left")
    table.columns[1].overflow = "fold"
    for one in found.waiting:
        table.add_row(clock(one.written_at), _name(one.key), "[bold]waiting[/]", "", "", "")
    for record in found.recorded:
        counts = ("", "") if record.run is None else (f"{record.records:,}", f"{record.bad:,}")
        table.add_row(clock(record.written_at), _name(record.key), record.outcome, str(record.run or ""), *counts)
    console.print(table)
    for record in found.recorded:
        if record.reason is not None and record.outcome is not Outcome.UNCHANGED and record not in found.refused:
            console.print(Text(f"{printable(record.key)}: {printable(record.reason)}", "yellow"), soft_wrap=True)
    if bad := sum(record.bad for record in found.recorded):
        console.print(
            f"{counted(bad, 'bad record', 'bad records')}: `starlift quarantine list` shows where and why", soft_wrap=True
        )


def _name(key: str) -> Text:
    return Text(printable(key.removeprefix(DROP_ZONE)))
