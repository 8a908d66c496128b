"""Creates totesys and fills it with two believable years, at any scale: equal seeds give equal rows, to the millisecond."""

from __future__ import annotations

from datetime import datetime, timedelta
from importlib.resources import files

import asyncpg
from pydantic import SecretStr

from shared.postgres_errors import classed_errors
from shared.postgres_url import parse_url
from shared.sql import quoted

END = datetime(2026, 11, 1)  # noqa: DTZ001 - the source's timestamps are UTC without a zone
TABLES = (
    *("currency", "payment_type", "department", "design", "address", "staff", "counterparty"),
    *("sales_order", "purchase_order", "transaction", "payment"),
)
STATEMENT_LIMIT = timedelta(seconds=30)
_FILL_LIMIT = timedelta(hours=6)  # a million orders take a minute or two
_PARAMETERS = """
SELECT set_config('totesys.orders', $1::int::text, true), set_config('totesys.until', $2::timestamp::text, true),
       setseed(hashint4($3::int) / 2147483648.0)
"""


async def create(connection: asyncpg.Connection) -> None:
    """Create the tables of totesys in the connection's current schema.

    Raises: asyncpg.DuplicateObjectError or asyncpg.DuplicateTableError where something of that name exists.
    """
    async with connection.transaction():
        await connection.execute(_script("schema.sql"))


async def fill(connection: asyncpg.Connection, *, orders: int, seed: int, until: datetime = END) -> dict[str, int]:
    """Fill the empty tables with `orders` sales orders and what belongs to them, in one transaction.

    `until` is the end of the two years, UTC without a zone. Returns: the rows of each table.
    """
    async with connection.transaction():
        await connection.execute(_PARAMETERS, orders, until, seed)
        await connection.execute(_script("fill.sql"), timeout=_FILL_LIMIT.total_seconds())
    await connection.execute(f"ANALYZE {', '.join(map(quoted, TABLES))}")
    return {table: await connection.fetchval(f"SELECT count(*) FROM {quoted(table)}") for table in TABLES}


async def ensure_filled(url: str, *, orders: int, seed: int = 1) -> int:
    """Create and fill totesys in an empty database; return the number of rows made, 0 where its tables exist already.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    connection = await connect(url)
    try:
        with classed_errors("source"):
            if await connection.fetchval("SELECT to_regclass('sales_order')") is not None:
                return 0
            async with connection.transaction():
                await create(connection)
                return sum((await fill(connection, orders=orders, seed=seed)).values())
    finally:
        await connection.close()


async def connect(url: str) -> asyncpg.Connection:
    """A session of the application, whose CURRENT_TIMESTAMP is UTC. Raises: DependencyDownError, TransientError."""
    with classed_errors("source"):
        return await parse_url("source", SecretStr(url)).connect(
            command_timeout=STATEMENT_LIMIT.total_seconds(), server_settings={"TimeZone": "UTC"}
        )


def _script(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
