"""Reading a PostgreSQL snapshot: its position, and the source's tables as the catalog describes them.

A source that no longer fits the contract is refused here, before a row is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

import asyncpg

from contracts.contract import Contract
from contracts.messages import Snapshot
from contracts.state import SourceIdentity
from contracts.tables import SourceTable
from shared.errors import PermanentError
from shared.source_facts import UNKNOWN_POSITION, SourceFacts, SourceTableFacts
from shared.source_fit import FoundTable, table_problems
from shared.source_keys import select_bad_key
from shared.source_types import SourceType

SNAPSHOT_QUERY = (files("shared") / "queries" / "snapshot.sql").read_text()
LOG_POSITION_QUERY = (files("shared") / "queries" / "log_position.sql").read_text()
COLUMN_TYPE = (files("shared") / "queries" / "column_type.sql").read_text()
CATALOG_QUERY = (files("shared") / "queries" / "catalog.sql").read_text().replace("/* column_type.sql */", COLUMN_TYPE)
_SCHEMAS = """
SELECT nspname AS name, has_schema_privilege(oid, 'USAGE') AS may_use FROM pg_namespace WHERE nspname = ANY ($1::text[])
"""
UNKNOWN_ROW_BYTES = 512
UNKNOWN_ROWS = 1_000
UNKNOWN_ROW_BYTES_LEAST = 100  # of a row of a table that was never analysed, to guess how many it may have
PROBLEMS_MAXIMUM = 10  # in the error of a run, which is kept in logs and in its dead letter
# Errors of a server that withholds its log's position.
_WITHHELD = (
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.UndefinedFunctionError,
)


class SourceMismatchError(PermanentError):
    """The source does not fit the contract. Recovery: restore it or change the contract, then replay the dead letters."""


async def read_source_facts(connection: asyncpg.Connection, contract: Contract) -> SourceFacts:
    """Describe the snapshot of the transaction, whose first statement this must be. Raises: SourceMismatchError."""
    row = dict(await connection.fetchrow(SNAPSHOT_QUERY) or {})
    row |= await _log_position(connection)
    return SourceFacts(
        snapshot=Snapshot(taken_at=row["taken_at"], horizon=row["horizon"], wal_position=row["wal_position"]),
        next_xid=row["next_xid"],
        identity=SourceIdentity.model_validate({name: row[name] for name in SourceIdentity.model_fields}),
        tables=await read_catalog(connection, contract),
    )


async def _log_position(connection: asyncpg.Connection) -> dict[str, object]:
    """The position and timeline of the log. A position that the server withholds is UNKNOWN_POSITION, and never compared."""
    try:
        async with connection.transaction():  # a savepoint: the rest of the snapshot is still to be read
            row = await connection.fetchrow(LOG_POSITION_QUERY)
    except _WITHHELD:
        row = None
    found = {name: value for name, value in dict(row or {}).items() if value is not None}
    return {"wal_position": UNKNOWN_POSITION} | found


async def read_catalog(connection: asyncpg.Connection, contract: Contract) -> dict[str, SourceTableFacts]:
    """What the catalog records about each source table. Raises: SourceMismatchError if the source does not fit the contract."""
    found = await find_tables(connection, contract)
    if problems := await source_problems(connection, contract, found):
        more = len(problems) - PROBLEMS_MAXIMUM
        rest = [f"{more} more problems, which `starlift plan` lists"] if more > 0 else []
        raise SourceMismatchError("; ".join([*problems[:PROBLEMS_MAXIMUM], *rest]))
    return {table.name: table_facts(table, found[table.name]) for table in contract.source_tables}


async def find_tables(connection: asyncpg.Connection, contract: Contract) -> dict[str, FoundTable]:
    """The contract's source tables that the source has, by name."""
    names = {contract.relation_of(table): table.name for table in contract.source_tables}
    rows = await connection.fetch(CATALOG_QUERY, [schema for schema, _ in names], [name for _, name in names])
    tables = {names[row["schema"], row["name"]]: _found(row) for row in rows}
    return {name: table for name, table in tables.items() if table.types}  # the others were dropped since the snapshot


