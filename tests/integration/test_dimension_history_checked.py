"""The history check finds versions of a dimension that are lost, changed or made up, also those that are not the newest."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.messages import Mode
from services.operator.proof.history import Flaw, keep_baseline
from services.operator.proof.version_history import check_histories
from tests.fixtures.pipeline import Pipeline
from tests.integration.history_shop import NO_HISTORY, SCHEMA, contract_with

OLDEST = "customer_id = 1 AND _run = (SELECT min(_run) FROM dim_customer_versions)"


@pytest.fixture
async def shop(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    """A shop whose first customer has three versions, and whose second one was deleted."""
    await owner.execute(SCHEMA)
    pipeline = empty.reading(contract_with())
    await pipeline.run()
    await owner.execute("UPDATE customer SET name = 'Eve' WHERE customer_id = 1; DELETE FROM customer WHERE customer_id = 2")
    await pipeline.run(compare_keys=True)
    await owner.execute("UPDATE city SET city_name = NULL")
    await pipeline.run()
    return pipeline


async def flaws(pipeline: Pipeline) -> list[tuple[str, Flaw, tuple[str, ...]]]:
    """Every problem, without its explanation."""
    histories = (await check_histories(pipeline.system)).facts
    return [(one.table, problem.flaw, problem.key) for one in histories for problem in one.problems]


async def test_a_loaded_history_is_complete(shop: Pipeline) -> None:
    verdict = await check_histories(shop.system)
    assert verdict.is_complete
    versions = verdict.facts[-1]
    assert (versions.table, versions.rows, versions.versions, versions.batches) == ("dim_customer_versions", 5, 4, 3)
    await shop.run(mode=Mode.FULL)
    assert await flaws(shop) == []


@pytest.mark.parametrize(
    ("damage", "flaw", "key"),
    [
        (f"UPDATE dim_customer_versions SET city = 'Rome' WHERE {OLDEST}", Flaw.CHANGED, "1"),
        (f"UPDATE dim_customer_versions SET name = NULL WHERE {OLDEST}", Flaw.CHANGED, "1"),
        (f"DELETE FROM dim_customer_versions WHERE {OLDEST}", Flaw.LOST, "1"),
        ("INSERT INTO dim_customer_versions (customer_id, _run, _seen_at) VALUES (7, 1, now())", Flaw.UNKNOWN, "7"),
    ],
)
async def test_a_version_that_is_not_what_a_run_has_seen_is_named(shop: Pipeline, damage: str, flaw: Flaw, key: str) -> None:
    await shop.select(damage)
    assert await flaws(shop) == [("dim_customer_versions", flaw, (key,))]
    await keep_baseline(shop.system)
    assert await flaws(shop) == []


async def test_a_history_that_began_with_what_was_loaded_is_complete(shop: Pipeline, owner: asyncpg.Connection) -> None:
    plain = shop.reading(contract_with(*NO_HISTORY))
    await shop.select("DROP VIEW dim_customer_history, fact_sale_as_of")
    await shop.select("DROP TABLE dim_customer_versions")
    await owner.execute("INSERT INTO customer VALUES (3, 'Cy', NULL, NULL)")
    await plain.run()
    await shop.star.ensure_schema()
    assert await flaws(shop) == []
    await owner.execute("UPDATE customer SET name = 'Zoe' WHERE customer_id = 1")
    await shop.run()
    await shop.select("DELETE FROM dim_customer_versions WHERE name = 'Zoe'")
    assert await flaws(shop) == [("dim_customer_versions", Flaw.LOST, ("1",))]
