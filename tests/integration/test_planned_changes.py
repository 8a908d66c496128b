"""What `starlift plan` announces is what the migration does, and planning touches nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from contracts.column_types import BIGINT, numeric
from contracts.contract import Contract
from contracts.origins import FromSource
from contracts.tables import Column
from services.loading.migrate import migrate_schema
from services.operator.contract.plan import Plan
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.plans import plan_for
from tests.fixtures.small_contract import SCHEMA, SHOP, with_column, with_table
from tests.integration.test_schema_evolution import FACT_WITH_PRICE, retyped

_CATALOG = """
SELECT 'relation', n.nspname, c.relname, c.relkind::text, CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END, c.oid::text
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'v', 'p')
UNION ALL
SELECT 'column', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', n.nspname, c.relname, o.conname, o.contype::text, pg_get_constraintdef(o.oid)
FROM pg_constraint AS o JOIN pg_class AS c ON c.oid = o.conrelid JOIN pg_namespace AS n ON n.oid = o.connamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND o.contype <> 'n'
UNION ALL
SELECT 'schema', nspname, NULL, NULL, NULL, NULL FROM pg_namespace WHERE nspname !~ '^pg_'
ORDER BY 1, 2, 3, 4
"""
Catalog = list[tuple[str | None, ...]]


async def catalog(connection: asyncpg.Connection) -> Catalog:
    """Everything that a migration could change."""
    return [tuple(row) for row in await connection.fetch(_CATALOG)]


def difference(before: Catalog, after: Catalog) -> set[tuple[str, str, str]]:
    """What was done to the star between two looks, in the words of a plan."""
    old, new = ({row[:4]: row[4:] for row in rows} for rows in (before, after))
    tables = {row[2] for row in before}
    done = set()
    for (what, schema, table, name), now in new.items():
        was = old.get((what, schema, table, name))
        place = f"{schema}.{table}.{name}"
        if what == "schema" and was is None:
            done.add(("create", "schema", str(schema)))
        elif schema == "starlift" or what == "schema":
            continue
        elif what == "relation" and was is None:
            done.add(("create", "view" if name == "v" else "table", f"{schema}.{table}"))
        elif what == "relation" and name == "v" and was != now:
            done.add(("replace", "view", f"{schema}.{table}"))
        elif what == "column" and table in tables and was is None:
            done.add(("add", "column", place))
        elif what == "column" and was is not None and was != now:
            done.add(("drop", "NOT NULL", place) if was[0] == now[0] else ("widen", "column", place))
        elif what == "constraint" and table in tables and was is None:
            done.add(("add", "foreign key" if now[0] == "f" else "key", place))
    for what, schema, table, name in old.keys() - new.keys():
        done.add(("drop", {"constraint": "foreign key"}.get(str(what), str(what)), f"{schema}.{table}.{name}"))
    return done


def planned(plan: Plan, *, later: bool = False) -> set[tuple[str, str, str]]:
    """What a migration, or `later` the first run, is to do according to a plan."""
    return {
        (change.action, change.kind, change.name)
        for change in plan.changes
        if change.action != "keep" and change.kind != "contract" and change.detail.endswith("first complete run") is later
    }


CAPITAL = Column("capital", numeric(12, 2), FromSource("capital"), nullable=True)


def older(contract: Contract) -> Contract:
    """The contract without a table, and with a column of another name."""
    maker = contract.warehouse_table("dim_maker")
    tables = {table.name: table for table in contract.warehouse_tables if table.name != "dim_shelf"}
    tables["dim_maker"] = replace(
        maker, columns=(*maker.columns, Column("money", numeric(12, 2), FromSource("capital"), nullable=True))
    )
    return replace(contract, warehouse_tables=tuple(tables.values()))


OLD = older(retyped(with_table(SHOP, FACT_WITH_PRICE), "price", numeric(10, 2)))
REFERRING = next(column.name for column in FACT_WITH_PRICE.columns if column.references is not None)


def newer() -> Contract:
    """The contract after many edits."""
    wide = retyped(retyped(with_table(SHOP, FACT_WITH_PRICE), "item_id", BIGINT), "price", numeric(18, 4))
    fact = wide.warehouse_table("fact_sale")
    wide = with_table(wide, with_column(fact, replace(fact.column(REFERRING), references=None)))
    maker = wide.warehouse_table("dim_maker")
    optional = with_column(maker, replace(maker.column("maker_name"), nullable=True))
    return with_table(wide, with_column(optional, CAPITAL))


NEW = newer()


@pytest.fixture
async def warehouse(warehouse_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(warehouse_url)
    yield connection
    await connection.close()


@pytest.fixture
async def shop(source: asyncpg.Connection, pipeline: Pipeline) -> Pipeline:
    """A shop of one item, whose price is narrow yet."""
    await source.execute(SCHEMA)
    await source.execute("INSERT INTO maker VALUES (1, 'Ada', 'Leeds', 10.25)")
    await source.execute("INSERT INTO item (item_id, maker_id, price, code, sold_at) VALUES (1, 1, 1.5, 'abc', '2024-02-29')")
    await source.execute("ALTER TABLE item ALTER COLUMN price TYPE numeric(10, 2)")
    return pipeline.reading(OLD)


async def test_a_star_is_created_as_planned_and_nothing_is_touched_before(
    shop: Pipeline, warehouse: asyncpg.Connection, warehouse_url: str
) -> None:
    empty = await catalog(warehouse)
    plan = await plan_for(OLD, warehouse=warehouse_url)
    assert await catalog(warehouse) == empty
    assert (await plan_for(OLD)).changes == plan.changes, "without a warehouse: as if it were empty"
    await migrate_schema(shop.warehouse, OLD)
    created = await catalog(warehouse)
    assert difference(empty, created) == planned(plan)
    await shop.run()
    assert difference(created, await catalog(warehouse)) == planned(plan, later=True)
    assert (await plan_for(OLD, warehouse=warehouse_url)).changes == ()


async def test_an_older_star_is_migrated_as_planned_and_nothing_is_touched_before(
    shop: Pipeline, warehouse: asyncpg.Connection, warehouse_url: str
) -> None:
    await shop.run()
    loaded = await catalog(warehouse)
    plan = await plan_for(NEW, warehouse=warehouse_url)
    assert await catalog(warehouse) == loaded
    assert planned(plan) >= {
        ("create", "table", "public.dim_shelf"),
        ("add", "column", "public.dim_maker.capital"),
        ("drop", "NOT NULL", "public.dim_maker.maker_name"),
        ("widen", "column", "public.dim_item.price"),
        ("widen", "column", "public.fact_sale.item_id"),
        ("replace", "view", "public.fact_sale_current"),
        ("drop", "foreign key", f"public.fact_sale.fact_sale_{REFERRING}_fkey"),
    }
    assert [change.name for change in plan.changes if change.action == "keep"] == ["public.dim_maker.money"]
    assert [change.detail for change in plan.changes if change.kind == "contract"] == ["the next run reads every table in full"]
    await migrate_schema(shop.warehouse, NEW)
    migrated = await catalog(warehouse)
    assert difference(loaded, migrated) == planned(plan)
    await shop.reading(NEW).run()
    assert difference(migrated, await catalog(warehouse)) == planned(plan, later=True)
    assert not (await plan_for(NEW, warehouse=warehouse_url)).has_changes


async def test_a_table_that_the_contract_has_no_more_is_kept_and_named(shop: Pipeline, warehouse_url: str) -> None:
    await migrate_schema(shop.warehouse, NEW)
    plan = await plan_for(OLD, warehouse=warehouse_url)
    assert [change.name for change in plan.changes if change.action == "keep"] == [
        "public.dim_shelf",
        "public.dim_maker.capital",
    ]


async def test_a_reference_that_the_contract_has_no_more_refuses_no_row(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    await source.execute(SCHEMA)
    await source.execute("INSERT INTO item (item_id, sold_at) VALUES (1, '2024-02-29')")
    await pipeline.reading(SHOP).run()
    fact = SHOP.warehouse_table("fact_sale")
    columns = tuple(replace(column, references=None) for column in fact.columns)
    loose = with_table(SHOP, replace(fact, columns=columns))
    await source.execute("UPDATE item SET sold_at = '2031-01-01'")  # a date that no calendar gets now
    await pipeline.reading(loose).run()
    assert (await pipeline.reading(loose).verify()).is_equal
