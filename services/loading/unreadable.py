"""Which column has a value that the warehouse can't read.

PostgreSQL names no column when a cast fails, and its text quotes the value. Only what travels as PostgreSQL's own text can
fail: it is read by another server, maybe an older one, or one whose type of that name is another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from contracts.tables import Column, WarehouseTable
from services.loading.merge import read_staged
from shared.errors import PermanentError


@asynccontextmanager
async def unreadable_told(connection: asyncpg.Connection, table: WarehouseTable) -> AsyncIterator[None]:
    """Around the merge of the staged rows of `table`. Raises: PermanentError, which names the column."""
    verbatim = [column for column in table.columns if column.type.is_verbatim]
    if not verbatim:
        yield
        return
    try:
        async with connection.transaction():  # a savepoint: behind an error nothing else could be asked
            yield
    except asyncpg.DataError as error:
        for column in verbatim:
            if not await _is_readable(connection, table, column):
                raise PermanentError(
                    f"column '{column.name}' of '{table.name}' has a value that the warehouse can't read as {column.type.sql} "
                    f"({type(error).__name__}; the text is withheld, it may quote a row); mend it at the source or leave the "
                    "column out of the contract, then `starlift ingest --full`"
                ) from error
        raise


async def _is_readable(connection: asyncpg.Connection, table: WarehouseTable, column: Column) -> bool:
    try:
        async with connection.transaction():
            await connection.execute(read_staged(table, column))
    except asyncpg.DataError:
        return False
    return True
