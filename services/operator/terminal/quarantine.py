"""`starlift quarantine …`: list and show the rows that the warehouse can't hold, and load them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.operator.errors import NotFoundError
from services.operator.ingest import wait_until_in_ledger
from services.operator.quarantine import Entry, Replayed, quarantined, replay
from services.operator.system import System
from services.operator.terminal.session import AsJson, WaitSeconds, with_system
from services.operator.wording import counted, printable

app = typer.Typer(
    name="quarantine",
    help="List the rows that the warehouse can't hold, and load them after a correction.",
    epilog=(
        "A row that is corrected at the source leaves the quarantine by itself. After a correction to the contract, use "
        "`replay`."
    ),
    no_args_is_help=True,
)
people = Console()

OfTable = Annotated[str | None, typer.Argument(metavar="TABLE", help="A warehouse table; default: all.")]


@app.command("list")
def list_entries(table: OfTable = None, *, as_json: AsJson = False) -> None:
    """List the rows in quarantine, and why each was refused. Rows that were loaded or deleted since are left out."""
    entries = with_system(lambda system: quarantined(system, table))
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(entry.model_dump(mode="json"), ensure_ascii=False))
    else:
        show_entries(people, entries)


# A key may be a negative number, which looks like an option.
@app.command(context_settings={"ignore_unknown_options": True})
def show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A warehouse table.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, a value for each of its columns.")],
) -> None:
    """Print one row in full, as JSON: why it was refused, and its values as the source has them."""
    entries = with_system(lambda system: quarantined(system, table))
    found = next((entry for entry in entries if [str(value) for value in entry.key] == key), None)
    if found is None:
        raise NotFoundError(f"no row ({', '.join(key)}) of '{table}' is in quarantine; `starlift quarantine list` lists them")
    typer.echo(json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False))


@app.command("replay")
def replay_entries(
    table: OfTable = None,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the result and report how many rows are still quarantined.")
    ] = False,
    timeout: WaitSeconds = 600.0,
) -> None:
    """Remodel and load the rows again, once the contract is corrected and the services run with it."""

    async def work(system: System) -> tuple[Replayed, int | None]:
        done = await replay(system, await quarantined(system, table))
        if not wait:
            return done, None
        ids = [batch.data.batch_id for batch in done.batches]
        await wait_until_in_ledger(system, ids, limit=timedelta(seconds=timeout))
        return done, len(await quarantined(system, table))

    done, left = with_system(work)
    people.print(replay_sentence(done, left), highlight=False, soft_wrap=True)


def replay_sentence(done: Replayed, left: int | None) -> str:
    """What was sent, and how many rows are still in quarantine; None if the command did not wait."""
    words = f"sent again: {counted(done.rows, 'row', 'rows')} in {counted(len(done.batches), 'batch', 'batches')}"
    if done.lost:
        lost = counted(len(done.lost), "row", "rows")
        words += f"; not sent: {lost} whose batch is no longer known, which `starlift ingest --full` reads again"
    return words if left is None else f"{words}; still in quarantine: {counted(left, 'row', 'rows')}"


def show_entries(console: Console, entries: Sequence[Entry]) -> None:
    """Print a line for each row."""
    if not entries:
        console.print("nothing is in quarantine")
        return
    lines = Table("table", "key", "why", "run", title="Quarantine", title_justify="left")
    for entry in entries:
        why = "; ".join(f"{problem.column} {problem.reason}".strip() for problem in entry.problems)
        # As a Text: a value may look like markup.
        lines.add_row(Text(entry.table), Text(", ".join(map(printable, entry.key))), Text(printable(why)), str(entry.run))
    console.print(lines)
    console.print(f"{counted(len(entries), 'row', 'rows')}; `starlift quarantine show TABLE KEY` shows one", highlight=False)
