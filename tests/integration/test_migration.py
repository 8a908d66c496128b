"""The star is migrated to the contract without harm to readers, grants and dependent views; lost objects are recreated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import asyncpg
import pytest
import structlog
from pydantic import SecretStr

from contracts.column_types import BIGINT, numeric
from contracts.messages import BatchRemodelled, encode
from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.loading import handler as loading
from services.loading.migrate import LOCK_LIMIT, migrate, next_change
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.settings import LoadingSettings
from shared.consumer import Consumer
from shared.errors import TransientError
from shared.star_schema.evolution import SCHEMA_DEPENDENCY, SchemaNotReadyError
from shared.star_schema.star import QUERIES
from shared.testing import FakeQueue
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SCHEMA as SOURCE_SCHEMA
from tests.fixtures.small_contract import SHOP, with_table
from tests.integration.test_schema_evolution import FACT_WITH_PRICE, TYPE, retyped
from tests.unit.shared.consumer.scene import RULES

LIMIT = timedelta(minutes=2)
OLD = retyped(with_table(SHOP, FACT_WITH_PRICE), "price", numeric(10, 2))
WIDE = retyped(retyped(OLD, "item_id", BIGINT), "price", numeric(18, 4))


@pytest.fixture
async def old_shop(source: asyncpg.Connection, pipeline: Pipeline) -> Pipeline:
    """A shop under the old contract."""
    await source.execute(SOURCE_SCHEMA)
    await source.execute("ALTER TABLE item ALTER COLUMN price TYPE numeric(10, 2)")
    await source.execute("INSERT INTO maker VALUES (1, 'Ada', 'Leeds', 10.25)")
    await source.execute("INSERT INTO item (item_id, maker_id, price, code, sold_at) VALUES (1, 1, 1.5, 'abc', '2024-02-29')")
    shop = pipeline.reading(OLD)
    await shop.run()
    return shop


@pytest.fixture
async def late(source: asyncpg.Connection, old_shop: Pipeline) -> BatchRemodelled:
    """A batch of the old contract that is still on its way."""
    await source.execute("UPDATE maker SET town = 'York'")
    (message,) = await old_shop.read()
    return message


@pytest.fixture
async def shop(source: asyncpg.Connection, old_shop: Pipeline, late: BatchRemodelled) -> Pipeline:
    """A shop under the old contract whose source has widened its columns since."""
    await source.execute("ALTER TABLE item ALTER COLUMN item_id TYPE bigint, ALTER COLUMN price TYPE numeric(18, 4)")
    await source.execute("INSERT INTO item (item_id, sold_at) VALUES (5000000000, '2024-03-01')")
    return old_shop


@pytest.fixture
async def analyst(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Another session of the warehouse."""
    url = f"{postgres_cluster.url(warehouse_database, LOADER)}?application_name=dashboard"
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@asynccontextmanager
async def consuming(shop: Pipeline, message: BatchRemodelled) -> AsyncIterator[tuple[FakeQueue, FakeQueue]]:
    """A loader with its queue and its dead letters."""
    queue, dead_letters = FakeQueue("loading"), FakeQueue("loading-dlq")
    await queue.send(encode(message))
    warehouse = PostgresWarehouse(shop.warehouse, shop.contract)
    consumer = Consumer(
        partial(loading.handle, deps=loading.Dependencies(shop.objects, warehouse, shop.contract, FakeQueue())),
        replace(RULES, poll_wait=timedelta(seconds=1)),
        queue=queue,
        dead_letters=dead_letters,
        probes={"warehouse": shop.warehouse.probe, SCHEMA_DEPENDENCY: warehouse.ensure_schema},
        rng=Random(1),  # noqa: S311 (the same delays each time)
    )
    running = asyncio.create_task(consumer.run())
    try:
        yield queue, dead_letters
    finally:
        consumer.stop()
        await running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT.total_seconds()):
        while not condition():  # noqa: ASYNC110 (any condition)
            await asyncio.sleep(0.05)


def reasons(logs: Sequence[Mapping[str, Any]], event: str) -> list[str]:
    return [str(entry["reason"]) for entry in logs if entry["event"] == event]


