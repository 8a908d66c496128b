"""What schemas of the source hold, as its catalog describes it, and what of it a contract can't read, and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import asyncpg

from contracts.checks import join_alike
from contracts.column_types import TEXT, UUID, ColumnType, enum
from contracts.tables import NAME_BYTES_MAXIMUM
from contracts.type_names import column_type
from services.operator.errors import UsageError
from shared.catalog import COLUMN_TYPE
from shared.postgres import Database
from shared.source_fit import WITHOUT_VERSIONS
from shared.source_types import SourceType
from shared.sql import quoted

CATALOG_QUERY = (files("services.operator") / "queries" / "source_catalog.sql").read_text()
CATALOG_QUERY = CATALOG_QUERY.replace("/* column_type.sql */", COLUMN_TYPE)
SCHEMAS_QUERY = """
SELECT nspname AS name, has_schema_privilege(oid, 'USAGE') AS is_usable
FROM pg_namespace
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
ORDER BY nspname
"""
VERSION_MINIMUM = 13  # as of every source
_COMPARED_BY_TEXT = frozenset({"text", "character varying", "bpchar"})
_UNFIT = re.compile(r"[/\x00-\x1f]")  # signs that the key of an object can't have
Names = Mapping[tuple[str, str], str]  # what a contract calls tables, by schema and name in the source


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
    schema: str | None = None  # the schema that holds it; None: the catalog's
    relation: str | None = None  # what it is called there; None: as here
    why_full: str | None = None  # why a run would have to read all of it; it then has a `row_id`, or a problem
    row_id: str | None = None  # a name for its key, which Starlift computes: the first of its columns

    def column(self, name: str) -> CatalogColumn:
        """The column called `name`, which it has."""
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Schemas of the source, or some of their tables."""

    schema: str  # of the tables that name no other
    tables: Mapping[str, CatalogTable]  # in the order of their names
    schemas: tuple[str, ...] = ()  # all that were read

    @property
    def readable(self) -> dict[str, CatalogTable]:
        """The tables that a contract can read."""
        return {name: table for name, table in self.tables.items() if table.problem is None}


def free_name(wish: str, taken: Container[str], maximum: int = NAME_BYTES_MAXIMUM) -> str:
    """The name `wish`, cut to the bytes that fit, with a number after it if it is taken."""
    number, suffix = 1, ""
    while True:
        name = wish.encode()[: maximum - len(suffix)].decode(errors="ignore") + suffix
        if name not in taken:
            return name
        number += 1
        suffix = f"_{number}"


