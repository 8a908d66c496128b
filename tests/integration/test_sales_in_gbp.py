"""The view of the example of exchange rates, against results that were computed by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib import resources

import asyncpg
import pytest

from infra.local.databases import LOADER
from shared.contract_file import contract_named
from shared.star_schema.schema import create_statements
from shared.star_schema.views import create_view, views
from tests.fixtures.postgres_cluster import TestCluster

VIEW = resources.files("contracts").joinpath("sales_in_gbp.sql").read_text(encoding="utf-8")
CONTRACT = contract_named("exchange_rates")
GBP, USD, EUR, UNKNOWN = 1, 2, 3, 4
THURSDAY, FRIDAY, SATURDAY = date(2026, 1, 8), date(2026, 1, 9), date(2026, 1, 10)
# What the loader adds to each row.
LOADED = {"_run": 1, "_batch_id": "00000000-0000-0000-0000-000000000000", "_loaded_at": "now()"}


@dataclass(frozen=True, slots=True)
class Star:
    """The star of the example, with two days of rates."""

    connection: asyncpg.Connection

    async def add(self, table: str, **row: object) -> None:
        values = [f"'{value}'" for value in {**row, **LOADED}.values()]
        await self.connection.execute(f"INSERT INTO {table} ({', '.join({**row, **LOADED})}) VALUES ({', '.join(values)})")

    async def sell(self, day: date, currency: int, units: int, price: str) -> None:
        number = await self.connection.fetchval("SELECT count(*) FROM fact_sales_order")
        at = {"created_time": "12:00", "last_updated_date": day, "last_updated_time": "12:00"}
        sold = {"units_sold": units, "unit_price": price, "currency_id": currency}
        await self.add("fact_sales_order", sales_order_id=number, created_date=day, **at, **sold)

    async def days(self) -> list[tuple[object, ...]]:
        return [tuple(row) for row in await self.connection.fetch("SELECT * FROM sales_in_gbp ORDER BY day")]


@pytest.fixture
async def star(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[Star]:
    connection = await asyncpg.connect(postgres_cluster.url(warehouse_database, LOADER))
    for statement in create_statements(CONTRACT, CONTRACT.stored_tables):
        await connection.execute(statement)
    for view in views(CONTRACT):
        await connection.execute(create_view(CONTRACT, view))
    await connection.execute(VIEW)
    filled = Star(connection)
    for number, code in ((GBP, "GBP"), (USD, "USD"), (EUR, "EUR"), (UNKNOWN, "(unknown)")):
        await filled.add("dim_currency", currency_id=number, currency_code=code, currency_name=code)
    for currency, thursday, friday in (("GBP", "0.8", "0.9"), ("USD", "1.1", "1.2")):
        await filled.add("fact_exchange_rate", currency=currency, day=THURSDAY, per_euro=thursday)
        await filled.add("fact_exchange_rate", currency=currency, day=FRIDAY, per_euro=friday)
    yield filled
    await connection.close()


async def test_a_sale_is_converted_through_the_euro_at_the_rates_of_its_day(star: Star) -> None:
    await star.sell(FRIDAY, GBP, 3, "1.10")
    await star.sell(FRIDAY, USD, 2, "6.00")
    await star.sell(FRIDAY, EUR, 1, "10.00")
    # 3 * 1.10 GBP, 12.00 USD / 1.2 * 0.9, 10.00 EUR * 0.9
    assert await star.days() == [(FRIDAY, 3, 0, Decimal("21.30"))]


async def test_a_weekend_and_a_day_without_a_value_have_the_latest_rate_before_them(star: Star) -> None:
    await star.add("fact_exchange_rate", currency="USD", day=SATURDAY)
    await star.add("fact_exchange_rate", currency="USD", day=date(2026, 1, 12), per_euro="9.9")
    await star.sell(SATURDAY, USD, 2, "6.00")
    assert await star.days() == [(SATURDAY, 1, 0, Decimal("9.00"))]


async def test_a_day_is_rounded_once_and_not_sale_by_sale(star: Star) -> None:
    # A third of 0.01 USD is less than half a penny: rounded one by one, three of them would be nothing.
    await star.connection.execute("UPDATE fact_exchange_rate SET per_euro = CASE currency WHEN 'GBP' THEN 1 ELSE 3 END")
    for _ in range(3):
        await star.sell(FRIDAY, USD, 1, "0.01")
    assert await star.days() == [(FRIDAY, 3, 0, Decimal("0.01"))]


async def test_a_sale_without_a_rate_is_counted_and_loses_no_other_sale(star: Star) -> None:
    long_ago = date(2020, 1, 1)
    await star.connection.execute(
        "UPDATE fact_exchange_rate SET _deleted_at = now() WHERE (currency, day) = ('USD', $1)", FRIDAY
    )
    for currency in (GBP, USD, EUR):
        await star.sell(long_ago, currency, 1, "5.00")
    await star.sell(FRIDAY, UNKNOWN, 1, "5.00")
    await star.sell(FRIDAY, USD, 1, "1.10")
    # On Friday the rate of the dollar is that of the day before, 1.1, as the later one is deleted: 1.10 / 1.1 * 0.9
    assert await star.days() == [(long_ago, 3, 2, Decimal("5.00")), (FRIDAY, 2, 1, Decimal("0.90"))]


async def test_the_latest_rate_is_found_by_the_index_of_the_rates(star: Star) -> None:
    await star.connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    plan = "\n".join(row[0] for row in await star.connection.fetch("EXPLAIN SELECT * FROM sales_in_gbp"))
    assert plan.count("Index Scan Backward using fact_exchange_rate_pkey") == 2, plan
