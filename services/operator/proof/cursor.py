"""Reading a query a part at a time, behind a pooler, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg


async def read_in_parts(
    connection: asyncpg.Connection, query: str, *arguments: object, rows: int
) -> AsyncIterator[asyncpg.Record]:
    """The rows of a query, so many at a time, inside the transaction of the connection.

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
