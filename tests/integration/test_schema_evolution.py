"""A contract whose types change: the warehouse is widened where no value can be lost, and otherwise left unchanged."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from contracts.column_types import BIGINT, TEXT, ColumnType, numeric
from contracts.contract import Contract
from contracts.messages import Mode
from contracts.origins import FromSource
from contracts.tables import Column
from services.loading.postgres_warehouse import PostgresWarehouse
from shared.star_schema.evolution import SchemaNotReadyError
from shared.star_schema.widening import is_widening
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.small_contract import FACT_SALE, SCHEMA, SHOP, with_column, with_table

TYPE = """
SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = $1::text::regclass AND attname = $2
"""
FACT_WITH_PRICE = with_column(FACT_SALE, Column("price", numeric(18, 4), FromSource("price"), nullable=True))


@pytest.fixture
async def shop(source: asyncpg.Connection, pipeline: Pipeline) -> Pipeline:
    """A shop of one item."""
    await source.execute(SCHEMA)
    await source.execute("INSERT INTO maker VALUES (1, 'Ada', 'Leeds', 10.25)")
    await source.execute("INSERT INTO item (item_id, maker_id, price, code, sold_at) VALUES (1, 1, 1.5, 'abc', '2024-02-29')")
    return pipeline.reading(SHOP)


def retyped(contract: Contract, name: str, kind: ColumnType) -> Contract:
    """The contract with a column of item, of dim_item, and of fact_sale if it is there, of another type."""
    item = contract.source_table("item")
    columns = tuple(replace(column, type=kind) if column.name == name else column for column in item.columns)
    tables = tuple(replace(item, columns=columns) if table is item else table for table in contract.source_tables)
    stars = tuple(
        with_column(table, replace(table.column(name), type=kind))
        if table in contract.remodelled_from("item") and name in table.star_types
        else table
        for table in contract.warehouse_tables
    )
    return replace(contract, source_tables=tables, warehouse_tables=stars)


async def test_widened_columns_are_altered_and_the_view_of_a_fact_shows_them(
    shop: Pipeline, source: asyncpg.Connection
) -> None:
    narrow = retyped(with_table(SHOP, FACT_WITH_PRICE), "price", numeric(10, 2))
    await source.execute("ALTER TABLE item ALTER COLUMN price TYPE numeric(10, 2)")
    await shop.reading(narrow).run()
    await source.execute("ALTER TABLE item ALTER COLUMN price TYPE numeric(18, 4), ALTER COLUMN code TYPE text")
    await source.execute("UPDATE item SET price = 12345678901234.0625, code = 'longer'")
    wide = shop.reading(retyped(retyped(narrow, "price", numeric(18, 4)), "code", TEXT))
    await wide.run()
    assert await wide.select(TYPE, "dim_item", "code") == [("character varying",)]
    for relation in ("dim_item", "fact_sale", "fact_sale_current"):
        assert await wide.select(TYPE, relation, "price") == [("numeric(18,4)",)]
    assert (await wide.verify()).is_equal


async def test_a_referenced_key_is_widened_together_with_its_references(shop: Pipeline, source: asyncpg.Connection) -> None:
    await shop.run()
    await source.execute("ALTER TABLE item ALTER COLUMN item_id TYPE bigint")
    await source.execute("INSERT INTO item (item_id, sold_at) VALUES (5000000000, '2024-03-01')")
    wide = shop.reading(retyped(SHOP, "item_id", BIGINT))
    await wide.run()
    assert await wide.select(TYPE, "fact_sale_current", "item_id") == [("bigint",)]
    assert (await wide.verify()).is_equal


async def test_a_loader_of_the_previous_build_keeps_working_after_a_widening(
    shop: Pipeline, source: asyncpg.Connection
) -> None:
    """So does one of the new build after it, whatever contract the other has recorded."""
    await source.execute("ALTER TABLE item ALTER COLUMN price TYPE numeric(10, 2)")
    older = shop.reading(retyped(with_table(SHOP, FACT_WITH_PRICE), "price", numeric(10, 2)))
    newer = shop.reading(retyped(retyped(retyped(older.contract, "item_id", BIGINT), "price", numeric(18, 4)), "code", TEXT))
    await older.run()
    for number in (2, 3):
        await PostgresWarehouse(shop.warehouse, newer.contract).ensure_schema()
        await source.execute("UPDATE item SET code = 'cba', price = price + 1")
        await older.run()
        for relation in ("dim_item", "fact_sale", "fact_sale_current"):
            assert await shop.select(TYPE, relation, "item_id") == [("bigint",)]
            assert await shop.select(TYPE, relation, "price") == [("numeric(18,4)",)]
        assert await shop.select("SELECT DISTINCT code, price::text FROM dim_item") == [("cba", f"{number}.5000")]
    await newer.run()
    assert (await newer.verify()).is_equal


async def test_a_narrower_type_is_refused_and_nothing_is_changed(shop: Pipeline, source: asyncpg.Connection) -> None:
    await shop.run()
    shape = await shop.select("SELECT fingerprint FROM starlift.contract")
    other = retyped(SHOP, "price", numeric(18, 2))
    await source.execute("ALTER TABLE item ALTER COLUMN price TYPE numeric(18, 2)")
    (message,) = await shop.reading(other).read()
    expected = (
        r"^column 'price' of the warehouse's 'dim_item' is numeric\(18,4\) and should be numeric\(18,2\), which may not hold "
        "every value; alter the column, or correct contract 'shop' and restart the loader$"
    )
    with pytest.raises(SchemaNotReadyError, match=expected):
        await shop.reading(other).load(message)
    assert await shop.select(TYPE, "dim_item", "price") == [("numeric(18,4)",)]
    assert await shop.select("SELECT fingerprint FROM starlift.contract") == shape


async def test_a_column_the_contract_drops_or_makes_nullable_refuses_no_row(shop: Pipeline, source: asyncpg.Connection) -> None:
    await shop.run()
    maker = SHOP.warehouse_table("dim_maker")
    fewer = replace(maker, columns=tuple(column for column in maker.columns if column.name != "town"))
    optional = with_column(fewer, replace(maker.column("maker_name"), nullable=True))
    contract = replace(
        with_table(SHOP, optional),
        source_tables=tuple(
            replace(table, columns=tuple(replace(c, nullable=c.name != "maker_id") for c in table.columns))
            if table.name == "maker"
            else table
            for table in SHOP.source_tables
        ),
    )
    await source.execute("ALTER TABLE maker ALTER COLUMN maker_name DROP NOT NULL")
    await source.execute("INSERT INTO maker VALUES (2, NULL, 'York', NULL)")
    await shop.reading(contract).run()
    assert await shop.select("SELECT maker_id, maker_name, town FROM dim_maker ORDER BY 1") == [
        (1, "Ada", "Leeds"),
        (2, None, None),
    ]


async def test_every_type_of_an_unchanged_column_is_recognised(shop: Pipeline) -> None:
    await shop.run()
    await shop.select("UPDATE starlift.contract SET fingerprint = 'another'")
    views = "SELECT oid FROM pg_class WHERE relname = 'fact_sale_current'"
    before = await shop.select(views)
    (message,) = await shop.read(mode=Mode.FULL)
    await shop.load(message)
    assert await shop.select(views) == before


@pytest.mark.parametrize(
    ("actual", "wanted", "expected"),
    [
        ("varchar(3)", "varchar(4)", True),
        ("varchar(3)", "varchar", True),
        ("varchar", "varchar(900)", False),
        ("varchar(4)", "varchar(3)", False),
        ("integer", "bigint", True),
        ("bigint", "integer", False),
        ("numeric(10,2)", "numeric(12,4)", True),
        ("numeric(10,2)", "numeric(10,4)", False),
        ("numeric(10,2)", "numeric(12,1)", False),
        ("numeric", "numeric(18,2)", False),
        ("numeric(20,2)", "numeric", True),
        ("integer", "numeric(18,0)", False),
        ("date", "timestamp(6)", False),
        ("text", "varchar", False),
    ],
)
def test_only_a_type_that_holds_every_value_is_wider(actual: str, wanted: str, *, expected: bool) -> None:
    assert is_widening(actual, wanted) is expected
