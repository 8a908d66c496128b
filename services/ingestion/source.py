"""The source as a run finds it: its snapshot, its identity, its tables; and whether they still fit the contract."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import asyncpg

from contracts.column_types import ColumnType, Kind
from contracts.messages import Snapshot
from contracts.state import SourceIdentity
from contracts.tables import Contract, SourceTable
from shared.errors import PermanentError
from shared.postgres import Database

QUERIES = files("services.ingestion") / "queries"

UNKNOWN_ROW_BYTES = 512

_ACCEPTED: Mapping[Kind, re.Pattern[str]] = {
    Kind.INTEGER: re.compile(r"smallint|integer"),
    Kind.BIGINT: re.compile(r"smallint|integer|bigint"),
    Kind.NUMERIC: re.compile(r"numeric\((\d+),(\d+)\)"),
    Kind.TEXT: re.compile(r"text|character varying(\(\d+\))?|character\(\d+\)"),
    Kind.BOOLEAN: re.compile(r"boolean"),
    Kind.DATE: re.compile(r"date"),
    Kind.TIME: re.compile(r"time(\(\d\))? without time zone"),
    Kind.TIMESTAMP: re.compile(r"timestamp(\(\d\))? without time zone"),
    Kind.ENUM: re.compile(r"text|character varying(\(\d+\))?"),
}


class SourceMismatchError(PermanentError):
    """The source does not fit the contract. Recovery: restore it or change the contract, then replay the dead letters."""


@dataclass(frozen=True, slots=True)
class SourceTableFacts:
    """What the catalog says of one table. `row_bytes` is a rough average, with what is stored out of line."""

    fingerprint: str
    row_bytes: int


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """One REPEATABLE READ snapshot: everything a run reads, it reads as of this instant."""

    snapshot: Snapshot
    next_xid: int
    identity: SourceIdentity
    tables: Mapping[str, SourceTableFacts]


@asynccontextmanager
async def open_snapshot(source: Database, contract: Contract) -> AsyncIterator[tuple[asyncpg.Connection, SourceSnapshot]]:
    """A read-only transaction, and what it sees. The horizon is taken before the first row is read.

    Raises: SourceMismatchError, DependencyDownError, TransientError, PermanentError.
    """
    async with source.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow((QUERIES / "snapshot.sql").read_text())
        tables = await connection.fetch(
            (QUERIES / "catalog.sql").read_text(), contract.source_schema, [table.name for table in contract.source_tables]
        )
        for table in contract.source_tables:
            require_fit(contract, table, {found["name"]: found for found in tables})
        yield connection, _described_snapshot(dict(row or {}), tables)


def _described_snapshot(row: Mapping[str, Any], tables: list[asyncpg.Record]) -> SourceSnapshot:
    return SourceSnapshot(
        snapshot=Snapshot(taken_at=row["taken_at"], horizon=row["horizon"], wal_position=row["wal_position"]),
        next_xid=row["next_xid"],
        identity=SourceIdentity.model_validate({name: row[name] for name in SourceIdentity.model_fields}),
        tables={
            found["name"]: SourceTableFacts(found["fingerprint"], row_bytes(found["bytes"], found["estimated_rows"]))
            for found in tables
        },
    )


def row_bytes(table_bytes: int, estimated_rows: int) -> int:
    """A row's average size; a guess for a table that was never analysed."""
    return max(1, table_bytes // estimated_rows) if estimated_rows else UNKNOWN_ROW_BYTES


def require_fit(contract: Contract, table: SourceTable, catalog: Mapping[str, asyncpg.Record]) -> None:
    """Check that the source has what the contract reads of `table`. Raises: SourceMismatchError."""
    remedy = f"required by contract '{contract.name}'; restore it or change the contract, then replay the dead letters"
    found = catalog.get(table.name)
    if found is None:
        raise SourceMismatchError(f"schema '{contract.source_schema}' lacks table '{table.name}' {remedy}")
    if not found["is_readable"]:
        raise SourceMismatchError(
            f"no privilege to read table '{table.name}'; grant SELECT on it to the role that Starlift uses"
        )
    types = dict(zip(found["column_names"], found["column_types"], strict=True))
    enums = dict(zip(found["column_names"], found["column_is_enum"], strict=True))
    for column in table.columns:
        if column.name not in types:
            raise SourceMismatchError(f"table '{table.name}' lacks column '{column.name}' {remedy}")
        if not _fits(types[column.name], column.type, is_enum=enums[column.name]):
            raise SourceMismatchError(
                f"column '{table.name}.{column.name}' is {types[column.name]}, not {described(column.type)} as {remedy}"
            )


def described(kind: ColumnType) -> str:
    """A contract's type in words."""
    return kind.sql if kind.kind is Kind.NUMERIC else str(kind.kind.value)


def _fits(found: str, expected: ColumnType, *, is_enum: bool) -> bool:
    """Whether every value of the type `found` can be carried as `expected`."""
    if is_enum:
        return expected.is_text
    match = _ACCEPTED[expected.kind].fullmatch(found)
    if match is None:
        return False
    if expected.kind is Kind.NUMERIC:
        precision, scale = int(match[1]), int(match[2])
        return scale <= expected.scale and precision - scale <= expected.precision - expected.scale
    return True
