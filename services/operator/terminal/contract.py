"""`starlift init`, `pull` and `convert`: a contract's document, made from the catalog of the source, or from Python."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from contracts.tables import NAME_BYTES_MAXIMUM, ContractError
from contracts.yaml_text import document_data, read_contract
from services.operator.contract.catalog import Catalog, read_schemas
from services.operator.contract.convert import contract_of_module, converted
from services.operator.contract.propose import propose
from services.operator.contract.propose_file import propose_file
from services.operator.contract.sample import is_sample, read_sample
from services.operator.contract.source import open_source
from services.operator.contract.source_part import (
    described_tables,
    differences,
    has_datasets,
    others_of,
    part_of,
    roots_of,
    source_part,
    with_named_source,
    with_source_part,
)
from services.operator.contract.urls import chosen_url
from services.operator.errors import UsageError
from services.operator.terminal.harness import ExitCode, complain
from services.operator.terminal.session import run
from services.operator.wording import counted, printable
from shared.contract_file import contract_text, is_path
from shared.settings import DEFAULT_SOURCE, PREFIX

URL_HELP = "The source, without a password: postgresql://user@host/database, or @FILE; default: STARLIFT_SOURCE_URL."
INIT_HELP = f"{URL_HELP} Or a CSV or JSON file, as a sample of a data set."
Url = Annotated[str | None, typer.Argument(metavar="URL", help=URL_HELP, show_default=False)]

app = typer.Typer()


@app.command()
def init(
    url: Annotated[str | None, typer.Argument(metavar="URL|FILE", help=INIT_HELP, show_default=False)] = None,
    *,
    output: Annotated[str, typer.Option(help="The file to write, such as shop.yaml; - prints the contract.")],
    schema: Annotated[
        list[str] | None, typer.Option(help="A schema to read; * and ? are wildcards. Repeatable. Default: public.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Read only tables of this name; * and ? are wildcards. Repeatable.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Skip tables of this name; written as for --include.")] = None,
    name: Annotated[str | None, typer.Option(help="The star's name. Default: the name of the file or the schema.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Read a database's catalog and write a contract that is ready to run.

    No row of it is read. A table becomes a fact if it refers to others and has quantities or times, and if only facts refer to
    it; every other table becomes a dimension, with columns of the tables that it refers to. Comments say what was left out and
    why: views and tables without a key (--include adds them, to be read in full by every run), columns whose names suggest that
    they hold secrets, documents and pictures. Change the star as you like, then run
    `starlift plan --contract FILE` and `starlift up --contract FILE`.

    From a FILE, the first 1,000 records are read, and the types and the key of a data set are guessed from them: correct them.
    """
    path = _free(output, force=force)
    schemas = schema or ["public"]
    sample = read_sample(Path(url).expanduser()) if url is not None and is_sample(url) else None
    if sample is not None and (schema or include or exclude):
        raise UsageError(f"'{url}' is a file; --schema, --include and --exclude are for databases")
    star = name or (path.stem if path else sample.name if sample else schemas[0])
    if len(star) > NAME_BYTES_MAXIMUM:
        raise UsageError(f"'{star}' has more than {NAME_BYTES_MAXIMUM} characters; pass a shorter name as --name")
    globs = {"include": include or (), "exclude": exclude or ()}
    if sample is not None:
        text = propose_file(sample, star)
    else:
        text = propose(run(_read(chosen_url("source", url), schemas, **globs, in_full=bool(include))), star)
    if path is None:
        typer.echo(text, nl=False)
        return
    _write(path, _editor_line(path.absolute().parent) + text)
    contract = read_contract(text, path.name)
    facts = len(contract.facts)
    others = counted(len(contract.remodelled_tables) - facts, "dimension", "dimensions")
    typer.echo(f"wrote {path}: {counted(facts, 'fact', 'facts')}, {others}; the comments say what was left out")


