"""The source's tables as its catalog describes them, and whether they still fit the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

import asyncpg

from contracts.column_types import ColumnType, Kind
from contracts.tables import DEFECT, Contract, SourceTable
from shared.errors import PermanentError

CATALOG_QUERY = (files("shared") / "queries" / "catalog.sql").read_text()
UNKNOWN_ROW_BYTES = 512
UNKNOWN_ROWS = 1_000

_ACCEPTED: Mapping[Kind, re.Pattern[str]] = {
    Kind.INTEGER: re.compile(r"smallint|integer"),
    Kind.BIGINT: re.compile(r"smallint|integer|bigint"),
    Kind.NUMERIC: re.compile(r"numeric\((\d+),(\d+)\)"),
    Kind.TEXT: re.compile(r"text|character varying(\(\d+\))?|character\(\d+\)"),
    Kind.BOOLEAN: re.compile(r"boolean"),
    Kind.DATE: re.compile(r"date"),
    Kind.TIME: re.compile(r"time(\(\d\))? without time zone"),
    Kind.TIMESTAMP: re.compile(r"timestamp(\(\d\))? without time zone"),
    Kind.TIMESTAMPTZ: re.compile(r"timestamp(\(\d\))? with time zone"),
    Kind.ENUM: re.compile(r"text|character varying(\(\d+\))?"),
}


_VERSIONLESS = {"v": "view", "m": "materialized view", "f": "foreign table"}


class SourceMismatchError(PermanentError):
    """The source does not fit the contract. Recovery: restore it or change the contract, then replay the dead letters."""


@dataclass(frozen=True, slots=True)
class SourceTableFacts:
    """What the catalog says of one table.

    `row_bytes` is a rough average, including what is stored out of line. `new_columns` maps the columns that the contract does
    not know to their types, `unreadable` are those of them that the role may not read. Without `has_row_versions` (xmin is a
    column that privileges may leave out) what changed can't be told from what did not: every run reads the table in full.
    """

    fingerprint: str
    row_bytes: int
    new_columns: Mapping[str, str] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    has_row_versions: bool = True

    @property
    def described_columns(self) -> tuple[str, ...]:
        """The new columns as a person reads them: 'colour text'."""
        return tuple(f"{name} {kind}" for name, kind in self.new_columns.items())


async def read_catalog(connection: asyncpg.Connection, contract: Contract) -> dict[str, SourceTableFacts]:
    """What the catalog says of every source table of the contract. Raises: SourceMismatchError where it does not fit."""
    if await connection.fetchval("SHOW server_encoding") == "SQL_ASCII":
        raise SourceMismatchError(
            "the source database's encoding is SQL_ASCII, in which a text may hold bytes that are not characters; copy it into a "
            "database of encoding UTF8 (pg_dump --encoding) and point the source's URL there"
        )
    rows = await connection.fetch(CATALOG_QUERY, contract.source_schema, [table.name for table in contract.source_tables])
    found = {row["name"]: row for row in rows}
    for table in contract.source_tables:
        _require_fit(contract, table, found.get(table.name))
    return {table.name: _facts(table, found[table.name]) for table in contract.source_tables}


def _facts(table: SourceTable, found: asyncpg.Record) -> SourceTableFacts:
    known = {column.name for column in table.columns}
    types = zip(found["column_names"], found["column_types"], strict=True)
    new = {name: kind for name, kind in types if name not in known and name != DEFECT}
    row_bytes = _row_bytes(found["bytes"], found["estimated_rows"])
    return SourceTableFacts(found["fingerprint"], row_bytes, new, _unreadable(found) & new.keys(), found["has_row_versions"])


def _unreadable(found: asyncpg.Record) -> frozenset[str]:
    """The columns that the role has no privilege to read."""
    columns = zip(found["column_names"], found["column_is_readable"], strict=True)
    return frozenset(name for name, is_readable in columns if not is_readable)


def _row_bytes(table_bytes: int, estimated_rows: int) -> int:
    """A row's average size; of a table that was never analysed a guess, which takes a large one's rows to be wide."""
    return max(1, table_bytes // estimated_rows) if estimated_rows else max(UNKNOWN_ROW_BYTES, table_bytes // UNKNOWN_ROWS)


def _require_fit(contract: Contract, table: SourceTable, found: asyncpg.Record | None) -> None:
    """Check that the source has what the contract reads of `table`. Raises: SourceMismatchError."""
    remedy = f"required by contract '{contract.name}'; restore it or change the contract, then replay the dead letters"
    if found is None:
        raise SourceMismatchError(f"schema '{contract.source_schema}' lacks table '{table.name}' {remedy}")
    if (kind := _VERSIONLESS.get(found["kind"])) is not None:
        raise SourceMismatchError(
            f"'{table.name}' is a {kind}: no transaction id of its rows shows what changed; make contract '{contract.name}' "
            "read the tables that its rows come from, then replay the dead letters"
        )
    _require_readable(table, found)
    if found["foreign_tables"]:
        raise SourceMismatchError(
            f"table '{table.name}' has foreign tables below it ({', '.join(found['foreign_tables'])}), whose rows have no "
            "transaction ids: changes there would never be read; detach them or make them tables of the source, then replay "
            "the dead letters"
        )
    if found["heirs"]:
        raise SourceMismatchError(
            f"table '{table.name}' has tables that inherit from it ({', '.join(found['heirs'])}), whose rows its key does not "
            f"hold for; detach them (ALTER TABLE … NO INHERIT {table.name}) and read them as tables of their own, then replay "
            "the dead letters"
        )
    types = dict(zip(found["column_names"], found["column_types"], strict=True))
    enums = dict(zip(found["column_names"], found["column_is_enum"], strict=True))
    for column in table.columns:
        if column.name not in types:
            raise SourceMismatchError(f"table '{table.name}' lacks column '{column.name}' {remedy}")
        if not _fits(types[column.name], column.type, is_enum=enums[column.name]):
            raise SourceMismatchError(
                f"column '{table.name}.{column.name}' is {types[column.name]}, not {_described(column.type)} as {remedy}"
            )
    key = ",".join(sorted(table.key))
    if key not in (found["unique_keys"] or ()):
        raise SourceMismatchError(
            f"table '{table.name}' has no unique index on its key ({key}), NOT NULL, {remedy}: rows could not be told apart"
        )


def _require_readable(table: SourceTable, found: asyncpg.Record) -> None:
    """Check the role's privileges: on each column that the contract names, and on no other. Raises: SourceMismatchError."""
    named = [column.name for column in table.columns if column.name in found["column_names"]]
    unreadable = _unreadable(found)
    if named and unreadable.issuperset(named):
        raise SourceMismatchError(
            f"no privilege to read table '{table.name}'; grant SELECT on it to the role that Starlift uses"
        )
    for name in named:
        if name in unreadable:
            raise SourceMismatchError(
                f"no privilege to read column '{table.name}.{name}'; grant SELECT ({name}) ON {table.name} to the role that "
                "Starlift uses, or leave the column out of the contract, then replay the dead letters"
            )


def _described(kind: ColumnType) -> str:
    """A contract's type in words."""
    return kind.sql if kind.kind is Kind.NUMERIC else kind.family


def _fits(found: str, expected: ColumnType, *, is_enum: bool) -> bool:
    """Whether every value of the type `found` can be carried as `expected`."""
    if is_enum:
        return expected.is_text
    if expected.kind is Kind.VERBATIM:
        return found == expected.name
    match = _ACCEPTED[expected.kind].fullmatch(found)
    if match is None:
        return False
    if expected.kind is Kind.NUMERIC:
        precision, scale = int(match[1]), int(match[2])
        return scale <= expected.scale and precision - scale <= expected.precision - expected.scale
    return True