async def test_an_uncommitted_reader_blocks_neither_other_readers_nor_the_old_build(
    shop: Pipeline, late: BatchRemodelled, analyst: asyncpg.Connection
) -> None:
    wide = shop.reading(WIDE)
    (message,) = await wide.read()
    reading = analyst.transaction()
    await reading.start()
    await analyst.fetch("SELECT *, 'a secret' FROM fact_sale_current")
    with structlog.testing.capture_logs() as logs:
        async with consuming(wide, message) as (queue, dead_letters):
            await until(lambda: bool(reasons(logs, "dependency_down")))
            slowest = 0.0
            for _ in range(20):
                asked_at = time.monotonic()
                await shop.select("SELECT count(*) FROM fact_sale_current")
                slowest = max(slowest, time.monotonic() - asked_at)
                await asyncio.sleep(0.1)
            await shop.load(late)
            assert await shop.select("SELECT town FROM dim_maker") == [("York",)]
            await reading.rollback()
            await until(lambda: not queue.messages)
    assert slowest < LOCK_LIMIT.total_seconds() * 10  # behind each of at most a few requests
    (reason,) = reasons(logs, "dependency_down")
    assert "waits for a lock" in reason
    assert f"session {analyst.get_server_pid()} ({LOADER}, dashboard, idle in transaction, SELECT *, ? FROM fact_" in reason
    holders = {entry["holder_pid"] for entry in logs if entry["event"] == "lock_awaited" and "subject" in entry}
    assert holders == {analyst.get_server_pid()}
    assert (queue.sent[0].receive_count, len(queue.sent), dead_letters.messages) == (1, 1, [])
    assert (await wide.verify()).is_equal


async def test_a_widened_fact_keeps_the_grants_owner_options_and_comments_of_its_view(
    shop: Pipeline, analyst: asyncpg.Connection
) -> None:
    await analyst.execute(
        f"""
        GRANT SELECT ON fact_sale_current TO {READER} WITH GRANT OPTION;
        GRANT SELECT (item_id, price) ON fact_sale_current TO {SOURCE_OWNER};
        GRANT UPDATE (price) ON fact_sale_current TO PUBLIC;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {SOURCE_OWNER};
        ALTER VIEW fact_sale_current SET (security_barrier = true);
        COMMENT ON VIEW fact_sale_current IS 'what ''s sold';
        COMMENT ON COLUMN fact_sale_current.price IS 'in pounds';
        CREATE VIEW report AS SELECT maker_id, maker_name FROM dim_maker;
        CREATE MATERIALIZED VIEW codes AS SELECT code FROM dim_item;
        """
    )

    async def view() -> dict[str, object]:
        (row,) = await analyst.fetch(QUERIES["views.sql"], "public", ["fact_sale_current"])
        kept = ("owner", "options", "comment", "column_comments")
        (acl,) = await analyst.fetch("SELECT relacl FROM pg_class WHERE relname = 'fact_sale_current'")
        return {**{name: row[name] for name in kept}, "grants": sorted(row["grants"]), "acl": sorted(acl["relacl"])}

    before = await view()
    await shop.reading(WIDE).run()
    assert await view() == before
    assert await shop.select(TYPE, "fact_sale_current", "item_id") == [("bigint",)]


async def test_dependent_views_are_named_before_any_change_and_loading_resumes_without_them(
    shop: Pipeline,
    late: BatchRemodelled,
    analyst: asyncpg.Connection,
    postgres_cluster: TestCluster,
    warehouse_database: str,
) -> None:
    await analyst.execute(
        """
        CREATE VIEW report AS SELECT item_id, code FROM dim_item;
        CREATE MATERIALIZED VIEW board AS SELECT sum(price) AS total FROM fact_sale_current;
        CREATE VIEW unrelated AS SELECT code FROM dim_item;
        """
    )
    expected = (
        "the warehouse can't be migrated to contract 'shop' while other objects depend on columns that have to change: "
        "view report on dim_item.item_id; materialized view board on fact_sale_current; drop them, and create them again once "
        "the loader has continued by itself"
    )
    wide = shop.reading(WIDE)
    settings = LoadingSettings(
        region="eu-west-2",
        queue_url="http://127.0.0.1:9/loading",
        dead_letter_url="http://127.0.0.1:9/loading-dlq",
        landing_bucket="landing",
        processed_bucket="processed",
        slots=1,
        handler_limit=timedelta(minutes=1),
        contract=WIDE,
        warehouse_url=SecretStr(postgres_cluster.url(warehouse_database, LOADER)),
    )
    for is_check in (True, False):
        with pytest.raises(SchemaNotReadyError) as refused:
            await migrate(settings, is_check=is_check)
        assert str(refused.value) == expected
    (message,) = await wide.read()
    with structlog.testing.capture_logs() as logs:
        async with consuming(wide, message) as (queue, dead_letters):
            await until(lambda: bool(reasons(logs, "dependency_down")))
            await shop.load(late)
            await analyst.execute("DROP VIEW report; DROP MATERIALIZED VIEW board")
            await until(lambda: not queue.messages)
    assert reasons(logs, "dependency_down") == [expected]
    assert (queue.sent[0].receive_count, len(queue.sent), dead_letters.messages) == (1, 1, [])
    assert await shop.select("SELECT count(*) FROM unrelated") == [(2,)]
    assert (await wide.verify()).is_equal


