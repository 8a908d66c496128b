"""`starlift quarantine …`: look at the rows that the warehouse can't hold, and let them try again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.operator.exit_codes import ComplaintError, ExitCode
from services.operator.ingest import wait_until_in_ledger
from services.operator.proof.quarantine import Entry
from services.operator.quarantine import Replayed, quarantined, replay
from services.operator.render import counted, printable
from services.operator.system import System
from services.operator.terminal.session import with_system

quarantine_app = typer.Typer(
    name="quarantine",
    help="See the rows that the warehouse can't hold, and let them try again.",
    epilog="A row that is corrected at the source comes by itself. After the contract was corrected: `replay`.",
    no_args_is_help=True,
)
people = Console()

OfTable = Annotated[str | None, typer.Argument(metavar="TABLE", help="A warehouse table; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a row.")]


@quarantine_app.command("list")
def list_entries(table: OfTable = None, *, as_json: AsJson = False) -> None:
    """Show which rows are in quarantine, and why. Those that were loaded or deleted since are not."""
    entries = with_system(lambda system: quarantined(system, table))
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(as_document(entry), ensure_ascii=False))
    else:
        show_entries(people, entries)


@quarantine_app.command()
def show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A warehouse table.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key, a value for each of its columns.")],
) -> None:
    """Show one row in full: why it is refused, and its values as the source has them, as JSON."""
    entries = with_system(lambda system: quarantined(system, table))
    found = [entry for entry in entries if [str(value) for value in entry.key] == key]
    if not found:
        raise ComplaintError(f"no row ({', '.join(key)}) of '{table}' is in quarantine", ExitCode.NOT_LOADED)
    typer.echo(json.dumps(as_document(found[0]), indent=2, ensure_ascii=False))


@quarantine_app.command("replay")
def replay_entries(
    table: OfTable = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Return when they were tried, and say how many stay.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait at most.")] = 600.0,
) -> None:
    """Remodel and load them again, after the contract was corrected and the services run with it."""

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
    """What was done, and what is left; None where nobody waited for it."""
    words = f"sent again: {counted(done.rows, 'row', 'rows')} in {counted(len(done.batches), 'batch', 'batches')}"
    if done.lost:
        words += f"; {counted(len(done.lost), 'row', 'rows')} of forgotten batches: `starlift ingest --full` reads them anew"
    return words if left is None else f"{words}; in quarantine still: {counted(left, 'row', 'rows')}"


def as_document(entry: Entry) -> dict[str, Any]:
    """For scripts: names are stable."""
    return {
        "table": entry.table,
        "key": list(entry.key),
        "run": entry.run,
        "problems": [{"column": column, "reason": reason} for column, reason in entry.problems],
        "source_table": entry.source_table,
        "row": dict(entry.row),
    }


def show_entries(console: Console, entries: Sequence[Entry]) -> None:
    """A line for each row."""
    if not entries:
        console.print("nothing is in quarantine")
        return
    lines = Table("table", "key", "why", "run", title="Quarantine", title_justify="left")
    for entry in entries:
        why = "; ".join(f"{column} {reason}" if column else reason for column, reason in entry.problems)
        # As a Text: a value may look like markup.
        lines.add_row(entry.table, Text(", ".join(map(printable, entry.key))), Text(printable(why)), str(entry.run))
    console.print(lines)
    console.print(f"{counted(len(entries), 'row', 'rows')}; `starlift quarantine show TABLE KEY` shows one", highlight=False)
