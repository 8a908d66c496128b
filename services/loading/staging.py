"""The rows of a batch where its merge reads them: in temporary tables or, if they are few, in the statements themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pandas as pd

from contracts.contract import Contract
from contracts.tables import WarehouseTable
from services.loading.merge import create_staging, read_staged, staging_name
from shared.binary_copy import binary_copy, copy_rows, staged_type
from shared.bundles import values_of
from shared.codecs import codec_of
from shared.errors import PermanentError
from shared.sql import quoted

FEW_ROWS = 1_000  # temporary tables for them take ten times the server's time, and leave dead rows in its catalog


@dataclass(frozen=True, slots=True)
class Staged:
    """Staged rows, in a transaction."""

    connection: asyncpg.Connection
    rows: Mapping[str, tuple[WarehouseTable, pd.DataFrame]] = field(default_factory=dict)  # by staging name; none in a table

    async def execute(self, statement: str, *arguments: object) -> None:
        """Execute a statement about staged rows."""
        text, given = self.bound(statement, *arguments)
        await self.connection.execute(text, *given)

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """The result of a statement about staged rows."""
        text, given = self.bound(statement, *arguments)
        return await self.connection.fetch(text, *given)

    def bound(self, statement: str, *arguments: object) -> tuple[str, tuple[object, ...]]:
        """A statement and its arguments, with the columns that it names of rows that are in no table."""
        tables, given = list[str](), list(arguments)
        for name, (table, rows) in self.rows.items():
            if quoted(name) not in statement:
                continue
            columns = [column for column in table.columns if quoted(column.name) in statement]
            arrays = (f"${place}::{codec_of(column.type).staged}[]" for place, column in enumerate(columns, len(given) + 1))
            names = ", ".join(quoted(column.name) for column in columns)
            tables.append(f"{quoted(name)} ({names}) AS (SELECT * FROM unnest({', '.join(arrays)}))")
            given += [values_of(rows[column.name]) for column in columns]
        return f"WITH {', '.join(tables)} {statement}" if tables else statement, tuple(given)


async def stage_batch(
    connection: asyncpg.Connection, contract: Contract, rows: Mapping[str, pd.DataFrame], few_rows: int
) -> Staged:
    """Stage the rows of a batch, by table; up to `few_rows` are in no table."""
    tables = [table for table in contract.warehouse_tables if table.name in rows]
    if sum(map(len, rows.values())) <= few_rows:
        return Staged(connection, {staging_name(table): (table, rows[table.name]) for table in tables})
    for table in tables:
        await stage(connection, table, rows[table.name])
    return Staged(connection)


async def stage(connection: asyncpg.Connection, table: WarehouseTable, rows: pd.DataFrame) -> None:
    """Copy rows into a temporary table, as whole numbers and texts."""
    await connection.execute(create_staging(table))
    types = {name: staged_type(kind) for name, kind in table.star_types.items()}
    await copy_rows(connection, None, staging_name(table), types, binary_copy(rows, types))


@asynccontextmanager
async def unreadable_column_named(rows: Staged, table: WarehouseTable) -> AsyncIterator[None]:
    """Around the merge of staged rows: find the column whose value the warehouse can't read.

    PostgreSQL names no column when a cast fails, and its text quotes the value. Only what travels as PostgreSQL's own text can
    fail: it is read by another server, maybe an older one, or one whose type of that name is another.
    Raises: PermanentError, which names the column.
    """
    verbatim = [column for column in table.columns if column.type.is_verbatim]
    if not verbatim:
        yield
        return
    try:
        async with rows.connection.transaction():  # a savepoint: after an error nothing else could be asked
            yield
    except asyncpg.DataError as error:
        for column in verbatim:
            try:
                async with rows.connection.transaction():
                    await rows.execute(read_staged(table, column))
            except asyncpg.DataError:
                raise PermanentError(
                    f"column '{column.name}' of '{table.name}' has a value that the warehouse can't read as {column.type.sql} "
                    f"({type(error).__name__}; the text is withheld because it may quote a row); correct it at the source or "
                    "leave the column out of the contract, then run `starlift ingest --full`"
                ) from error
        raise
