"""What a schema of the source holds, as its catalog describes it, and what of it a contract can't read, and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import asyncpg

from contracts.checks import join_alike
from contracts.column_types import TEXT, ColumnType, enum
from contracts.type_names import column_type
from services.operator.errors import UsageError
from shared.postgres import Database
from shared.source_types import SourceType
from shared.sql import quoted

CATALOG_QUERY = (files("services.operator") / "queries" / "source_catalog.sql").read_text()
SCHEMAS_QUERY = """
SELECT nspname AS name, has_schema_privilege(oid, 'USAGE') AS is_usable
FROM pg_namespace
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
ORDER BY nspname
"""
VERSION_MINIMUM = 13  # as of every source
_COMPARED_BY_TEXT = frozenset({"text", "character varying", "bpchar"})
_WITHOUT_VERSIONS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True, slots=True)
class CatalogColumn:
    """A column of a table of the source."""

    name: str
    type: ColumnType  # of a domain, its base type
    nullable: bool
    spelled: str  # the type without bounds, as format_type() spells it: 'tsvector', 'bpchar', 'public.geometry'
    is_foreign: bool = False  # the type does not ship with PostgreSQL: the warehouse may lack it
    is_comparable: bool = True  # equal values have equal texts: not citext, no collation that ignores case
    is_readable: bool = True  # the role has SELECT on it

    @property
    def may_be_key(self) -> bool:
        """Whether the rows of a contract's table can be identified by it."""
        return self.type.may_be_key and (self.is_comparable or not self.type.is_text)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Columns that refer to the key of a table, in the order of that key."""

    columns: tuple[str, ...]
    table: str


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """A table or partitioned table of the source, or what stands in its schema beside them."""

    name: str
    columns: tuple[CatalogColumn, ...]  # in the order of the table
    key: tuple[str, ...] = ()  # the primary key, or the columns of a unique index on NOT NULL columns
    foreign_keys: tuple[ForeignKey, ...] = ()  # to the keys of tables that can be read
    rows: int = 0  # estimated
    comment: str | None = None  # what COMMENT ON says
    problem: str | None = None  # why Starlift can't read it
    remarks: tuple[str, ...] = ()  # foreign keys that a contract can't follow, and why

    def column(self, name: str) -> CatalogColumn:
        """The column called `name`, which it has."""
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True, slots=True)
class Catalog:
    """A schema of the source, or some of its tables."""

    schema: str
    tables: Mapping[str, CatalogTable]  # in the order of their names

    @property
    def readable(self) -> dict[str, CatalogTable]:
        """The tables that a contract can read."""
        return {name: table for name, table in self.tables.items() if table.problem is None}


async def read_schema(database: Database, schema: str, *, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Catalog:
    """The tables of a schema whose names match one of the globs `include`, if there are any, and none of `exclude`.

    Raises: UsageError for a schema that does not exist or may not be used, or an old server; DependencyDownError.
    """
    async with database.transaction(isolation="repeatable_read", readonly=True) as connection:
        if (major := connection.get_server_version().major) < VERSION_MINIMUM:
            raise UsageError(f"the source is PostgreSQL {major}; Starlift needs {VERSION_MINIMUM} or newer")
        await connection.execute("SET LOCAL search_path = pg_catalog")  # types are spelled alike for every role
        await _require_schema(connection, schema)
        rows = await connection.fetch(CATALOG_QUERY, schema, list(map(_regex, include)), list(map(_regex, exclude)))
    described = [(_table(row), json.loads(row["foreign_keys"] or "[]")) for row in rows]
    tables = {table.name: table for table, _ in described}
    return Catalog(schema, {table.name: _linked(table, links, schema, tables) for table, links in described})


async def _require_schema(connection: asyncpg.Connection, schema: str) -> None:
    found = {row["name"]: row["is_usable"] for row in await connection.fetch(SCHEMAS_QUERY)}
    if schema not in found:
        raise UsageError(f"the source has no schema '{schema}', only {', '.join(found)}; pass one of them as --schema")
    if not found[schema]:
        raise UsageError(f"the role may not use schema '{schema}'; GRANT USAGE ON SCHEMA {quoted(schema)} to it")


def _regex(glob: str) -> str:
    return "^" + "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in glob) + "$"


def _table(row: asyncpg.Record) -> CatalogTable:
    columns = tuple(_column(found) for found in json.loads(row["columns"] or "[]"))
    by_name = {column.name: column for column in columns}
    keys = [tuple(names) for names in json.loads(row["keys"] or "[]")]
    fit = (key for key in keys if all(by_name[name].may_be_key for name in key))
    key = next(fit, keys[0] if keys else ())
    table = CatalogTable(row["name"], columns, key, rows=row["rows"], comment=row["comment"])
    return replace(table, problem=next(_problems(row, table), None))


def _column(found: Mapping[str, Any]) -> CatalogColumn:
    spelled = SourceType(**found["type"])
    return CatalogColumn(
        name=found["name"],
        type=_type(spelled, found["labels"]),
        nullable=found["nullable"],
        spelled=spelled.unbounded,
        is_foreign=spelled.is_foreign,
        is_comparable=(spelled.is_enum or spelled.unbounded in _COMPARED_BY_TEXT) and spelled.loose_collation is None,
        is_readable=found["is_readable"],
    )


def _type(found: SourceType, labels: list[str] | None) -> ColumnType:
    if found.is_enum:
        return enum(*labels) if labels else TEXT
    if found.is_foreign and found.is_string:
        return TEXT  # citext, wherever it is installed
    try:
        return column_type(found.name)
    except ValueError:  # a name that verbatim() does not accept
        return TEXT


def _problems(row: asyncpg.Record, table: CatalogTable) -> Iterator[str]:
    """Why a contract can't read a table; the first reason is the one to give."""
    kind = _WITHOUT_VERSIONS.get(row["kind"])
    found = {
        f"it is {kind}: no transaction id of its rows shows what changed": kind is not None,
        "its name has a '/' or a control character, which the key of an object can't have": "/" in table.name
        or min(table.name) < " ",
        "it has foreign tables below it, whose rows have no transaction ids": row["has_foreign_tables"],
        "other tables inherit from it, which its key does not cover": row["has_heirs"],
        "it has no columns": not table.columns,
        "the role has no privilege to read it": not any(column.is_readable for column in table.columns),
        "it has neither a primary key nor a unique index on NOT NULL columns": not table.key,
    }
    yield from (problem for problem, is_met in found.items() if is_met)
    for column in map(table.column, table.key):
        if not column.may_be_key:
            yield f"its key holds '{column.name}', which is {column.spelled}"
        if not column.is_readable:
            yield f"its key holds '{column.name}', which the role has no privilege to read"