async def source_problems(connection: asyncpg.Connection, contract: Contract, found: Mapping[str, FoundTable]) -> list[str]:
    """Everything that keeps the source from being read as the contract says, a sentence each."""
    problems = []
    if await connection.fetchval("SHOW server_encoding") == "SQL_ASCII":
        problems.append(
            "the source database's encoding is SQL_ASCII, in which a text may contain bytes that are not characters; copy it "
            "into a database of encoding UTF8 (pg_dump --encoding) and point the source's URL there"
        )
    schemas = list(dict.fromkeys(schema for schema, _ in map(contract.relation_of, contract.source_tables)))
    may_use = {row["name"]: row["may_use"] for row in await connection.fetch(_SCHEMAS, schemas)}
    for schema in schemas:
        if schema not in may_use:
            problems.append(f"the source has no schema '{schema}'; correct contract '{contract.name}' or the source's URL")
        elif not may_use[schema]:
            remedy = "grant USAGE on it to the role that Starlift uses (`starlift grants source`)"
            problems.append(f"no privilege to use schema '{schema}'; {remedy}")
    return [*problems, *table_problems(contract, found, may_use)]


def table_facts(table: SourceTable, found: FoundTable) -> SourceTableFacts:
    """What a run needs to know of a table."""
    known = {*(column.name for column in table.columns), *table.others, table.defect, table.key_text}
    new = {name: kind.domain or kind.name for name, kind in found.types.items() if name not in known}
    row_bytes = _row_bytes(found.bytes, found.estimated_rows)
    has_row_versions = found.has_row_versions and not table.full
    row_count = found.estimated_rows or found.bytes // UNKNOWN_ROW_BYTES_LEAST
    return SourceTableFacts(found.fingerprint, row_bytes, row_count, new, found.unreadable & new.keys(), has_row_versions)


async def key_problem(connection: asyncpg.Connection, contract: Contract, table: SourceTable) -> str | None:
    """Why the key that a contract declares for a table without a unique index tells no rows apart; reads the whole table."""
    if not table.full or table.row_id is not None:
        return None
    if (found := await connection.fetchrow(select_bad_key(contract, table))) is None:
        return None
    what = "a row has NULL in" if found["is_null"] else "several rows have one value of"
    return (
        f"'{table.name}': {what} its declared key ({', '.join(table.key)}); declare columns that are never NULL and differ in "
        "every row, or, for a fact without version, write `row_id: row_id` instead of `key`"
    )


def _row_bytes(table_bytes: int, estimated_rows: int) -> int:
    """The average size of a row; of a table that was never analysed a guess, which takes a large one's rows to be wide."""
    return max(1, table_bytes // estimated_rows) if estimated_rows else max(UNKNOWN_ROW_BYTES, table_bytes // UNKNOWN_ROWS)


def _found(row: asyncpg.Record) -> FoundTable:
    """A table without the columns that were dropped since the snapshot.

    PostgreSQL looks privileges up in the newest catalog, not in the snapshot's: for what was dropped since, it returns NULL.
    """
    columns = list(zip(row["column_names"], row["column_types"], row["column_is_readable"], strict=True))
    return FoundTable(
        kind=row["kind"],
        fingerprint=row["fingerprint"],
        bytes=row["bytes"],
        estimated_rows=row["estimated_rows"],
        types={name: SourceType(**json.loads(kind)) for name, kind, is_readable in columns if is_readable is not None},
        unreadable=frozenset(name for name, _, is_readable in columns if is_readable is False),
        unique_keys=frozenset(key for key in row["unique_keys"] or () if key),
        foreign_tables=tuple(row["foreign_tables"] or ()),
        heirs=tuple(row["heirs"] or ()),
        has_row_versions=row["has_row_versions"],
    )
