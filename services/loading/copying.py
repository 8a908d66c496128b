"""Copying the rows of a batch: into a temporary table, from which they are merged, or straight into the star."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pandas as pd

from contracts.column_types import BIGINT, BOOLEAN, TEXT, ColumnType, Kind
from contracts.contract import Contract
from contracts.tables import WarehouseTable
from services.loading.merge import create_staging, insert_staged, read_staged, staging_name
from shared.binary_copy import binary_copy
from shared.errors import PermanentError
from shared.star_schema.schema import relation

_EPOCH, _MICROSECOND = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_WIDER = """
SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND atttypid = 'bigint'::regtype AND NOT attisdropped
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the technical columns of a batch's rows contain."""

    run: int
    batch_id: UUID
    loaded_at: datetime  # by the warehouse's clock


async def stage(connection: asyncpg.Connection, table: WarehouseTable, rows: pd.DataFrame) -> None:
    """Copy rows into a temporary table, as whole numbers and texts."""
    await connection.execute(create_staging(table))
    types = {name: _staged(kind) for name, kind in table.star_types.items()}
    await _copy(connection, None, staging_name(table), types, binary_copy(rows, types))


def _staged(kind: ColumnType) -> ColumnType:
    if kind.travels_as_text:
        return TEXT
    return BOOLEAN if kind.kind is Kind.BOOLEAN else BIGINT


async def copy_into_star(
    connection: asyncpg.Connection, contract: Contract, table: WarehouseTable, rows: pd.DataFrame, origin: Origin
) -> None:
    """Copy rows into their table of the star, which has no key. Raises: PermanentError for a value that has no room."""
    if any(kind.is_verbatim for kind in table.star_types.values()):  # only the server can read such a text
        await stage(connection, table, rows)
        async with unreadable_column_named(connection, table):
            await connection.execute(insert_staged(contract, table), origin.run, origin.batch_id, origin.loaded_at)
        return
    wider = {row["attname"] for row in await connection.fetch(_WIDER, relation(contract, table))}
    # A later build may have widened a column while this one still runs.
    types = {name: BIGINT if kind.kind is Kind.INTEGER and name in wider else kind for name, kind in table.star_types.items()}
    moment = (origin.loaded_at - _EPOCH) // _MICROSECOND
    technical = {
        "_run": origin.run.to_bytes(8),
        "_batch_id": origin.batch_id.bytes,
        "_loaded_at": moment.to_bytes(8, signed=True),
    }
    pieces = binary_copy(rows, types, tuple(technical.values()))
    try:
        await _copy(connection, contract.warehouse_schema, table.name, [*types, *technical], pieces)
    except OverflowError as error:
        raise PermanentError(f"rows of '{table.name}' can't be loaded: {error}") from error


async def _copy(
    connection: asyncpg.Connection, schema: str | None, table: str, columns: Iterable[str], pieces: Iterable[bytes]
) -> None:
    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    await connection.copy_to_table(table, schema_name=schema, columns=list(columns), source=arriving(), format="binary")


@asynccontextmanager
async def unreadable_column_named(connection: asyncpg.Connection, table: WarehouseTable) -> AsyncIterator[None]:
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
        async with connection.transaction():  # a savepoint: after an error nothing else could be asked
            yield
    except asyncpg.DataError as error:
        for column in verbatim:
            try:
                async with connection.transaction():
                    await connection.execute(read_staged(table, column))
            except asyncpg.DataError:
                raise PermanentError(
                    f"column '{column.name}' of '{table.name}' has a value that the warehouse can't read as {column.type.sql} "
                    f"({type(error).__name__}; the text is withheld because it may quote a row); correct it at the source or "
                    "leave the column out of the contract, then run `starlift ingest --full`"
                ) from error
        raise
