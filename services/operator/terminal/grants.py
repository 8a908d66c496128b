"""`starlift grants source` and `starlift grants warehouse`."""

from __future__ import annotations

from typing import Annotated

import typer

from contracts.tables import ContractError
from services.operator.contract.delivered import require_database
from services.operator.contract.grants import source_grants, warehouse_grants
from services.operator.errors import UsageError
from services.operator.terminal.plan import ContractName, chosen_contract
from services.operator.terminal.sources import SeveralSourcesError, SourceOption

Loader = Annotated[str, typer.Option(help="The role of loading and of the migration; it owns the star.")]
Reader = Annotated[str, typer.Option(help="The role of ingestion, and of `init` and `pull`.")]
Prover = Annotated[str, typer.Option(help="The role of `verify` and of every other command that works on a running Starlift.")]
Analyst = Annotated[str, typer.Option(help="The role of people and tools that query the star.")]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def grants() -> None:
    """Print the SQL that creates roles with the fewest rights; this connects to nothing, and the SQL contains no password."""


@app.command()
def source(
    contract: ContractName = None,
    *,
    name: SourceOption = None,
    reader: Reader = "starlift_reader",
    prover: Prover = "starlift_prover",
) -> None:
    """Print the roles for the source: SELECT on the contract's columns.

    `starlift grants source | psql -v ON_ERROR_STOP=1 …` runs it. Run it again after each change of the contract's source part.
    """
    found = chosen_contract(contract)
    if name is None and len(found.sources) > 1:
        raise SeveralSourcesError(found)
    try:
        part = found.part(name or "".join(found.sources))
    except ContractError as error:
        raise UsageError(str(error)) from error
    require_database(part, "to grant rights in")
    typer.echo(source_grants(part, reader, prover), nl=False)


@app.command()
def warehouse(
    contract: ContractName = None,
    *,
    loader: Loader = "starlift_loader",
    prover: Prover = "starlift_prover",
    analyst: Analyst = "starlift_analyst",
) -> None:
    """Print the roles for the warehouse: the loader, which owns the star, and two that read it.

    `starlift grants warehouse | psql -v ON_ERROR_STOP=1 …` runs it. Tables of later contracts need no further grants. A star
    that is loaded already belongs to the role that loaded it: name that one as --loader.
    """
    typer.echo(warehouse_grants(chosen_contract(contract), loader, prover, analyst), nl=False)
