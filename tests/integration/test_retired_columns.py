"""A column that leaves the contract: undecided it is reported; retired or renamed it becomes what the contract says."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.contract import Contract
from contracts.yaml_text import ContractTextError, read_contract
from infra.local.databases import LOADER
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.plans import plan_for
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.plain_star import require_equal

TEXT = """
name: shop
star:
  dim_city: {{dimension: city, columns: {{city_id: , name: }}}}
  dim_customer:
    dimension: customer
    history: true
{dimension}
    columns: {{customer_id: , {name}: full_name, city: city_id.name}}
  fact_sale:
    fact: sale
{fact}
    columns: {{sale_id: , {customer}: {{from: customer_id, references: dim_customer}}, {price}}}
source:
  tables:
    city: {{key: city_id, columns: {{city_id: integer not null, name: text not null}}}}
    customer:
      key: customer_id
      columns: {{customer_id: integer not null, full_name: text not null, city_id: integer}}
      foreign_keys: {{city_id: city}}
    sale:
      key: sale_id
      columns: {{sale_id: integer not null, customer_id: integer not null, price: "numeric(8,2) not null"}}
      foreign_keys: {{customer_id: customer}}
"""
SCHEMA = """
CREATE TABLE city (city_id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE customer (customer_id integer PRIMARY KEY, full_name text NOT NULL, city_id integer REFERENCES city);
CREATE TABLE sale (sale_id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customer, price numeric(8, 2) NOT NULL);
INSERT INTO city VALUES (1, 'York');
INSERT INTO customer VALUES (1, 'Ada', 1);
INSERT INTO sale VALUES (1, 1, 9.50);
"""
GRANTED = """
SELECT column_name FROM information_schema.column_privileges
WHERE table_name = 'fact_sale_current' AND grantee = 'PUBLIC' ORDER BY 1
"""


def contract(
    *, name: str = "name", customer: str = "customer_id", price: str = "price: ", dimension: str = "", fact: str = ""
) -> Contract:
    return read_contract(TEXT.format(name=name, customer=customer, price=price, dimension=dimension, fact=fact), "shop.yaml")


@pytest.fixture
async def shop(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    """A loaded star, on whose view a column is granted and commented."""
    await owner.execute(SCHEMA)
    pipeline = empty.reading(contract())
    await pipeline.run()
    async with pipeline.warehouse.connection() as warehouse:
        await warehouse.execute("GRANT SELECT (customer_id, price) ON fact_sale_current TO PUBLIC")
        await warehouse.execute("COMMENT ON COLUMN fact_sale_current.customer_id IS 'who'")
    return pipeline


@pytest.fixture
def warehouse_url(postgres_cluster: TestCluster, warehouse_database: str) -> str:
    return postgres_cluster.url(warehouse_database, LOADER)


async def planned(found: Contract, url: str) -> list[tuple[str, str, str, str]]:
    changes = (await plan_for(found, warehouse=url)).changes
    return [(one.action, one.kind, one.name, one.detail) for one in changes if one.kind != "contract"]


async def test_a_column_that_left_undecided_is_reported_with_both_remedies(
    shop: Pipeline, owner: asyncpg.Connection, warehouse_url: str
) -> None:
    fewer = contract(price="")
    remedies = "write `retired: [price]` if they should, `renamed: {NEW: price}` if another column has taken its place"
    kept = ("keep", "column", "public.fact_sale.price", f"not in the contract: its values stay as they are; {remedies}")
    assert await planned(fewer, warehouse_url) == [("drop", "NOT NULL", "public.fact_sale.price", ""), kept]
    await owner.execute("INSERT INTO sale VALUES (2, 1, 1)")
    later = shop.reading(fewer)
    await later.run()
    assert await later.select("SELECT sale_id, price::text FROM fact_sale ORDER BY 1") == [(1, "9.50"), (2, None)]
    await require_equal(later)
    assert await planned(fewer, warehouse_url) == [kept]
    retired = contract(price="", fact="    retired: price")
    assert retired.fingerprint == fewer.fingerprint, "a decision reads nothing again"
    assert await planned(retired, warehouse_url) == [
        ("keep", "column", "public.fact_sale.price", "retired: its values stay as they are, new rows have NULL")
    ]


async def test_a_column_is_renamed_with_its_values_its_views_and_what_was_granted_on_them(
    shop: Pipeline, owner: asyncpg.Connection, warehouse_url: str
) -> None:
    renamed = contract(
        name="full_name", customer="buyer", dimension="    renamed: {full_name: name}", fact="    renamed: {buyer: customer_id}"
    )
    found = [one[:3] for one in await planned(renamed, warehouse_url)]
    assert found == [
        ("rename", "column", "public.dim_customer.name"),
        ("rename", "column", "public.fact_sale.customer_id"),
        ("rename", "column", "public.dim_customer_versions.name"),
        ("replace", "view", "public.dim_customer_history"),
        ("replace", "view", "public.fact_sale_current"),
        ("drop", "foreign key", "public.fact_sale.fact_sale_customer_id_fkey"),
        ("add", "foreign key", "public.fact_sale.fact_sale_buyer_fkey"),
    ]
    later = shop.reading(renamed)
    await owner.execute("INSERT INTO customer VALUES (2, 'Bo', NULL); INSERT INTO sale VALUES (2, 2, 1)")
    await later.run()
    assert await later.select("SELECT customer_id, full_name FROM dim_customer ORDER BY 1") == [(1, "Ada"), (2, "Bo")]
    assert await later.select("SELECT full_name, version FROM dim_customer_history ORDER BY 1") == [("Ada", 1), ("Bo", 1)]
    assert await later.select("SELECT sale_id, buyer FROM fact_sale_current ORDER BY 1") == [(1, 1), (2, 2)]
    assert await later.select(GRANTED) == [("buyer",), ("price",)]
    comment = "SELECT col_description('fact_sale_current'::regclass, 2)"
    assert await later.select(comment) == [("who",)]
    keys = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = 'fact_sale'::regclass"
    assert await later.select(keys) == [("fact_sale_buyer_fkey",)]
    await require_equal(later)
    assert await planned(renamed, warehouse_url) == []
    # Once it is done, the line may go.
    assert await planned(contract(name="full_name", customer="buyer"), warehouse_url) == []


async def test_a_column_is_not_renamed_where_both_are_there(shop: Pipeline, warehouse_url: str) -> None:
    forgotten = shop.reading(contract(name="full_name"))
    await forgotten.run()
    late = contract(name="full_name", dimension="    renamed: {full_name: name}")
    assert [one[2:] for one in await planned(late, warehouse_url)] == [
        (
            f"public.{table}.name",
            "not renamed, since 'full_name' is there too: its values stay as they are; drop one of the two",
        )
        for table in ("dim_customer", "dim_customer_versions")
    ]


async def test_a_view_of_others_in_the_way_of_a_new_name_is_reported_before_anything_changes(
    shop: Pipeline, warehouse_url: str
) -> None:
    async with shop.warehouse.connection() as warehouse:
        await warehouse.execute("CREATE VIEW report AS SELECT customer_id FROM fact_sale_current")
    renamed = contract(customer="buyer", fact="    renamed: {buyer: customer_id}")
    (problem,) = (await plan_for(renamed, warehouse=warehouse_url)).problems
    assert "view report on fact_sale_current; drop them, and create them again" in problem.text


async def test_a_renamed_column_of_another_type_is_refused_before_it_is_renamed(shop: Pipeline, warehouse_url: str) -> None:
    other = contract(price="cost: {from: price, type: varchar}", fact="    renamed: {cost: price}")
    (problem,) = (await plan_for(other, warehouse=warehouse_url)).problems
    assert "column 'price' of the warehouse's 'fact_sale' is numeric(8,2) and should be varchar" in problem.text


async def test_what_is_granted_on_a_view_follows_the_names_of_its_own_table(shop: Pipeline) -> None:
    """A dimension's column has the name of one of the fact's, and gets another with the same deployment."""
    await shop.reading(contract(name="price")).run()
    later = shop.reading(
        contract(
            name="title", customer="buyer", dimension="    renamed: {title: price}", fact="    renamed: {buyer: customer_id}"
        )
    )
    await later.run()
    assert await later.select(GRANTED) == [("buyer",), ("price",)]
    await require_equal(later)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("    retired: price", "'fact_sale.price' is a column of the contract, and can't be retired"),
        ("    renamed: {price: sale_id}", "'fact_sale.sale_id' is a column of the contract, and can't be retired, or the old"),
        ("    renamed: {cost: old}", "'fact_sale' renames a column to 'cost', which it does not have"),
    ],
)
def test_decisions_that_contradict_the_columns_are_refused(more: str, reason: str) -> None:
    with pytest.raises(ContractTextError) as caught:
        contract(fact=more)
    assert reason in str(caught.value)