async def test_nothing_is_locked_when_nothing_differs(old_shop: Pipeline, analyst: asyncpg.Connection) -> None:
    names = ", ".join(table.name for table in OLD.warehouse_tables)
    async with analyst.transaction():
        await analyst.execute(f"LOCK TABLE {names}, fact_sale_current, starlift.contract IN ACCESS SHARE MODE")
        await PostgresWarehouse(old_shop.warehouse, OLD).ensure_schema()
        assert await next_change(old_shop.warehouse, OLD) is None


async def test_objects_dropped_from_the_star_are_recreated(
    old_shop: Pipeline, source: asyncpg.Connection, analyst: asyncpg.Connection
) -> None:
    """They are recreated by the loader that notices, on its next attempt, or by the next one that starts."""
    damages = (
        "ALTER TABLE dim_maker DROP CONSTRAINT dim_maker_pkey",
        "ALTER TABLE dim_item DROP CONSTRAINT dim_item_pkey CASCADE",
        "ALTER TABLE fact_sale DROP CONSTRAINT fact_sale_item_id_sold_date_sold_time_key, DROP CONSTRAINT fact_sale_pkey",
        "ALTER TABLE fact_sale DROP COLUMN _batch_id CASCADE",
        "DROP VIEW fact_sale_current",
        "ALTER TABLE dim_maker ALTER COLUMN _run SET DEFAULT 0, ALTER COLUMN _run DROP NOT NULL",
        "DROP TABLE starlift.key_comparison",
    )
    shape = await constraints(analyst)
    deps = loading.Dependencies(old_shop.objects, PostgresWarehouse(old_shop.warehouse, OLD), OLD, FakeQueue())
    for damage in damages:
        await analyst.execute(damage)
        await source.execute("UPDATE item SET price = price + 1; UPDATE maker SET town = town || '!'")
        (message,) = await old_shop.read()
        try:
            await loading.handle(message, deps)
        except TransientError as error:
            assert str(error).endswith("the next attempt repairs the schema")  # noqa: PT017 (either way is right)
            await loading.handle(message, deps)
        await source.execute("UPDATE item SET price = price + 1")
        await old_shop.run()
        assert (await constraints(analyst), damage) == (shape, damage)
    assert (await old_shop.verify()).is_equal
    with pytest.raises(asyncpg.NotNullViolationError):
        await analyst.execute("INSERT INTO dim_maker (maker_id, maker_name, town) VALUES (7, 'Bob', 'Hull')")


async def constraints(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace "
        "AND contype IN ('p', 'u', 'f') ORDER BY 1"
    )
    return [tuple(row) for row in rows]


async def test_a_key_that_duplicates_prevent_is_named_and_created_later(
    old_shop: Pipeline, late: BatchRemodelled, analyst: asyncpg.Connection
) -> None:
    await analyst.execute("ALTER TABLE dim_maker DROP CONSTRAINT dim_maker_pkey")
    await analyst.execute("INSERT INTO dim_maker SELECT * FROM dim_maker")
    with structlog.testing.capture_logs() as logs:
        async with consuming(old_shop, late) as (queue, dead_letters):
            await until(lambda: bool(reasons(logs, "dependency_down")))
            await analyst.execute("DELETE FROM dim_maker WHERE ctid <> (SELECT min(ctid) FROM dim_maker)")
            await until(lambda: not queue.messages)
    (reason,) = reasons(logs, "dependency_down")
    assert reason == (
        "key 'dim_maker_pkey' (maker_id) of table 'dim_maker' of the warehouse can't be created again while several rows "
        "have the same key; for each key, keep the row with the highest _run and delete the others; the loader then continues "
        "by itself"
    )
    assert (queue.sent[0].receive_count, dead_letters.messages) == (1, [])


async def test_a_load_that_waits_for_a_lock_logs_who_holds_it(
    old_shop: Pipeline, late: BatchRemodelled, analyst: asyncpg.Connection
) -> None:
    locking = analyst.transaction()
    await locking.start()
    await analyst.execute("LOCK TABLE dim_maker IN SHARE MODE")
    with structlog.testing.capture_logs() as logs:
        load = asyncio.create_task(old_shop.load(late))
        await until(lambda: any(entry["event"] == "lock_awaited" for entry in logs))
        await locking.rollback()
        await load
    (wait,) = [entry for entry in logs if entry["event"] == "lock_awaited"]
    assert wait["batch_id"] == str(late.data.batch_id) and "LOCK TABLE dim_maker IN SHARE MODE" in wait["holder"]  # noqa: PT018
