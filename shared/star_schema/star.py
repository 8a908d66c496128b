"""The star as it is found in the warehouse's catalog; shared/star_schema/schema.py has the star that the contract wants."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import asyncpg

from contracts.contract import Contract
from contracts.warehouse import BULK_LOAD
from shared.sql import quoted
from shared.star_schema.schema import foreign_key_name
from shared.star_schema.views import views

QUERIES = {file.name: file.read_text() for file in (files("shared.star_schema") / "queries").iterdir()}


@dataclass(frozen=True, slots=True)
class FoundColumn:
    """A column of a table; `is_key` if it is in the primary key or in a unique index."""

    table: str
    name: str
    type: str
    is_required: bool
    is_key: bool
    has_default: bool


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """A unique index of a table; one that `is_arbiter` serves ON CONFLICT and foreign keys."""

    table: str
    name: str
    columns: frozenset[str]
    is_primary: bool
    is_constraint: bool
    is_arbiter: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege on a view or on one of its columns; without a role, it is PUBLIC's."""

    role: str | None
    privilege: str
    column: str | None
    may_grant: bool


@dataclass(frozen=True, slots=True)
class FoundView:
    """A view, its columns with their types in order, and what is attached to it."""

    name: str
    definition: str
    columns: tuple[tuple[str, str], ...]
    owner: str
    is_own: bool  # whether the loader's role owns it
    options: tuple[str, ...]
    comment: str | None
    column_comments: dict[str, str]
    grants: tuple[Grant, ...]
    granted_by_default: tuple[str | None, ...]  # the roles to which ALTER DEFAULT PRIVILEGES grants something; None: PUBLIC


@dataclass(frozen=True, slots=True)
class FoundDependant:
    """An object of others that depends on a column of `relation` or, without a column, on its row type or the whole view."""

    relation: str
    column: str | None
    name: str


@dataclass(frozen=True, slots=True)
class FoundForeignKey:
    """A foreign key of one column, whose name is the one that Starlift gives."""

    name: str
    table: str
    column: str
    references: str  # a table of the same schema


@dataclass(frozen=True, slots=True)
class FoundStar:
    """The whole star, by table or view. `wanted_views` are the views as the contract defines them on the existing tables."""

    columns: dict[str, list[FoundColumn]]  # none of a table that does not exist
    indexes: dict[str, list[FoundIndex]]
    views: dict[str, FoundView]
    wanted_views: dict[str, FoundView]
    dependants: tuple[FoundDependant, ...]
    foreign_keys: tuple[FoundForeignKey, ...] = ()
    is_bulk_loading: bool = False  # the keys are missing on purpose until the bulk load ends


def no_star(contract: Contract) -> FoundStar:
    """A warehouse that has nothing of the star."""
    nothing: dict[str, list[Any]] = {table.name: [] for table in contract.stored_tables}
    return FoundStar(dict(nothing), dict(nothing), {}, {}, ())


async def read_star(connection: asyncpg.Connection, contract: Contract) -> FoundStar:
    """Read the star of a contract, inside a transaction that may write."""
    schema, tables = contract.warehouse_schema, [table.name for table in contract.stored_tables]
    names = [view.name for view in views(contract)]
    columns: dict[str, list[FoundColumn]] = {table: [] for table in tables}
    for row in await connection.fetch(QUERIES["columns.sql"], schema, tables):
        columns[row["table"]].append(FoundColumn(**row))
    indexes: dict[str, list[FoundIndex]] = {table: [] for table in tables}
    for row in await connection.fetch(QUERIES["unique_indexes.sql"], schema, tables):
        indexes[row["table"]].append(FoundIndex(**{**row, "columns": frozenset(row["columns"])}))
    dependants = await connection.fetch(QUERIES["dependants.sql"], schema, [*tables, *names], names)
    return FoundStar(
        columns=columns,
        indexes=indexes,
        views={row["name"]: _view(row) for row in await connection.fetch(QUERIES["views.sql"], schema, names)},
        wanted_views=await _wanted_views(connection, contract, columns),
        dependants=tuple(FoundDependant(**row) for row in dependants),
        foreign_keys=tuple(
            FoundForeignKey(**row)
            for row in await connection.fetch(QUERIES["foreign_keys.sql"], schema, tables)
            if row["name"] == foreign_key_name(row["table"], row["column"])
        ),
        is_bulk_loading=await is_bulk_loading(connection, contract),
    )


async def is_bulk_loading(connection: asyncpg.Connection, contract: Contract) -> bool:
    """Whether a first load is copied into a star without keys."""
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", contract.own(BULK_LOAD)):
        return False  # created by a version that did not load in bulk
    return bool(await connection.fetchval(f"SELECT EXISTS (SELECT FROM {contract.own(BULK_LOAD)})"))


def _view(row: asyncpg.Record) -> FoundView:
    read: dict[str, Any] = {name: json.loads(row[name]) for name in ("columns", "column_comments", "grants")}
    return FoundView(
        name=row["name"],
        definition=row["definition"],
        columns=tuple((name, kind) for name, kind in read["columns"]),
        owner=row["owner"],
        is_own=row["is_own"],
        options=tuple(row["options"]),
        comment=row["comment"],
        column_comments=read["column_comments"],
        grants=tuple(Grant(**grant) for grant in read["grants"]),
        granted_by_default=tuple(row["granted_by_default"]),
    )


async def _wanted_views(
    connection: asyncpg.Connection, contract: Contract, columns: dict[str, list[FoundColumn]]
) -> dict[str, FoundView]:
    """PostgreSQL's own text of the views: they are created as temporary ones, read and rolled back."""
    known = {table: {column.name for column in found} for table, found in columns.items()}
    wanted = {  # a view can't be created without the columns that it reads
        view.name: view.select for view in views(contract) if all(names <= known[table] for table, names in view.reads.items())
    }
    if not wanted:
        return {}
    attempt = connection.transaction()
    await attempt.start()
    await connection.execute("; ".join(f"CREATE TEMPORARY VIEW {quoted(name)} AS {select}" for name, select in wanted.items()))
    temporary = await connection.fetchval("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")
    rows = await connection.fetch(QUERIES["views.sql"], temporary, list(wanted))
    await attempt.rollback()
    return {row["name"]: _view(row) for row in rows}
