"""`starlift plan`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from contracts.contract import Contract
from contracts.tables import ContractError
from contracts.yaml_text import ContractTextError
from services.operator.contract.plan import Change, Plan, TableRead, make_plan, plan_of_mistakes
from services.operator.contract.urls import chosen_url, url_or_secret, urls_of_others
from services.operator.errors import UsageError
from services.operator.terminal.harness import ExitCode
from services.operator.terminal.session import AsJson, run
from services.operator.wording import counted
from shared.contract_file import contract_named
from shared.settings import PREFIX
from shared.star_schema.preview import Action

CONTRACT_VARIABLE = f"{PREFIX}CONTRACT"
PIPE_WIDTH = 160  # where there is no terminal: a line for each table
CONTRACT_HELP = "The contract: a file, s3://bucket/key (not for `up`) or a shipped one; default: STARLIFT_CONTRACT or totesys."
SOURCE_HELP = "The source, without a password: postgresql://user@host/database, or @FILE; default: STARLIFT_SOURCE_URL."
WAREHOUSE_HELP = "The warehouse, without a password, or @FILE; default: STARLIFT_WAREHOUSE_URL, else an empty database."

app = typer.Typer()

ContractName = Annotated[str | None, typer.Option("--contract", help=CONTRACT_HELP)]
SourceUrl = Annotated[str | None, typer.Option("--source-url", help=SOURCE_HELP)]
WarehouseUrl = Annotated[str | None, typer.Option("--warehouse-url", help=WAREHOUSE_HELP)]


def contract_name(given: str | None) -> str:
    """The contract that an option or the environment names; by default the shipped one."""
    return given or os.environ.get(CONTRACT_VARIABLE) or "totesys"


def chosen_contract(given: str | None) -> Contract:
    """The contract of a command that connects to nothing. Raises: UsageError."""
    try:
        return contract_named(contract_name(given))
    except ContractError as error:
        raise UsageError(str(error)) from error


@app.command()
def plan(
    contract: ContractName = None, source_url: SourceUrl = None, warehouse_url: WarehouseUrl = None, *, as_json: AsJson = False
) -> None:
    """Show a contract's problems, what a first run reads, and what would change in the warehouse; change nothing.

    A password is asked for, or comes from STARLIFT_SOURCE_URL or STARLIFT_WAREHOUSE_URL, never from the command line. Exit
    code 0 if there is nothing to do, 3 if the warehouse would be changed, 1 if the contract can't work as it is, 2 for wrong
    usage.
    """
    name = contract_name(contract)
    source, warehouse = chosen_url("source", source_url), chosen_url("warehouse", warehouse_url)
    try:
        found = run(_planned(contract_named(name), source, warehouse))
    except ContractTextError as error:
        found = plan_of_mistakes(name, error)
    except ContractError as error:
        raise UsageError(str(error)) from error
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        console = Console()
        show_plan(console if console.is_terminal else Console(width=PIPE_WIDTH), found)
    raise typer.Exit(exit_code_of(found))


async def _planned(contract: Contract, source: SecretStr | None, warehouse: SecretStr | None) -> Plan:
    url = await url_or_secret("source", source)
    return await make_plan(contract, url, await url_or_secret("warehouse", warehouse), await urls_of_others(contract))


def exit_code_of(found: Plan) -> ExitCode:
    """What a script learns of a plan."""
    if found.problems:
        return ExitCode.FAILED
    return ExitCode.CHANGED if found.has_changes else ExitCode.DONE


def show_plan(console: Console, found: Plan) -> None:
    """Print problems, tables and changes, and a last line that sums them up."""
    for problem in found.problems:
        _line(console, f"{problem.part}: {problem}")
    if found.reads:
        console.print(reads_table(found.reads))
    for table in found.reads:
        if table.new_columns:
            new = ", ".join(f"{name} {kind}" for name, kind in table.new_columns.items())
            _line(console, f"new in {table.table}, and not in the contract: {new}")
    for note in found.notes:
        _line(console, f"note: {note}")
    if found.changes:
        console.print(changes_table(found.changes))
    _line(console, "; ".join(summary(found)))


def reads_table(reads: tuple[TableRead, ...]) -> Table:
    """What a first run reads, a line for each table."""
    table = Table("table", "rows", "MiB", "seconds", "later runs read", title="A first run reads, as estimated")
    table.title_justify = "left"
    for column in table.columns[1:4]:
        column.justify = "right"
    for one in reads:
        rows = f"{one.rows:,}" if one.is_analysed or not one.bytes else f"{one.rows:,} (not analysed)"
        later = f"every row, {one.seconds:,.1f} s: {one.why_in_full}" if one.in_full_every_run else "what has changed"
        table.add_row(one.table, rows, f"{one.bytes / 2**20:,.1f}", f"{one.seconds:,.1f}", later)
    return table


def changes_table(changes: tuple[Change, ...]) -> Table:
    """What becomes of the warehouse, a line for each object; the foreign keys that a table gets are one line."""
    table = Table("change", "object", "name", "", title="The warehouse", title_justify="left")
    keys = Counter(_table_of(one) for one in changes if _is_new_foreign_key(one))
    for one in changes:
        if not _is_new_foreign_key(one):
            table.add_row(one.action, one.kind, one.name, one.detail)
    for name, count in keys.items():
        table.add_row(Action.ADD, "foreign keys", name, f"{count}, after the first complete run")
    return table


def _is_new_foreign_key(change: Change) -> bool:
    return (change.action, change.kind) == (Action.ADD, "foreign key")


def _table_of(change: Change) -> str:
    return change.name.rpartition(".")[0]


def summary(found: Plan) -> Iterator[str]:
    """The plan in a few words."""
    if found.problems:
        yield counted(len(found.problems), "problem", "problems")
    if found.reads:
        rows = sum(one.rows for one in found.reads)
        seconds = max(1, round(sum(one.seconds for one in found.reads)))
        yield f"a first run reads about {rows:,} rows in {seconds:,} s, at {found.rows_per_second:,} rows a second on two cores"
    counts = Counter(str(change.action) for change in found.changes)
    if counts:
        yield "warehouse: " + ", ".join(f"{count:,} to {action}" for action, count in counts.items())
    elif not found.problems:
        yield "warehouse: nothing to do"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
