"""The rows of a totesys source, for comparison."""

from __future__ import annotations

import asyncpg

from tests.fixtures.totesys import SOURCE_TABLES


async def count_rows(connection: asyncpg.Connection) -> dict[str, int]:
    """The number of rows of each table."""
    return {table.name: await connection.fetchval(f'SELECT count(*) FROM "{table.name}"') for table in SOURCE_TABLES}


async def digest(connection: asyncpg.Connection) -> dict[str, str]:
    """For each table a hash of all its rows."""
    query = "SELECT md5(string_agg(t::text, '|' ORDER BY {0}_id)) FROM \"{0}\" AS t"
    return {table.name: await connection.fetchval(query.format(table.name)) for table in SOURCE_TABLES}
