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
from shared.codecs import codec_of
from shared.equality import keys_compared_with
from shared.errors import PermanentError
from shared.source_facts import UNKNOWN_POSITION, SourceFacts, SourceTableFacts
from shared.source_types import SourceType, comparison_problem

SNAPSHOT_QUERY = (files("shared") / "queries" / "snapshot.sql").read_text()
LOG_POSITION_QUERY = (files("shared") / "queries" / "log_position.sql").read_text()
CATALOG_QUERY = (files("shared") / "queries" / "catalog.sql").read_text()
UNKNOWN_ROW_BYTES = 512
UNKNOWN_ROWS = 1_000
# Errors of a server that withholds its log's position.
_WITHHELD = (
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.UndefinedFunctionError,
)
_VERSIONLESS = {"v": "view", "m": "materialized view", "f": "foreign table"}


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
    if await connection.fetchval("SHOW server_encoding") == "SQL_ASCII":
        raise SourceMismatchError(
            "the source database's encoding is SQL_ASCII, in which a text may contain bytes that are not characters; copy "
            "it into "
            "a database of encoding UTF8 (pg_dump --encoding) and point the source's URL there"
        )
    relations = {contract.relation_of(table): table.name for table in contract.source_tables}
    rows = await connection.fetch(CATALOG_QUERY, [schema for schema, _ in relations], [name for _, name in relations])
    found = {relations[row["schema"], row["name"]]: row for row in rows}
    types = {name: _types(row) for name, row in found.items()}
    for table in contract.source_tables:
        _require_fit(contract, table, found.get(table.name), types.get(table.name))
    _require_comparable(contract, types)
    return {table.name: _facts(table, found[table.name], types[table.name]) for table in contract.source_tables}


def _facts(table: SourceTable, found: asyncpg.Record, types: Mapping[str, SourceType]) -> SourceTableFacts:
    known = {*(column.name for column in table.columns), *table.others}
    new = {name: kind.domain or kind.name for name, kind in types.items() if name not in {*known, table.defect, table.key_text}}
    row_bytes = _row_bytes(found["bytes"], found["estimated_rows"])
    return SourceTableFacts(found["fingerprint"], row_bytes, new, _unreadable(found) & new.keys(), found["has_row_versions"])


def _unreadable(found: asyncpg.Record) -> frozenset[str]:
    """The columns that the role has no privilege to read."""
    columns = zip(found["column_names"], found["column_is_readable"], strict=True)
    return frozenset(name for name, is_readable in columns if is_readable is False)


def _row_bytes(table_bytes: int, estimated_rows: int) -> int:
    """The average size of a row; of a table that was never analysed a guess, which takes a large one's rows to be wide."""
    return max(1, table_bytes // estimated_rows) if estimated_rows else max(UNKNOWN_ROW_BYTES, table_bytes // UNKNOWN_ROWS)


def _require_fit(
    contract: Contract, table: SourceTable, found: asyncpg.Record | None, types: Mapping[str, SourceType] | None
) -> None:
    """Raises: SourceMismatchError if the source lacks what the contract reads of `table`."""
    remedy = f"required by contract '{contract.name}'; restore it or change the contract"
    if found is None or not types:
        schema, name = contract.relation_of(table)
        raise SourceMismatchError(f"schema '{schema}' lacks table '{name}' {remedy}")
    if (kind := _VERSIONLESS.get(found["kind"])) is not None:
        raise SourceMismatchError(
            f"'{table.name}' is a {kind}: no transaction id of its rows shows what changed; make contract '{contract.name}' "
            "read the tables that its rows come from"
        )
    _require_readable(table, found, types)
    if found["foreign_tables"]:
        raise SourceMismatchError(
            f"table '{table.name}' has foreign tables below it ({', '.join(found['foreign_tables'])}), whose rows have no "
            "transaction ids: changes there would never be read; detach them or make them tables of the source"
        )
    if found["heirs"]:
        raise SourceMismatchError(
            f"table '{table.name}' has tables that inherit from it ({', '.join(found['heirs'])}), which its key does not "
            f"cover; detach them (ALTER TABLE … NO INHERIT {table.name}) and read them as tables of their own"
        )
    for column in table.columns:
        if column.name not in types:
            raise SourceMismatchError(f"table '{table.name}' lacks column '{column.name}' {remedy}")
        if not codec_of(column.type).accepts(found_type := types[column.name]):
            wanted = column.type.sql if column.type.precision else column.type.family
            if column.type.precision and found_type.unbounded == "numeric":
                remedy = remedy.replace("change the contract", f"change the contract to verbatim('{found_type.name}')")
            raise SourceMismatchError(f"column '{table.name}.{column.name}' is {found_type}, not {wanted} as {remedy}")
    key = ",".join(sorted(table.key))
    if key not in (found["unique_keys"] or ()):
        raise SourceMismatchError(
            f"table '{table.name}' has no unique index on its key ({key}), NOT NULL, {remedy}: rows could not be told apart"
        )


def _require_readable(table: SourceTable, found: asyncpg.Record, types: Mapping[str, SourceType]) -> None:
    """Raises: SourceMismatchError if the role may not read a column that the contract names."""
    named = [column.name for column in table.columns if column.name in types]
    unreadable = _unreadable(found)
    if named and unreadable.issuperset(named):
        raise SourceMismatchError(
            f"no privilege to read table '{table.name}'; grant SELECT on it to the role that Starlift uses"
        )
    for name in named:
        if name in unreadable:
            raise SourceMismatchError(
                f"no privilege to read column '{table.name}.{name}'; grant SELECT ({name}) ON {table.name} to the role that "
                "Starlift uses, or leave the column out of the contract"
            )


def _require_comparable(contract: Contract, types: Mapping[str, Mapping[str, SourceType]]) -> None:
    """Raises: SourceMismatchError if texts in keys may differ although PostgreSQL compares them as equal."""
    for table in contract.source_tables:
        for column in table.columns:
            compared = keys_compared_with(contract, table.name, column.name) if column.type.is_text else ()
            if not column.type.is_text or not (compared or column.name in table.key):
                continue
            keys = {_key_name(contract.source_table(other), key): types[other][key] for other, key in compared}
            problem = comparison_problem(table, column.name, types[table.name][column.name], keys)
            if problem is not None:
                raise SourceMismatchError(f"column '{table.name}.{column.name}' {problem}")


def _key_name(table: SourceTable, column: str) -> str:
    return table.name if len(table.key) == 1 else f"{table.name}.{column}"


def _types(found: asyncpg.Record) -> dict[str, SourceType]:
    """The types of a table's columns, without those that were dropped since the snapshot.

    PostgreSQL looks privileges up in the newest catalog, not in the snapshot's: for what was dropped since, it returns NULL.
    """
    described = zip(found["column_names"], found["column_types"], found["column_is_readable"], strict=True)
    return {name: SourceType(**json.loads(kind)) for name, kind, is_readable in described if is_readable is not None}
