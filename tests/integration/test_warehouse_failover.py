"""A warehouse that takes no writes for a while, or comes back as it was earlier, while the loader runs."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import asyncpg
import pytest
from pydantic import SecretStr

from infra.local.databases import LOADER, execute
from services.loading import handler as loading
from services.loading.postgres_warehouse import PostgresWarehouse
from shared.errors import DependencyDownError, TransientError
from shared.outcome import Done
from shared.postgres import Database
from shared.testing import FakeQueue
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster

pytestmark = begins_with(filled_totesys(orders=10))


async def test_a_read_only_warehouse_counts_as_down_until_it_accepts_writes(
    filled: asyncpg.Connection, pipeline: Pipeline, postgres_cluster: TestCluster, warehouse_database: str
) -> None:
    (message,) = await pipeline.read()
    execute(postgres_cluster.url(), f'ALTER DATABASE "{warehouse_database}" SET default_transaction_read_only = on')
    url = SecretStr(postgres_cluster.url(warehouse_database, LOADER))
    async with (
        aclosing(Database("warehouse", url, connections=2, writes=True)) as written,
        aclosing(Database("warehouse", url, connections=1)) as read,
    ):
        loader = replace(pipeline, warehouse=written)
        with pytest.raises(DependencyDownError, match=r"^the warehouse database is read-only; end its recovery or"):
            await loader.load(message)
        with pytest.raises(DependencyDownError, match=r"^the warehouse database is read-only; end its recovery or"):
            await written.probe()
        await read.probe()
        execute(postgres_cluster.url(), f'ALTER DATABASE "{warehouse_database}" RESET default_transaction_read_only')
        await written.probe()
        await loader.load(message)
        assert (await loader.verify()).is_equal


async def test_a_connection_that_breaks_inside_a_transaction_is_an_outage(
    pipeline: Pipeline, postgres_cluster: TestCluster
) -> None:
    async def be_cut_off() -> None:
        async with pipeline.warehouse.connection() as connection, connection.transaction():
            backend = await connection.fetchval("SELECT pg_backend_pid()")
            execute(postgres_cluster.url(), f"SELECT pg_terminate_backend({backend})")
            await connection.execute("SELECT pg_sleep(30)")

    with pytest.raises(DependencyDownError, match=r"^the warehouse database"):
        await be_cut_off()


async def test_a_warehouse_that_comes_back_empty_is_recreated(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.read()
    deps = loading.Dependencies(
        pipeline.objects, PostgresWarehouse(pipeline.warehouse, pipeline.contract), pipeline.contract, FakeQueue()
    )
    assert await loading.handle(message, deps) == Done()
    await pipeline.select("DROP SCHEMA starlift CASCADE")
    await pipeline.select("DROP SCHEMA public CASCADE")
    with pytest.raises(TransientError, match=r"^warehouse: relation .* does not exist; the next attempt repairs the schema"):
        await loading.handle(message, deps)
    assert await loading.handle(message, deps) == Done()
    assert (await pipeline.verify()).is_equal
    assert len(await pipeline.select("SELECT FROM pg_constraint WHERE contype = 'f'")) > 0


async def test_a_warehouse_emptied_before_a_loader_s_first_batch_is_recreated(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    (message,) = await pipeline.read()
    warehouse = PostgresWarehouse(pipeline.warehouse, pipeline.contract)
    deps = loading.Dependencies(pipeline.objects, warehouse, pipeline.contract, FakeQueue())
    await warehouse.ensure_schema()
    await pipeline.select("DROP SCHEMA starlift CASCADE")
    with pytest.raises(TransientError, match=r"^warehouse: relation .* does not exist; the next attempt repairs the schema"):
        await loading.handle(message, deps)
    assert await loading.handle(message, deps) == Done()
    assert (await pipeline.verify()).is_equal
