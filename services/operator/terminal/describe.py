"""`starlift describe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum, unique
from typing import Annotated

import typer

from services.operator.contract.describe import DescribedStar, as_dbt, as_diagram, as_markdown, describe
from services.operator.terminal.plan import ContractName, chosen_contract

app = typer.Typer()


@unique
class Format(StrEnum):
    """What the description is written as."""

    MARKDOWN = "markdown"
    DBT = "dbt"
    ERD = "erd"
    JSON = "json"


_WRITERS: Mapping[Format, Callable[[DescribedStar], str]] = {
    Format.MARKDOWN: as_markdown,
    Format.DBT: as_dbt,
    Format.ERD: as_diagram,
    Format.JSON: lambda star: star.model_dump_json(indent=2) + "\n",
}
FormatOption = Annotated[Format, typer.Option("--format", help="A data dictionary, dbt sources, a Mermaid diagram, or JSON.")]


@app.command("describe")
def describe_star(
    contract: ContractName = None,
    *,
    form: FormatOption = Format.MARKDOWN,
) -> None:
    """Describe the star for analysts: its tables, and where each column comes from. No database is needed."""
    typer.echo(_WRITERS[form](describe(chosen_contract(contract))), nl=False)
