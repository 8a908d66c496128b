"""Work that needs the star's exclusive lock: the start of a comparison, which must see all loaded rows, and tombstones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from contracts.messages import LookUpKeys, LookUpKeysData, RowsOf
from contracts.warehouse import COMPARISON, STAR_LOCK
from infra.local.databases import LOADER
from services.loading import handler as loading
from services.loading.postgres_warehouse import PostgresWarehouse
from shared.envelope import opening
from shared.outcome import Done
from shared.testing import FakeQueue
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.limits import HANG_S
from tests.fixtures.pipeline import SOURCE, Pipeline, sent
from tests.fixtures.postgres_cluster import TestCluster

pytestmark = begins_with(filled_totesys(orders=20))
GONE = RowsOf(table="payment_type", keys=((99,),))
BEGUN = f"""
INSERT INTO {COMPARISON} AS c (table_name, source_name, run, found_at, begun_at)
VALUES ($1, '{SOURCE}', $2, $3, clock_timestamp())
ON CONFLICT (table_name) DO UPDATE SET run = excluded.run, begun_at = excluded.begun_at, ended_at = NULL
"""
WAITS = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""

HELD_BY_OTHERS = """
SELECT c.relname FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()  -- copies of a database share their tables' oids
WHERE l.pid <> pg_backend_pid() AND c.relname = ANY ($1)
"""


@pytest.fixture
async def another(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The session of another loader."""
    connection = await asyncpg.connect(postgres_cluster.url(warehouse_database, LOADER))
    yield connection
    await connection.close()


async def until_waiting(another: asyncpg.Connection) -> None:
    async with asyncio.timeout(HANG_S):
        while not await another.fetchval(WAITS):  # noqa: ASYNC110 (PostgreSQL has no event for a wait)
            await asyncio.sleep(0.01)


@pytest.fixture
async def loader(pipeline: Pipeline) -> loading.Dependencies:
    """A loader that has loaded before, so that the schema, whose change waits for the same lock, is up to date."""
    warehouse = PostgresWarehouse(pipeline.warehouse, pipeline.contract)
    deps = loading.Dependencies(pipeline.objects, warehouse, pipeline.contract, FakeQueue("ingestion"))
    for message in await pipeline.read():
        assert await loading.handle(message, deps) == Done()
    return deps


async def test_a_comparison_waits_for_running_loads_and_sees_their_rows(
    pipeline: Pipeline, loader: loading.Dependencies, another: asyncpg.Connection
) -> None:
    (comparison,) = await pipeline.read(compare_keys=True)
    async with another.transaction():
        await another.execute("SELECT pg_advisory_xact_lock_shared($1)", STAR_LOCK)
        task = asyncio.create_task(loading.handle(comparison, loader))
        await until_waiting(another)
        await another.execute("INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'gone', 1)")
    await task
    await pipeline.settle(asked(loader))
    found = await pipeline.select("SELECT payment_type_id FROM dim_payment_type WHERE _deleted_at IS NOT NULL")
    assert found == [(99,)]


async def test_a_load_that_follows_the_start_of_a_comparison_asks_about_its_rows(
    source: asyncpg.Connection, pipeline: Pipeline, loader: loading.Dependencies, another: asyncpg.Connection
) -> None:
    await source.execute("INSERT INTO design VALUES (900, 'brief', '/', 'f', now(), now())")
    (late,) = await pipeline.read()
    await source.execute("DELETE FROM design WHERE design_id = 900")
    (comparison,) = await pipeline.read(compare_keys=True)
    async with another.transaction():
        await another.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
        task = asyncio.create_task(loading.handle(late, loader))
        await until_waiting(another)
        await another.execute(BEGUN, "dim_design", comparison.data.run, comparison.data.snapshot.taken_at)
    await task
    await pipeline.settle(asked(loader))
    found = await pipeline.select("SELECT design_id FROM dim_design WHERE _deleted_at IS NOT NULL")
    assert found == [(900,)]


async def test_tombstones_wait_for_a_running_load_and_mark_its_rows(
    source: asyncpg.Connection, pipeline: Pipeline, loader: loading.Dependencies, another: asyncpg.Connection
) -> None:
    """Running concurrently, they would see no row to mark, and the load would see no tombstone."""
    question = LookUpKeys(**opening("tests"), data=LookUpKeysData(source_name=SOURCE, rows=(GONE,)))
    (answer,) = [await pipeline.remodel(message) for message in await pipeline.obey(question)]
    async with another.transaction():
        await another.execute("SELECT pg_advisory_xact_lock_shared($1)", STAR_LOCK)
        task = asyncio.create_task(loading.handle(answer, loader))
        await until_waiting(another)
        await another.execute("INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'gone', 1)")
    await task
    found = await pipeline.select("SELECT payment_type_id FROM dim_payment_type WHERE _deleted_at IS NOT NULL")
    assert found == [(99,)]


async def test_a_loader_holds_no_table_of_the_star_while_another_one_begins_a_bulk_load(
    pipeline: Pipeline, another: asyncpg.Connection
) -> None:
    """It would be a deadlock: the one that begins holds the star's lock, and takes one table after the other."""
    messages, star = await pipeline.read(), pipeline.star
    await star.ensure_schema()
    names = [table.name for table in pipeline.contract.warehouse_tables]
    async with another.transaction():
        await another.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
        await another.execute(f"LOCK TABLE {names[-1]} IN ACCESS EXCLUSIVE MODE")
        load = asyncio.create_task(pipeline.load(messages[0], star=star))
        await until_waiting(another)
        assert await another.fetch(HELD_BY_OTHERS, names) == []
    await load


def asked(loader: loading.Dependencies) -> list[LookUpKeys]:
    """The questions that the loader has asked."""
    assert isinstance(loader.ingestion, FakeQueue)
    return [message for message in sent(loader.ingestion) if isinstance(message, LookUpKeys)]