def _linked(table: CatalogTable, links: list[dict[str, Any]], schema: str, tables: Mapping[str, CatalogTable]) -> CatalogTable:
    """The table with those of its foreign keys that a contract can follow, and remarks about the others."""
    found, remarks = dict[tuple[str, ...], ForeignKey](), list[str]()
    for link in links if table.problem is None else ():
        if (problem := _link_problem(table, link, schema, tables)) is not None:
            remarks.append(f"foreign key ({', '.join(link['on'])}): {problem}")
            continue
        pairs = dict(zip(link["key"], link["on"], strict=True))
        columns = tuple(pairs[name] for name in tables[link["table"]].key)
        if found.setdefault(columns, ForeignKey(columns, link["table"])).table != link["table"]:
            remarks.append(f"foreign key ({', '.join(columns)}): it also refers to '{link['table']}'")
    return replace(table, foreign_keys=tuple(found.values()), remarks=tuple(remarks))


def _link_problem(table: CatalogTable, link: Mapping[str, Any], schema: str, tables: Mapping[str, CatalogTable]) -> str | None:
    name = link["table"]
    if link["schema"] != schema or name not in tables:
        return f"'{link['schema']}.{name}' is not among the tables that were read"
    other = tables[name]
    if other.problem is not None:
        return f"'{name}' can't be read"
    if sorted(link["key"]) != sorted(other.key):
        return f"it refers to ({', '.join(link['key'])}) of '{name}', whose key is ({', '.join(other.key)})"
    if any("," in one or one != one.strip() for one in link["on"]):
        return "a contract can't name its columns"
    for one, key in zip(map(table.column, link["on"]), map(other.column, link["key"]), strict=True):
        if not one.is_readable or not join_alike(one.type, key.type) or (one.type.is_text and not one.is_comparable):
            return f"'{one.name}' can't be read, or not be compared as a foreign key compares it"
        if key.spelled == "bpchar" != one.spelled and one.name in table.key:
            return f"'{one.name}' is compared with a character(n)"
    return None
