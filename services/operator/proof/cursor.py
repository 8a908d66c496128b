"""Reading a query in parts, in a way that also works behind a pooler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg


async def read_in_parts(
    connection: asyncpg.Connection, query: str, *arguments: object, rows: int
) -> AsyncIterator[asyncpg.Record]:
    """Yield the rows of a query, fetching `rows` at a time, inside the connection's transaction.

    asyncpg's own cursors prepare a statement under a name, and a pooler in transaction mode hands the session to the next
    process, whose statement has the same name.
    """
    name = f"starlift_{uuid4().hex}"
    await connection.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {query}", *arguments)
    while part := await connection.fetch(f"FETCH {rows} FROM {name}"):
        for record in part:
            yield record
        if len(part) < rows:
            break
    await connection.execute(f"CLOSE {name}")