async def read_schemas(
    database: Database,
    schemas: Sequence[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    known: Names | None = None,
    in_full: bool = False,
) -> Catalog:
    """The tables of schemas whose names match one of the globs `include`, if there are any, and none of `exclude`.

    `schemas` may hold globs, too; the first schema found is that of tables that name no other. A table is called as it is in
    the source, or as in `known`; one whose name is taken has its schema's name before it. With `in_full`, tables that a run
    has to read in full are readable.

    Raises: UsageError for a schema that does not exist or may not be used, or an old server; DependencyDownError.
    """
    async with database.transaction(isolation="repeatable_read", readonly=True) as connection:
        if (major := connection.get_server_version().major) < VERSION_MINIMUM:
            raise UsageError(f"the source is PostgreSQL {major}; Starlift needs {VERSION_MINIMUM} or newer")
        await connection.execute("SET LOCAL search_path = pg_catalog")  # types are spelled alike for every role
        found = await _chosen_schemas(connection, schemas)
        rows = await connection.fetch(CATALOG_QUERY, found, list(map(_regex, include)), list(map(_regex, exclude)))
    names = _names(rows, known or {})
    tables: dict[str, CatalogTable] = {}
    for row in rows:
        name = names[row["schema"], row["name"]]
        table = _table(row, name, in_full=in_full)
        schema, relation = None if row["schema"] == found[0] else row["schema"], None if row["name"] == name else row["name"]
        tables[name] = replace(table, schema=schema, relation=relation)
    links = {names[row["schema"], row["name"]]: json.loads(row["foreign_keys"] or "[]") for row in rows}
    return Catalog(found[0], {name: _linked(tables[name], links[name], names, tables) for name in sorted(tables)}, tuple(found))


async def _chosen_schemas(connection: asyncpg.Connection, wanted: Sequence[str]) -> list[str]:
    found = {row["name"]: row["is_usable"] for row in await connection.fetch(SCHEMAS_QUERY)}
    chosen = list[str]()
    for one in wanted:
        is_glob = bool({"*", "?"}.intersection(one)) and one not in found
        matching = (
            [name for name, is_usable in found.items() if is_usable and re.match(_regex(one), name)] if is_glob else [one]
        )
        if not matching or not found.keys() >= set(matching):
            raise UsageError(f"the source has no schema '{one}', only {', '.join(found)}; pass one of them as --schema")
        chosen += matching
    for name in chosen:
        if not found[name]:
            raise UsageError(f"the role may not use schema '{name}'; GRANT USAGE ON SCHEMA {quoted(name)} to it")
    return list(dict.fromkeys(chosen))


def _names(rows: Iterable[asyncpg.Record], known: Names) -> dict[tuple[str, str], str]:
    """What a contract calls each table."""
    places = [(row["schema"], row["name"]) for row in rows]
    names = {place: known[place] for place in places if place in known}
    taken, times = set(known.values()), Counter(name for _, name in places)
    for schema, name in places:
        if (schema, name) not in names:
            wish = _UNFIT.sub("_", name if times[name] == 1 else f"{schema}_{name}")
            names[schema, name] = free_name(wish, taken)
            taken.add(names[schema, name])
    return names


def _regex(glob: str) -> str:
    return "^" + "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in glob) + "$"


def _table(row: asyncpg.Record, name: str, *, in_full: bool) -> CatalogTable:
    columns = tuple(_column(found) for found in json.loads(row["columns"] or "[]"))
    by_name = {column.name: column for column in columns}
    keys = [tuple(names) for names in json.loads(row["keys"] or "[]")]
    fit = (key for key in keys if all(by_name[name].may_be_key for name in key))
    key = next(fit, keys[0] if keys else ())
    table = CatalogTable(name, columns, key, rows=row["rows"], comment=row["comment"])
    problem, why_full = next(_problems(table), None), next(_reasons_to_read_in_full(row, table), None)
    if problem is not None or why_full is None:
        return replace(table, problem=problem)
    if not in_full:
        return replace(table, problem=why_full, why_full=why_full)
    row_id = CatalogColumn(free_name("row_id", by_name), UUID, nullable=False, spelled="uuid")
    return replace(table, columns=(row_id, *columns), key=(row_id.name,), why_full=why_full, row_id=row_id.name)


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


def _problems(table: CatalogTable) -> Iterator[str]:
    """Why a contract can't read a table; the first reason is the one to give."""
    if not table.columns:
        yield "it has no columns"
    if not any(column.is_readable for column in table.columns):
        yield "the role has no privilege to read it"
    for column in map(table.column, table.key):
        if not column.is_readable:
            yield f"its key holds '{column.name}', which the role has no privilege to read"


def _reasons_to_read_in_full(row: asyncpg.Record, table: CatalogTable) -> Iterator[str]:
    """Why nothing tells which rows have changed, or which row is which; the first reason is the one to give."""
    if (kind := WITHOUT_VERSIONS.get(row["kind"])) is not None:
        yield f"it is {kind}: no transaction id of its rows shows what changed"
    if row["has_foreign_tables"]:
        yield "it has foreign tables below it, whose rows have no transaction ids"
    if row["has_heirs"]:
        yield "other tables inherit from it, which its key does not cover"
    if not table.key:
        yield "it has neither a primary key nor a unique index on NOT NULL columns"
    for column in map(table.column, table.key):
        if not column.may_be_key:
            yield f"its key holds '{column.name}', which is {column.spelled}"


def _linked(
    table: CatalogTable, links: Iterable[dict[str, Any]], names: Names, tables: Mapping[str, CatalogTable]
) -> CatalogTable:
    """The table with those of its foreign keys that a contract can follow, and remarks about the others."""
    found, remarks = dict[tuple[str, ...], ForeignKey](), list[str]()
    for link in links if table.problem is None else ():
        target = names.get((link["schema"], link["table"]))
        if (problem := _link_problem(table, link, None if target is None else tables[target])) is not None or target is None:
            remarks.append(f"foreign key ({', '.join(link['on'])}): {problem}")
            continue
        pairs = dict(zip(link["key"], link["on"], strict=True))
        columns = tuple(pairs[name] for name in tables[target].key)
        if found.setdefault(columns, ForeignKey(columns, target)).table != target:
            remarks.append(f"foreign key ({', '.join(columns)}): it also refers to '{target}'")
    return replace(table, foreign_keys=tuple(found.values()), remarks=tuple(remarks))


def _link_problem(table: CatalogTable, link: Mapping[str, Any], other: CatalogTable | None) -> str | None:
    if other is None:
        return f"'{link['schema']}.{link['table']}' is not among the tables that were read"
    if other.problem is not None:
        return f"'{other.name}' can't be read"
    if sorted(link["key"]) != sorted(other.key):
        return f"it refers to ({', '.join(link['key'])}) of '{other.name}', whose key is ({', '.join(other.key)})"
    if any("," in one or one != one.strip() for one in link["on"]):
        return "a contract can't name its columns"
    for one, key in zip(map(table.column, link["on"]), map(other.column, link["key"]), strict=True):
        if not one.is_readable or not join_alike(one.type, key.type) or (one.type.is_text and not one.is_comparable):
            return f"'{one.name}' can't be read, or not be compared as a foreign key compares it"
        if key.spelled == "bpchar" != one.spelled and one.name in table.key:
            return f"'{one.name}' is compared with a character(n)"
    return None
