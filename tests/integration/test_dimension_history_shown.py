"""Dimensions with history: how it begins and grows, what facts show of it, and what the proof finds."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from infra.local.databases import READER
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Mismatch
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.plans import plan_for
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.history_shop import NO_HISTORY, SCHEMA, WITH_CODE, contract_with, histories
from tests.integration.plain_star import require_equal


@pytest.fixture
async def shop(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(SCHEMA)
    return empty.reading(contract_with())


async def test_a_new_column_is_null_in_what_was_seen_before(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    wide = shop.reading(contract_with(WITH_CODE))
    await wide.run()
    shown = "SELECT customer_id, code, version FROM dim_customer_history ORDER BY customer_id, version"
    assert await wide.select(shown) == [(1, None, 1), (2, None, 1), (2, "x", 2)]
    await require_equal(wide)
    await shop.run()  # an older loader
    await require_equal(shop)


async def test_a_loaded_dimension_is_given_a_history_as_planned(
    shop: Pipeline, owner: asyncpg.Connection, warehouse_url: str
) -> None:
    plain = shop.reading(contract_with(*NO_HISTORY))
    await owner.execute("INSERT INTO customer VALUES (3, 'Cy', NULL, NULL)")
    await plain.run()
    await owner.execute("DELETE FROM customer WHERE customer_id = 3")
    await plain.run(compare_keys=True)
    plan = await plan_for(shop.contract, warehouse=warehouse_url)
    assert [(change.action, change.kind, change.name) for change in plan.changes if change.kind != "contract"] == [
        ("create", "table", "public.dim_customer_versions"),
        ("create", "view", "public.dim_customer_history"),
        ("create", "view", "public.fact_sale_as_of"),
    ]
    await shop.star.ensure_schema()
    assert await histories(shop) == [(1, "Ada", "Leeds", 1, True), (2, "Bob", None, 1, True), (3, "Cy", None, 1, False)]
    await require_equal(shop)
    await owner.execute("UPDATE customer SET name = 'Eve' WHERE customer_id = 1")
    await plain.run()  # a loader of the earlier build is still there
    assert [one.key for of in (await shop.verify()).tables for one in of.differences] == [(1,)]
    await shop.run()
    assert [name for _, name, *_ in await histories(shop)] == ["Ada", "Eve", "Bob", "Cy"]
    await require_equal(shop)
    assert not (await plan_for(shop.contract, warehouse=warehouse_url)).has_changes


async def test_a_row_that_the_filter_rejects_has_no_version_meanwhile(shop: Pipeline, owner: asyncpg.Connection) -> None:
    filtered = shop.reading(contract_with(("    history: true\n", "    history: true\n    where: code IS NULL\n")))
    await filtered.run()
    assert await histories(filtered) == [(1, "Ada", "Leeds", 1, True)]
    await owner.execute("UPDATE customer SET code = CASE customer_id WHEN 1 THEN 'x' END")
    await filtered.run()
    await owner.execute("UPDATE customer SET code = NULL")
    await filtered.run()
    assert await histories(filtered) == [(1, "Ada", "Leeds", 1, False), (1, "Ada", "Leeds", 2, True), (2, "Bob", None, 1, True)]
    await require_equal(filtered)


async def test_renamed_columns_keep_their_history(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    await shop.select("GRANT SELECT ON dim_customer_history TO PUBLIC")
    await owner.execute("UPDATE customer SET name = 'Eve' WHERE customer_id = 1")
    old = "columns: {customer_id: , name: , city: city_id.city_name}"
    new = "renamed: {id: customer_id, town: city}\n    columns: {id: customer_id, name: , town: city_id.city_name}"
    renamed = shop.reading(contract_with((old, new)))
    await renamed.run()
    history = "SELECT id, name, town, version FROM dim_customer_history ORDER BY 1, 4"
    assert await renamed.select(history) == [(1, "Ada", "Leeds", 1), (1, "Eve", "Leeds", 2), (2, "Bob", None, 1)]
    assert await renamed.select("SELECT has_table_privilege('public', 'dim_customer_history', 'SELECT')") == [(True,)]
    assert await renamed.select("SELECT customer_id_town FROM fact_sale_as_of") == []
    await require_equal(renamed)


async def test_a_view_is_created_again_once_every_table_has_the_columns_that_it_reads(
    shop: Pipeline, owner: asyncpg.Connection
) -> None:
    await shop.run()
    await owner.execute("ALTER TABLE sale ALTER COLUMN sale_id TYPE bigint")
    wide = shop.reading(contract_with(WITH_CODE, ("columns: {sale_id: integer", "columns: {sale_id: bigint")))
    await wide.run()
    await owner.execute("INSERT INTO sale VALUES (5000000000, 2, NULL, now())")
    await wide.run()
    assert await wide.select("SELECT sale_id, customer_id_code FROM fact_sale_as_of") == [(5000000000, "x")]
    await require_equal(wide)


async def test_the_plan_says_what_history_costs_where_every_row_is_read(
    shop: Pipeline, owner: asyncpg.Connection, postgres_cluster: TestCluster, source_database: str
) -> None:
    reader = postgres_cluster.url(source_database, READER)
    assert (await plan_for(shop.contract, source=reader)).notes == ()
    await owner.execute(f"REVOKE SELECT ON city FROM {READER}; GRANT SELECT (city_id, city_name) ON city TO {READER}")
    (note,) = (await plan_for(shop.contract, source=reader)).notes
    assert note == (
        "every run adds a row to 'dim_customer_versions' for each row of 'customer', since it reads all of 'city' "
        "(xmin can't be read): correct that, or leave `history` out"
    )


async def test_facts_show_the_version_that_was_valid_at_their_time(shop: Pipeline, owner: asyncpg.Connection) -> None:
    first = await shop.run()
    await owner.execute("UPDATE customer SET name = 'Eve' WHERE customer_id = 1")
    second = await shop.run()
    await owner.execute("DELETE FROM customer WHERE customer_id = 1")
    await shop.run(compare_keys=True)
    begin, change = (run[0].data.snapshot.taken_at.replace(tzinfo=None) for run in (first, second))
    for number, time in enumerate((begin - timedelta(days=9), begin, change, change + timedelta(days=9), None), 1):
        await owner.execute("INSERT INTO sale VALUES ($1, 1, 9, $2)", number, time)
    await owner.execute("INSERT INTO sale VALUES (6, NULL, 2, now() AT TIME ZONE 'UTC')")
    await shop.run()
    shown = """
    SELECT sale_id, customer_id_name, customer_id_version, customer_id_customer_key = customer_key, payer_id_name
    FROM fact_sale_as_of LEFT JOIN dim_customer USING (customer_id) ORDER BY sale_id
    """
    assert await shop.select(shown) == [
        (1, "Ada", 1, True, None),
        (2, "Ada", 1, True, None),
        (3, "Eve", 2, True, None),
        (4, "Eve", 2, True, None),  # the last one before the delete
        (5, None, None, True, None),  # at no time
        (6, None, None, None, "Bob"),
    ]


async def test_a_clock_that_was_set_back_makes_no_versions_overlap(shop: Pipeline, owner: asyncpg.Connection) -> None:
    runs = [await shop.run()]
    for name in ("Bo", "Cy", "Di"):
        await owner.execute(f"UPDATE customer SET name = '{name}' WHERE customer_id = 1")
        runs.append(await shop.run())
    await shop.select(
        "UPDATE dim_customer_versions SET _seen_at = _seen_at - interval '1 hour' WHERE _run = $1", runs[2][0].data.run
    )
    assert [name for _, name, *_ in await histories(shop)] == ["Ada", "Bo", "Cy", "Di", "Bob"]


async def test_a_wrong_newest_version_is_found_and_repaired(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    for damage, kind in (
        ("UPDATE dim_customer_versions SET city = 'Rome' WHERE customer_id = 1", Mismatch.DIFFERENT),
        ("UPDATE dim_customer_versions SET _deleted_at = now() WHERE customer_id = 1", Mismatch.MISSING),
        ("DELETE FROM dim_customer_versions WHERE customer_id = 1", Mismatch.MISSING),
    ):
        await shop.select(damage)
        verdict = await shop.verify()
        assert [(one.kind, one.key) for of in verdict.tables for one in of.differences] == [(kind, (1,))]
        (wish,) = await plan_repair(shop.system, verdict)
        await shop.run(reread=wish.reread)
        await require_equal(shop)
    await shop.select("INSERT INTO dim_customer_versions (customer_id, _run, _seen_at) VALUES (7, 1, now())")
    verdict = await shop.verify()
    assert [str(one) for of in verdict.tables for one in of.differences] == [
        "7 is extra (dim_customer_versions: expected 'no version', found 'a version')"
    ]