@app.command()
def pull(
    url: Url = None,
    *,
    contract: Annotated[str, typer.Option(help="The contract's file.")],
    source: Annotated[str | None, typer.Option("--source", help="The one of several `sources` that the URL leads to.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing: only print what has changed.")] = False,
) -> None:
    """Bring the `source` part of a contract up to date with the database's catalog.

    Everything above the line `source:`, or `sources:`, stays as it is. Prints each difference on a line of its own: + new,
    - gone, ~ changed.
    Exit code 0 if there is none, 3 if there are some, which are written to the file unless --check is given.
    """
    path, text, document, source = _document(contract, source)
    if has_datasets(part_of(document, source)):
        raise UsageError(
            f"{_named(source)} has data sets, for which there is no catalog to pull; edit them in '{path}' yourself"
        )
    elsewhere = {name for part in others_of(document, source).values() for name in part.get("tables") or ()}
    roots = [root for root in roots_of(document.get("star")) if root not in elsewhere]
    before = described_tables(part_of(document, source))
    schema = str(document.get("source_schema") or "public")
    known = {(table.schema_ or schema, table.table or name): name for name, table in before.items()}
    schemas = list(dict.fromkeys([schema, *(place for place, _ in known)]))
    catalog = run(_read(chosen_url("source", url, source=source), schemas, known=known, in_full=True))
    part = source_part(catalog, roots, before)
    for root in roots:
        if root not in part:
            reason = catalog.tables[root].problem if root in catalog.tables else f"schema '{catalog.schema}' does not have it"
            complain(f"the star needs table '{printable(root)}', which can't be read: {reason}")
    found = list(differences(part_of(document, source), part))
    for line in found:
        typer.echo(printable(line))
    if not found:
        return
    text = with_source_part(text, part, path.name, source)
    if not check:
        _write(path, text)
    try:
        read_contract(text, path.name)
    except ContractError as error:
        complain(f"the star does not fit the source any more: {error}")
    raise typer.Exit(ExitCode.CHANGED)


def _named(source: str | None) -> str:
    return "the source" if source is None else f"source '{source}'"


def _document(contract: str, source: str | None) -> tuple[Path, str, dict[str, Any], str | None]:
    """The file of a contract, its text and its content, and the source to work on, None for the only one.

    If another source than the only one is meant, the text is that of both. Raises: UsageError.
    """
    if not is_path(contract) or contract.startswith("s3://"):
        raise UsageError(f"'{contract}' is not a file; give the path of one, such as ./shop.yaml")
    path = Path(contract).expanduser()
    try:
        text = contract_text(contract)
        data, _ = document_data(text, path.name)
    except ContractError as error:
        raise UsageError(str(error)) from error
    document: dict[str, Any] = data if isinstance(data, dict) else {}
    only = os.environ.get(f"{PREFIX}SOURCE_NAME") or DEFAULT_SOURCE
    if source == only and "source" in document:
        source = None
    elif source is not None and "source" in document:
        text = with_named_source(text, path.name, only)
        document |= {"sources": {only: document["source"]}}
    if source is None and "sources" in document:
        raise UsageError(f"'{contract}' has several sources; pass --source with the name of the one that the URL leads to")
    return path, text, document, source


@app.command()
def convert(
    module: Annotated[Path, typer.Argument(help="The Python file, as contracts/shop.py was. It is run.", show_default=False)],
    *,
    output: Annotated[str, typer.Option(help="The file to write, such as shop.yaml; - prints the contract.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Turn a contract in Python, the earlier form, into a document.

    The document means the same, column by column. Afterwards `starlift pull` brings its `source` part up to date, with the
    foreign keys that a contract in Python did not name.
    """
    path = _free(output, force=force)
    text = converted(contract_of_module(module))
    if path is None:
        typer.echo(text, nl=False)
        return
    _write(path, text)
    typer.echo(f"wrote {path}")


def _editor_line(folder: Path) -> str:
    """What tells an editor how to check a contract in `folder`: the path of the JSON Schema, relative if it is below."""
    schema = Path(str(files("contracts") / "schemas" / "contract.json"))
    shown = schema.relative_to(folder) if schema.is_relative_to(folder) else schema
    return f"# yaml-language-server: $schema={shown}\n"


def _free(output: str, *, force: bool) -> Path | None:
    """Where to write; None: to the screen. Raises: UsageError if there is a file already."""
    path = None if output == "-" else Path(output).expanduser()
    if path is not None and path.exists() and not force:
        raise UsageError(f"'{path}' exists; choose another file, or pass --force to replace it")
    return path


async def _read(url: SecretStr | None, schemas: list[str], **options: Any) -> Catalog:
    async with open_source(url) as database:
        return await read_schemas(database, schemas, **options)


def _write(path: Path, text: str) -> None:
    """Replace a file by one step, so that an interruption leaves the old one or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path.resolve())
