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
BORN = "      born: {from: birthplace.city_name, absent: (unknown)}\n"
CITY_ABROAD = """\
    city_abroad:
      schema: abroad
      table: city
      key: city_id
      columns: {city_id: integer not null, city_name: text not null}
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


async def test_tables_of_several_schemas_are_joined_and_two_may_have_one_name(
    shop_source: asyncpg.Connection, pipeline: Pipeline, contract: Contract
) -> None:
    await shop_source.execute("CREATE SCHEMA abroad; CREATE SCHEMA trade; ALTER TABLE sale SET SCHEMA trade")
    await shop_source.execute("CREATE TABLE abroad.city (city_id int PRIMARY KEY, city_name text NOT NULL)")
    await shop_source.execute("INSERT INTO abroad.city VALUES (1, 'Oslo'); ALTER TABLE customer ADD birthplace int")
    await shop_source.execute("UPDATE customer SET birthplace = 1 WHERE customer_id < 3")
    await shop_source.execute("GRANT USAGE ON SCHEMA abroad, trade TO starlift_reader")
    await shop_source.execute("GRANT SELECT ON abroad.city, trade.sale TO starlift_reader")
    text = fence("yaml").replace("    sale:\n      key", "    sale:\n      schema: trade\n      key")
    text = text.replace("city_id: integer}\n", "city_id: integer, birthplace: integer}\n", 1)
    text = text.replace(
        "      full_name:\n", "      full_name:\n      born: {from: birthplace.city_name, absent: (unknown)}\n", 1
    )
    text = text.replace("foreign_keys: {city_id: city}", "foreign_keys: {city_id: city, birthplace: city_abroad}")
    text = text.replace("    customer:\n      key", f"{CITY_ABROAD}    customer:\n      key", 1)
    shop = replace(pipeline, contract=read_contract(text, "shop.yaml"))
    await shop.run()
    await shop_source.execute("UPDATE abroad.city SET city_name = 'Bergen'; DELETE FROM trade.sale WHERE sale_id = 6")
    await shop.run(compare_keys=True)
    assert (await shop.verify()).is_equal
    names = [("Bergen", "Köln"), ("Bergen", "York"), ("(unknown)", "(unknown)")]
    assert await shop.select("SELECT born, city FROM dim_customer ORDER BY customer_id") == names
