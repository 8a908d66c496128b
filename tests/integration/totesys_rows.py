"""The rows of a totesys source, for comparison, and one more."""

from __future__ import annotations

import asyncpg

from tests.fixtures.totesys import SOURCE_TABLES

# One more sale; its arguments are the days of its delivery and of its payment.
SELL = """
INSERT INTO sales_order (design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date,
                         agreed_payment_date, agreed_delivery_location_id, created_at, last_updated)
VALUES (1, 1, 1, 1, 1.10, 1, $1, $2, 1, '1999-02-03', '1999-02-03') RETURNING sales_order_id
"""


async def count_rows(connection: asyncpg.Connection) -> dict[str, int]:
    """The number of rows of each table."""
    return {table.name: await connection.fetchval(f'SELECT count(*) FROM "{table.name}"') for table in SOURCE_TABLES}


async def digest(connection: asyncpg.Connection) -> dict[str, str]:
    """For each table a hash of all its rows."""
    query = "SELECT md5(string_agg(t::text, '|' ORDER BY {0}_id)) FROM \"{0}\" AS t"
    return {table.name: await connection.fetchval(query.format(table.name)) for table in SOURCE_TABLES}
