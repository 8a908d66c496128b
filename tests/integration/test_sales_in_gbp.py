"""The view of the example of exchange rates, against results that were computed by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from importlib import resources

import asyncpg
import pytest

from infra.local.databases import LOADER
from tests.fixtures.postgres_cluster import TestCluster

VIEW = resources.files("contracts").joinpath("sales_in_gbp.sql").read_text(encoding="utf-8")
STAR = """
CREATE TABLE dim_currency (currency_id int PRIMARY KEY, currency_code varchar);
CREATE TABLE fact_sales_order_current (created_date date, currency_id int, units_sold int, unit_price numeric(10,2));
CREATE TABLE fact_exchange_rate (
    currency varchar, day date, per_euro numeric(18,8), _deleted_at timestamptz, PRIMARY KEY (currency, day)
);
INSERT INTO dim_currency VALUES (1, 'GBP'), (2, 'USD'), (3, 'EUR'), (4, '(unknown)');
INSERT INTO fact_exchange_rate VALUES
    ('GBP', '2026-01-08', 0.8), ('USD', '2026-01-08', 1.1), ('GBP', '2026-01-09', 0.9), ('USD', '2026-01-09', 1.2);
"""
FRIDAY, SATURDAY = date(2026, 1, 9), date(2026, 1, 10)


@pytest.fixture
async def star(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_cluster.url(warehouse_database, LOADER))
    await connection.execute(STAR)
    await connection.execute(VIEW)
    yield connection
    await connection.close()


async def days(star: asyncpg.Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await star.fetch("SELECT * FROM sales_in_gbp ORDER BY day")]


async def test_a_sale_is_converted_through_the_euro_at_the_rates_of_its_day(star: asyncpg.Connection) -> None:
    await star.execute(
        "INSERT INTO fact_sales_order_current VALUES ($1, 1, 3, 1.10), ($1, 2, 2, 6.00), ($1, 3, 1, 10.00)", FRIDAY
    )
    # 3 * 1.10 GBP, 12.00 USD / 1.2 * 0.9, 10.00 EUR * 0.9
    assert await days(star) == [(FRIDAY, 3, 0, Decimal("21.30"))]


async def test_a_weekend_and_a_day_without_a_value_have_the_latest_rate_before_them(star: asyncpg.Connection) -> None:
    await star.execute("INSERT INTO fact_exchange_rate VALUES ('USD', $1, NULL), ('USD', '2026-01-12', 9.9)", SATURDAY)
    await star.execute("INSERT INTO fact_sales_order_current VALUES ($1, 2, 2, 6.00)", SATURDAY)
    assert await star.fetchval("SELECT amount_gbp FROM sales_in_gbp") == Decimal("9.00")


async def test_a_day_is_rounded_once_and_not_sale_by_sale(star: asyncpg.Connection) -> None:
    # A third of 0.01 USD is less than half a penny: rounded one by one, three of them would be nothing.
    await star.execute("UPDATE fact_exchange_rate SET per_euro = CASE currency WHEN 'GBP' THEN 1 ELSE 3 END")
    await star.execute("INSERT INTO fact_sales_order_current SELECT $1, 2, 1, 0.01 FROM generate_series(1, 3)", FRIDAY)
    assert await star.fetchval("SELECT amount_gbp FROM sales_in_gbp") == Decimal("0.01")


async def test_a_sale_without_a_rate_is_counted_and_loses_no_other_sale(star: asyncpg.Connection) -> None:
    long_ago = date(2020, 1, 1)
    await star.execute("UPDATE fact_exchange_rate SET _deleted_at = now() WHERE (currency, day) = ('USD', $1)", FRIDAY)
    await star.execute(
        "INSERT INTO fact_sales_order_current VALUES ($1, 1, 1, 5.00), ($1, 2, 1, 5.00), ($1, 3, 1, 5.00), ($2, 4, 1, 5.00), "
        "($2, 2, 1, 1.10)",
        long_ago,
        FRIDAY,
    )
    # On Friday the rate of the dollar is that of the day before, 1.1, as the later one is deleted: 1.10 / 1.1 * 0.9
    assert await days(star) == [(long_ago, 3, 2, Decimal("5.00")), (FRIDAY, 2, 1, Decimal("0.90"))]


async def test_the_latest_rate_is_found_by_the_index_of_the_rates(star: asyncpg.Connection) -> None:
    await star.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    plan = "\n".join(row[0] for row in await star.fetch("EXPLAIN SELECT * FROM sales_in_gbp"))
    assert plan.count("Index Scan Backward using fact_exchange_rate_pkey") == 2, plan
