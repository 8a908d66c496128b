"""A server that ends a connection in the middle of a large send, when asyncpg would wait for room to write forever."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random

import asyncpg
import pytest

from contracts.messages import encode
from services.loading import handler as loading
from services.loading.postgres_warehouse import PostgresWarehouse
from shared.consumer import Consumer
from shared.errors import DependencyDownError
from shared.postgres import GRACE, SILENCE_MAXIMUM
from shared.testing import FakeQueue
from tests.fixtures.limits import HANG_S
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SCHEMA, SHOP
from tests.unit.shared.consumer.scene import RULES

TEXT = "x" * 2000
# The server stops reading after a thousand rows, so that no send is through before it is cut off.
BIG = [
    "CREATE TABLE big (id int, v text)",
    "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(3600); RETURN NEW; END'",
    "CREATE TRIGGER wait BEFORE INSERT ON big FOR EACH ROW WHEN (NEW.id = 1000) EXECUTE FUNCTION wait()",
]
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()
"""


async def copy_records(connection: asyncpg.Connection) -> None:
    await connection.copy_records_to_table("big", records=((number, TEXT) for number in range(100_000)))


async def copy_stream(connection: asyncpg.Connection) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100_000):
            yield f"{number}\t{TEXT}\n".encode()

    await connection.copy_to_table("big", source=pieces())


async def execute_many(connection: asyncpg.Connection) -> None:
    await connection.executemany("INSERT INTO big VALUES ($1, $2)", ((number, TEXT) for number in range(100_000)))


@pytest.fixture
async def admin(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_cluster.url(warehouse_database))
    yield connection
    await connection.close()


async def terminate(admin: asyncpg.Connection, pattern: str) -> None:
    """Wait for a session that runs a statement like `pattern`, and terminate it in the middle of the statement."""
    find = TERMINATE.replace("pg_terminate_backend(pid)", "true")
    while not await admin.fetchval(find, pattern):  # noqa: ASYNC110 (PostgreSQL announces no statement)
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    await admin.fetch(TERMINATE, pattern)


@pytest.mark.parametrize(
    ("send", "pattern"), [(copy_records, "COPY %"), (copy_stream, "COPY %"), (execute_many, "INSERT INTO big%")]
)
async def test_a_connection_lost_during_a_large_send_is_an_outage(
    pipeline: Pipeline, admin: asyncpg.Connection, send: Callable[[asyncpg.Connection], Awaitable[None]], pattern: str
) -> None:
    for statement in BIG:
        await pipeline.select(statement)
    ending = asyncio.create_task(terminate(admin, pattern))
    async with asyncio.timeout(HANG_S):
        with pytest.raises(DependencyDownError, match=r"^the warehouse database can't be reached"):
            async with pipeline.warehouse.connection() as connection, connection.transaction():
                await send(connection)
    await ending
    assert await pipeline.select("SELECT count(*) FROM big") == [(0,)]


async def test_a_batch_whose_copy_is_interrupted_is_loaded_without_a_counted_attempt(
    source: asyncpg.Connection, pipeline: Pipeline, admin: asyncpg.Connection
) -> None:
    await source.execute(SCHEMA)
    await source.execute("INSERT INTO maker SELECT n, repeat(md5(n::text), 60), 'Leeds', 1 FROM generate_series(1, 12000) AS n")
    shop = pipeline.reading(SHOP)
    (message,) = await shop.read()
    queue, dead_letters = FakeQueue("loading"), FakeQueue("loading-dlq")
    await queue.send(encode(message))
    deps = loading.Dependencies(shop.objects, PostgresWarehouse(shop.warehouse, SHOP), SHOP, FakeQueue())
    consumer = Consumer(
        partial(loading.handle, deps=deps),
        replace(RULES, poll_wait=timedelta(seconds=1)),
        queue=queue,
        dead_letters=dead_letters,
        probes={"warehouse": shop.warehouse.probe},
        rng=Random(1),  # noqa: S311 (the same delays each time)
    )
    running = asyncio.create_task(consumer.run())
    try:
        async with asyncio.timeout(HANG_S):
            for _ in range(3):
                await terminate(admin, "COPY %")
            while queue.messages:  # noqa: ASYNC110 (the fake queue has no event for it)
                await asyncio.sleep(0.05)
    finally:
        consumer.stop()
        await running
    assert (queue.sent[0].receive_count, len(queue.sent), dead_letters.messages) == (1, 1, [])
    assert (await shop.verify()).is_equal


async def test_a_peer_that_vanishes_silently_is_noticed_by_the_kernel(pipeline: Pipeline) -> None:
    async with pipeline.warehouse.connection() as connection:
        plain = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert timedelta(milliseconds=milliseconds) == SILENCE_MAXIMUM


async def test_a_call_on_a_closed_connection_is_an_outage_and_cancels_nothing_later(
    pipeline: Pipeline, admin: asyncpg.Connection
) -> None:
    async def be_cut_off() -> None:
        async with pipeline.warehouse.connection() as connection:
            await admin.execute("SELECT pg_terminate_backend($1)", await connection.fetchval("SELECT pg_backend_pid()"))
            while True:
                await asyncio.sleep(0.01)
                connection.is_closed()  # raises once the pool has taken the connection back

    with pytest.raises(DependencyDownError, match=r"^the warehouse database can't be reached"):
        await be_cut_off()
    await asyncio.sleep(GRACE.total_seconds() * 1.5)
