"""`starlift status` while the warehouse, or one of its tables, does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import asyncpg
import pytest
from pydantic import SecretStr

from infra.local.databases import LOADER
from services.operator.status.look import LIMIT, Asking, read_status
from services.operator.system import System
from shared.postgres import Database
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.limits import HANG, HANG_S
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.unit.services.operator.scene import Scene

pytestmark = begins_with(loaded_totesys(orders=20))
LOCKED = (
    "another session of the warehouse database holds a lock (canceling statement due to lock timeout); try again once it "
    "has ended"
)
NO_ANSWER = f"no answer within {LIMIT.total_seconds():g} s"


@pytest.fixture
def url(postgres_cluster: TestCluster, warehouse_database: str) -> str:
    return postgres_cluster.url(warehouse_database, LOADER)


@pytest.fixture
async def system(pipeline: Pipeline, url: str) -> AsyncIterator[System]:
    """A system with a loaded warehouse and no open connections to it, like that of a new process."""
    async with aclosing(Database("warehouse", SecretStr(url), connections=4)) as warehouse:
        yield replace(Scene().system, objects=pipeline.objects, warehouse=warehouse)


@pytest.fixture
async def analyst(url: str, system: System) -> AsyncIterator[asyncpg.Connection]:
    """Another user's session, in a transaction."""
    connection = await asyncpg.connect(url, server_settings={"application_name": "report"})
    async with connection.transaction():
        yield connection
    await connection.close()


async def test_a_loaded_stack_is_counted_and_healthy(system: System) -> None:
    status = await read_status(system, Asking(HANG))
    assert (status.healthy, status.problems, status.silent, status.quarantined) == (True, (), {}, 0)
    assert status.rows["dim_design"] == await system_count(system, "dim_design")
    assert (status.rows_estimated, status.tables_not_created) == ((), ())
    assert status.fresh_as_of is not None
    assert set(status.tables_fresh_as_of.values()) == {status.fresh_as_of}


async def system_count(system: System, table: str) -> int:
    async with system.warehouse.connection() as connection:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def test_a_locked_table_is_estimated_and_waiter_and_holder_are_named(
    system: System, analyst: asyncpg.Connection, url: str
) -> None:
    await analyst.execute("LOCK TABLE fact_payment IN ACCESS EXCLUSIVE MODE")
    holder = analyst.get_server_pid()
    loader = await asyncpg.connect(url, server_settings={"application_name": "starlift"})
    loading = asyncio.create_task(loader.execute("SELECT count(*) FROM fact_payment"))
    async with asyncio.timeout(HANG_S):
        while not (waits := (await read_status(system, Asking(HANG))).lock_waits):
            assert not loading.done()
    (wait,) = waits
    assert wait.startswith(f"session {loader.get_server_pid()} of Starlift waits for a lock held by session {holder} (")
    status = await read_status(system, Asking(HANG))
    assert status.rows_estimated == ("fact_payment",)
    assert status.silent == {}
    assert status.problems == status.lock_waits
    assert "report" in status.problems[0]
    loading.cancel()
    await asyncio.wait([loading])
    loader.terminate()


async def test_a_source_outage_hides_the_quarantine_only_if_it_has_rows(
    system: System, source: asyncpg.Connection, pipeline: Pipeline
) -> None:
    """Whether the source still has the row is looked up there; everything else is known without it."""
    async with aclosing(Database("source", SecretStr("postgresql://nobody@127.0.0.1:1/none"), connections=1)) as down:
        without_source = replace(system, source=down)
        assert (await read_status(without_source, Asking(HANG))).silent == {}
        await source.execute("UPDATE payment SET payment_date = 'soon' WHERE payment_id = 3")
        await pipeline.run()
        status = await read_status(without_source, Asking(HANG))
    assert (list(status.silent), status.quarantined, status.healthy) == (["quarantine"], None, False)
    assert "source" in status.silent["quarantine"]
    assert status.rows["dim_design"] == await system_count(system, "dim_design")
    assert (await read_status(replace(system, source=pipeline.source), Asking(HANG))).quarantined == 1


async def test_a_locked_ledger_is_named_and_the_rest_is_shown(system: System, analyst: asyncpg.Connection) -> None:
    await analyst.execute("LOCK TABLE starlift.ledger IN ACCESS EXCLUSIVE MODE")
    status = await read_status(system, Asking(LIMIT))
    assert status.silent["progress"] in {LOCKED, NO_ANSWER}
    assert status.queues.keys() == system.queues.keys()
    assert status.healthy is not True


async def test_a_hanging_warehouse_does_not_hide_the_queues(system: System, postgres_cluster: TestCluster) -> None:
    assert postgres_cluster.process_id is not None
    await system.dead_letters["loading"].send("x")
    os.kill(postgres_cluster.process_id.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(HANG_S):
            status = await read_status(system, Asking(LIMIT))
            await system.warehouse.aclose()
    finally:
        os.kill(postgres_cluster.process_id.pid, signal.SIGCONT)
    assert status.silent == dict.fromkeys(("progress", "rows", "quarantine", "locks"), NO_ANSWER)
    assert status.late == tuple(status.silent)
    assert status.healthy is False
    assert "dead letters of loading: 1" in status.problems
    assert status.queues["loading"].visible == 0
