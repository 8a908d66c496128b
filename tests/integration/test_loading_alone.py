"""Who compares keys loads alone: an image that slipped in beside a comparison would not be compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from contracts.warehouse import STAR_LOCK
from infra.local.databases import LOADER
from services.loading import handler as loading
from services.loading.deletes import KEEP_COMPARISON
from services.loading.postgres_warehouse import PostgresWarehouse
from services.operator.local.totesys.fill import fill
from shared.errors import TransientError
from shared.outcome import Done
from tests.fixtures.limits import HANG_S
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster

WAITS = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""


@pytest.fixture
async def another(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The session of another loader."""
    connection = await asyncpg.connect(postgres_cluster.url(warehouse_database, LOADER))
    yield connection
    await connection.close()


async def until_waiting(another: asyncpg.Connection) -> None:
    async with asyncio.timeout(HANG_S):
        while not await another.fetchval(WAITS):  # noqa: ASYNC110 (PostgreSQL tells nobody who waits)
            await asyncio.sleep(0.01)


@pytest.fixture
async def loader(source: asyncpg.Connection, pipeline: Pipeline) -> loading.Dependencies:
    """A loader that has loaded before: the schema, whose change waits for the same lock, is as it should be."""
    await fill(source, orders=20, seed=1)
    deps = loading.Dependencies(pipeline.objects, PostgresWarehouse(pipeline.warehouse, pipeline.contract), pipeline.contract)
    for message in await pipeline.read():
        assert await loading.handle(message, deps) == Done()
    return deps


async def test_a_comparison_waits_for_a_load_under_way_and_sees_its_rows(
    pipeline: Pipeline, loader: loading.Dependencies, another: asyncpg.Connection
) -> None:
    (comparison,) = await pipeline.read(compare_keys=True)
    async with another.transaction():
        await another.execute("SELECT pg_advisory_xact_lock_shared($1)", STAR_LOCK)
        task = asyncio.create_task(loading.handle(comparison, loader))
        await until_waiting(another)
        await another.execute("INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'gone', 1)")
    await task
    found = await pipeline.select("SELECT payment_type_id FROM dim_payment_type WHERE _deleted_at IS NOT NULL")
    assert found == [(99,)]


async def test_a_batch_that_waited_for_a_comparison_is_tried_again_and_compared(
    source: asyncpg.Connection, pipeline: Pipeline, loader: loading.Dependencies, another: asyncpg.Connection
) -> None:
    await source.execute("INSERT INTO design VALUES (900, 'brief', '/', 'f', now(), now())")
    (late,) = await pipeline.read()
    await source.execute("DELETE FROM design WHERE design_id = 900")
    (comparison,) = await pipeline.read(compare_keys=True)
    (keys,) = [keys for keys in comparison.data.keys if keys.table == "dim_design"]
    async with another.transaction():
        await another.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
        task = asyncio.create_task(loading.handle(late, loader))
        await until_waiting(another)
        told = ("dim_design", comparison.data.run, comparison.data.snapshot.taken_at, keys.model_dump_json())
        await another.execute(KEEP_COMPARISON, *told)
    with pytest.raises(TransientError, match=r"^keys were compared while batch .* waited; the next attempt compares them"):
        await task
    await loading.handle(late, loader)
    found = await pipeline.select("SELECT design_id FROM dim_design WHERE _deleted_at IS NOT NULL")
    assert found == [(900,)]
