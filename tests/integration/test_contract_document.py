"""The contract that docs/contracts.md shows to a newcomer works."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from contracts.contract import Contract
from contracts.tables import Fact
from contracts.yaml_text import read_contract
from services.operator.local.totesys.fill import connect
from tests.fixtures.pipeline import Pipeline

DOCUMENT = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text(encoding="utf-8")
ROWS = """
INSERT INTO city (city_name) VALUES ('Köln'), ('York');
INSERT INTO customer (full_name, city_id) VALUES ('Ada', 1), ('Grace', 2), ('Nobody', NULL);
INSERT INTO sale (customer_id, amount, tags, updated_at)
SELECT 1 + n % 3, n + 0.01, CASE n % 2 WHEN 0 THEN ARRAY['a,b', 'c"d'] END, now() - n * interval '1 hour'
FROM generate_series(1, 50) AS n
"""


def fence(language: str) -> str:
    """The first example in a language."""
    text, *_ = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.fixture
def contract() -> Contract:
    return read_contract(fence("yaml"), "docs/contracts.md")


@pytest.fixture
async def shop_source(source_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the shop's application, whose tables are filled."""
    connection = await connect(source_url)
    await connection.execute(fence("sql"))
    await connection.execute(ROWS)
    yield connection
    await connection.close()


async def test_the_documented_shop_is_loaded_and_proved_equal(
    shop_source: asyncpg.Connection, pipeline: Pipeline, contract: Contract
) -> None:
    shop = replace(pipeline, contract=contract)
    await shop.run()
    await shop_source.execute("UPDATE city SET city_name = 'Cologne' WHERE city_id = 1")
    await shop_source.execute("UPDATE sale SET amount = 7, updated_at = now() WHERE sale_id = 5")
    await shop_source.execute("DELETE FROM sale WHERE sale_id = 6")
    await shop.run(compare_keys=True)
    assert (await shop.verify()).is_equal
    assert await shop.select("SELECT city FROM dim_customer ORDER BY customer_id") == [("Cologne",), ("York",), ("(unknown)",)]
    assert await shop.select("SELECT count(*) FROM fact_sale WHERE sale_id = 5") == [(2,)]
    assert await shop.select("SELECT count(*) FROM fact_sale_current") == [(49,)]


async def test_a_fact_without_a_version_keeps_only_its_newest_row(
    shop_source: asyncpg.Connection, pipeline: Pipeline, contract: Contract
) -> None:
    tables = tuple(replace(table, version=()) if isinstance(table, Fact) else table for table in contract.warehouse_tables)
    shop = replace(pipeline, contract=replace(contract, warehouse_tables=tables))
    await shop.run()
    await shop_source.execute("UPDATE sale SET amount = 7, updated_at = now() WHERE sale_id = 5")
    await shop.run()
    assert (await shop.verify()).is_equal
    assert await shop.select("SELECT amount::text FROM fact_sale WHERE sale_id = 5") == [("7.00",)]
