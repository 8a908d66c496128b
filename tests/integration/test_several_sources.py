"""One star of three sources, each a database of its own: loaded, compared and proved by source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

import asyncpg
import pytest
from pydantic import SecretStr

from contracts.messages import Mode
from infra.local.databases import READER, SOURCE_OWNER
from services.operator.contract.plan import make_plan
from services.operator.proof.history import check_history
from services.operator.trace.reading import read_life
from shared.errors import DependencyDownError
from shared.postgres import Database
from shared.testing import FakeObjectStore
from tests.fixtures.pipeline import LANDING, PROCESSED, Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.several_sources import PLANS_SCHEMA, REGIONS_SCHEMA, SEVERAL
from tests.fixtures.small_contract import SCHEMA
from tests.integration.plain_star import keys_in_quarantine, require_equal

ROWS = {
    "shop": SCHEMA
    + """
INSERT INTO maker VALUES (1, 'Ada', 'Leeds', 10.25), (2, 'Bob', 'York', NULL);
INSERT INTO item (item_id, maker_id, code, sold_at) VALUES (1, 1, 'abc', '2024-02-29'), (2, 2, 'b', '2024-03-01');
""",
    "plans": PLANS_SCHEMA + "INSERT INTO budget VALUES (1, 1, 1, '2024-02-29', 100), (2, 9, 2, '2024-04-01', 7.5);",
    "regions": REGIONS_SCHEMA + "INSERT INTO region VALUES (1, 'North'), (3, 'South');",
}


@dataclass(frozen=True)
class Part:
    """One source: the session of its application, and its pipeline into the star."""

    owner: asyncpg.Connection
    pipeline: Pipeline


@pytest.fixture
async def parts(postgres_cluster: TestCluster, warehouse_url: str) -> AsyncIterator[dict[str, Part]]:
    """By name; all in the buckets and the warehouse of one installation."""
    objects, names = FakeObjectStore(LANDING, PROCESSED), {source: postgres_cluster.create_database() for source in ROWS}
    async with AsyncExitStack() as stack:
        found = {}
        for source, name in names.items():
            owner = await asyncpg.connect(postgres_cluster.url(name, SOURCE_OWNER))
            stack.push_async_callback(owner.close)
            await owner.execute(ROWS[source])
            opened = open_pipeline(
                postgres_cluster.url(name, READER), warehouse_url, contract=SEVERAL, source_name=source, objects=objects
            )
            found[source] = Part(owner, await stack.enter_async_context(opened))
        yield found
    for name in names.values():
        postgres_cluster.drop_database(name)


async def test_each_source_is_loaded_compared_and_proved_by_itself(parts: dict[str, Part]) -> None:
    shop, plans, regions = parts["shop"], parts["plans"], parts["regions"]
    for part in (plans, shop, regions):  # facts before the rows that they refer to
        await part.pipeline.run()
        await require_equal(part.pipeline)
    assert await plans.pipeline.select("SELECT region_id, region_name, _run = 0 FROM dim_region ORDER BY 1") == [
        (1, "North", False),
        (2, "(unknown)", True),
        (3, "South", False),
    ]
    await regions.owner.execute("DELETE FROM region WHERE region_id = 1; INSERT INTO region VALUES (2, 'East')")
    await plans.owner.execute("UPDATE budget SET region_id = 3 WHERE budget_id = 1")
    before = {name: await part.pipeline.progress() for name, part in parts.items()}
    await regions.pipeline.run(compare_keys=True)
    now = {name: await part.pipeline.progress() for name, part in parts.items()}
    assert [name for name in parts if now[name].consistent_through != before[name].consistent_through] == ["regions"]
    await plans.pipeline.run(compare_keys=True)
    assert await plans.pipeline.select("SELECT region_id, _deleted_at IS NOT NULL FROM dim_region ORDER BY 1") == [
        (1, True),
        (2, False),
        (3, False),
    ]
    for part in parts.values():
        await require_equal(part.pipeline)
        assert (await check_history(part.pipeline.system)).is_complete
        verdict = await part.pipeline.verify()
        own = {table.name for table in SEVERAL.part(part.pipeline.source_name).warehouse_tables}
        assert {table.table for table in verdict.tables} == own


async def test_a_member_that_another_source_s_fact_leaves_behind_is_not_extra(parts: dict[str, Part]) -> None:
    shop, plans, regions = (part.pipeline for part in parts.values())
    for pipeline in (shop, plans, regions):
        await pipeline.run()
    await parts["plans"].owner.execute("UPDATE budget SET item_id = 1, region_id = 1 WHERE budget_id = 2")
    await plans.run()
    assert await plans.select("SELECT region_id FROM dim_region WHERE _run = 0") == [(2,)]
    (row,) = (await read_life(regions.system, "dim_region", ["2"])).rows
    assert row.inferred
    assert row.batch is not None
    assert [hop.name for hop in row.batch.hops if hop.at is None] == []
    assert row.batch.asked_by is not None
    for pipeline in (shop, plans, regions):
        await require_equal(pipeline)
    await plans.select("INSERT INTO dim_region (region_id, region_name, _run) VALUES (7, '(unknown)', 0)")
    assert [(await pipeline.verify()).different for pipeline in (shop, plans, regions)] == [0, 0, 1]


async def test_a_proof_finds_a_wrong_row_of_its_own_source_alone(parts: dict[str, Part]) -> None:
    for part in parts.values():
        await part.pipeline.run()
    await parts["shop"].pipeline.select("UPDATE dim_region SET region_name = 'Nowhere' WHERE region_id = 1")
    assert [(await part.pipeline.verify()).different for part in parts.values()] == [0, 0, 1]


async def test_a_source_that_is_added_or_removed_has_nothing_of_the_others_read_again(parts: dict[str, Part]) -> None:
    """The shop was alone, under a contract that named no source."""
    shop = parts["shop"].pipeline
    own = SEVERAL.part("shop")
    alone = shop.reading(
        replace(own, source_tables=tuple(replace(table, source_name=None) for table in own.source_tables), whole=None)
    )
    await alone.run()
    await parts["plans"].pipeline.run()
    assert await shop.ingest() == []
    for name in ("shop", "plans"):
        await require_equal(parts[name].pipeline)
    await alone.run(compare_keys=True)  # without the others again; members that their facts referred to are marked
    await require_equal(alone)


async def test_a_plan_looks_at_every_source(parts: dict[str, Part], postgres_cluster: TestCluster, warehouse_url: str) -> None:
    urls = {
        name: SecretStr(postgres_cluster.url(await part.owner.fetchval("SELECT current_database()"), READER))
        for name, part in parts.items()
    }
    await parts["regions"].owner.execute("ALTER TABLE region DROP COLUMN region_name")
    others = {name: urls[name] for name in ("plans", "regions")}
    plan = await make_plan(SEVERAL, urls["shop"], SecretStr(warehouse_url), others)
    (problem,) = plan.problems
    assert (problem.part, problem.text.partition(":")[0]) == ("source", "regions")
    assert "region_name" in problem.text
    assert {table.table for table in plan.reads} == {"maker", "item", "shelf", "budget", "region"}
    assert {change.name for change in plan.changes} >= {"public.fact_budget", "public.dim_region", "public.fact_sale"}


async def test_a_row_in_quarantine_is_that_of_its_source(parts: dict[str, Part]) -> None:
    for part in parts.values():
        await part.pipeline.run()
    await parts["shop"].owner.execute("INSERT INTO item (item_id, code, sold_at) VALUES (3, 'too long', '2024-03-02')")
    await parts["shop"].pipeline.run()
    assert await keys_in_quarantine(parts["shop"].pipeline) == {"dim_item": [(3,)]}
    for name in ("plans", "regions"):
        assert await keys_in_quarantine(parts[name].pipeline) == {}
        await require_equal(parts[name].pipeline)


async def test_a_source_that_is_down_and_one_in_its_first_load_hold_up_no_other(parts: dict[str, Part]) -> None:
    shop, plans, regions = (part.pipeline for part in parts.values())
    await shop.run()
    await regions.run()
    messages = await plans.cut(1).read(Mode.FULL)
    await plans.load(messages[0])  # the first load has begun
    await parts["regions"].owner.execute("INSERT INTO region VALUES (4, 'West')")
    async with aclosing(Database("source", SecretStr("postgresql://reader@127.0.0.1:1/down"), connections=1)) as down:
        with pytest.raises(DependencyDownError):
            await replace(regions, source=down).ingest()
    for number in range(3):
        await parts["shop"].owner.execute("UPDATE maker SET maker_name = $1 WHERE maker_id = 1", str(number))
        (loaded,) = await shop.run()
        progress = await shop.progress()
        assert progress.consistent_through is not None
        assert progress.consistent_through.run == loaded.data.run
        await require_equal(shop)
    await plans.load(*messages[1:])
    await regions.run()
    for part in (shop, plans, regions):
        await require_equal(part)
