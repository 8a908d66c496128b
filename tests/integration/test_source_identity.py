"""Transaction ids whose meaning has changed: this is noticed and logged, and the tables concerned are read in full."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from contracts.messages import BatchIngested
from contracts.state import lsn
from infra.local.databases import READER, SOURCE_OWNER, execute, fetch_value
from services.operator.local.totesys.fill import connect, create, fill
from shared.errors import DependencyDownError
from tests.end_to_end.conftest import wait_until
from tests.fixtures.limits import HANG_S
from tests.fixtures.pipeline import Pipeline, open_pipeline, tables_read
from tests.fixtures.plans import plan_for
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.scratch_cluster import ScratchCluster, remove, scratch
from tests.fixtures.totesys import CONTRACT
from tests.integration.plain_star import require_equal

INSERT = "INSERT INTO design (design_name, file_location, file_name, last_updated) VALUES ($1, '/', 'f', now())"
REPLAYED = "SELECT pg_last_wal_replay_lsn()::text"
HORIZON_ALONE = "SELECT count(*) FROM design WHERE age(xmin) BETWEEN 0 AND age($1::text::xid)"


@pytest.fixture
def scratch_source(tmp_path: Path) -> Iterator[ScratchCluster]:
    """A server for this test alone."""
    with scratch("source", tmp_path / "source") as cluster:
        yield cluster


async def filled_database(cluster: TestCluster) -> str:
    name = cluster.create_database()
    application = await connect(cluster.url(name, SOURCE_OWNER))
    await create(application)
    await fill(application, orders=20, seed=1)
    await application.close()
    return name


@asynccontextmanager
async def application_of(cluster: TestCluster, database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(cluster.url(database, SOURCE_OWNER))
    try:
        yield connection
    finally:
        await connection.close()


async def run(pipeline: Pipeline) -> tuple[list[str], list[BatchIngested]]:
    """Make one run into the warehouse; return why it read in full, and what it read."""
    with capture_logs() as logs:
        messages = await pipeline.ingest()
    await pipeline.settle(await pipeline.load(*[await pipeline.remodel(message) for message in messages]))
    return [reason for entry in logs if entry["event"] == "full_read" for reason in entry["reasons"]], messages


async def burn(connection: asyncpg.Connection, count: int) -> None:
    """Use up transaction ids without a trace in the server's log."""
    for _ in range(count):
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetchval("SELECT pg_current_xact_id()")
        await transaction.rollback()


async def test_transaction_ids_reused_after_a_crash_hide_no_row(scratch_source: ScratchCluster, warehouse_url: str) -> None:
    """A dying backend ends all others; the server recovers from its log, which does not have the last ids."""
    database = await filled_database(scratch_source)
    # Otherwise the log writer is only a fifth of a second behind.
    execute(scratch_source.url(), "ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()")
    async with open_pipeline(scratch_source.url(database, READER), warehouse_url) as pipeline:
        async with application_of(scratch_source, database) as application:
            await burn(application, 300)
            await run(pipeline)
            backend = await application.fetchval("SELECT pg_backend_pid()")
            os.kill(backend, signal.SIGKILL)
        wait_until(scratch_source.is_answering)
        async with application_of(scratch_source, database) as application:
            for number in range(20):
                await application.execute(INSERT, f"after the crash {number}")
            horizon = pipeline.checkpoint().snapshot.horizon
            assert await application.fetchval(HORIZON_ALONE, str(horizon)) < 20  # what the horizon alone would see
        await pipeline.source.aclose()
        reasons, _ = await run(pipeline)
        assert "PostgreSQL recovered from a crash" in reasons
        assert await pipeline.select("SELECT count(*) FROM dim_design WHERE design_name LIKE 'after the crash%'") == [(20,)]
        await require_equal(pipeline)
        assert await run(pipeline) == ([], [])


async def test_a_source_restored_from_a_backup_is_read_in_full_and_lost_rows_are_marked_deleted(
    scratch_source: ScratchCluster, warehouse_url: str, tmp_path: Path
) -> None:
    database = await filled_database(scratch_source)
    async with open_pipeline(scratch_source.url(database, READER), warehouse_url) as pipeline:
        await run(pipeline)
        await pipeline.source.aclose()
        scratch_source.stop()
        scratch_source.backup(tmp_path / "backup")
        scratch_source.start_again()
        async with application_of(scratch_source, database) as application:
            await application.execute(INSERT, "lost by the restore")
            await burn(application, 50)
        await run(pipeline)
        await pipeline.source.aclose()
        scratch_source.stop()
        scratch_source.restore(tmp_path / "backup")
        scratch_source.start_again()
        async with application_of(scratch_source, database) as application:
            await application.execute(INSERT, "after the restore")
        reasons, _ = await run(pipeline)
        assert {"the source's WAL position moved back", "the horizon is ahead of the source"} & set(reasons)
        alive = await pipeline.select("SELECT design_name FROM dim_design WHERE design_id > 473 AND _deleted_at IS NULL")
        assert alive == [("after the restore",)]
        await require_equal(pipeline)


async def test_a_replaced_source_is_read_in_full(
    scratch_source: ScratchCluster, postgres_cluster: TestCluster, source_database: str, warehouse_url: str
) -> None:
    """By another server, and by another database of the same one."""
    first, second = await filled_database(scratch_source), await filled_database(scratch_source)
    async with application_of(scratch_source, second) as application:
        await application.execute("UPDATE design SET design_name = 'of the second'")
    other = await filled_database(postgres_cluster)
    async with open_pipeline(scratch_source.url(first, READER), warehouse_url) as pipeline:
        await run(pipeline)
        for url, reason, name in (
            (scratch_source.url(second, READER), "another database", "of the second"),
            (postgres_cluster.url(other, READER), "another PostgreSQL cluster", None),
        ):
            async with open_pipeline(url, warehouse_url, objects=pipeline.objects) as replaced:
                reasons, _ = await run(replaced)
                assert reason in reasons
                names = await replaced.select("SELECT count(*) FROM dim_design WHERE design_name = $1", name)
                assert names == [(473 if name else 0,)]
                await require_equal(replaced)
    postgres_cluster.drop_database(other)


@pytest.fixture
def standby(scratch_source: ScratchCluster, tmp_path: Path) -> Iterator[ScratchCluster]:
    """A server that follows `scratch_source`."""
    follower = scratch_source.standby(tmp_path / "standby")
    yield follower
    remove(follower)


async def until_replayed(primary: TestCluster, follower: TestCluster) -> None:
    """Wait until the standby has everything that was committed."""
    written = await asyncio.to_thread(fetch_value, primary.url(), "SELECT pg_current_wal_flush_lsn()::text")
    async with asyncio.timeout(HANG_S):
        while lsn(await asyncio.to_thread(fetch_value, follower.url(), REPLAYED)) < lsn(written):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.05)


async def test_a_standby_can_be_the_source_and_its_lag_loses_nothing(
    scratch_source: ScratchCluster, standby: ScratchCluster, warehouse_url: str
) -> None:
    database = await filled_database(scratch_source)
    await until_replayed(scratch_source, standby)
    plan = await plan_for(CONTRACT, source=standby.url(database, READER), warehouse=standby.url(database, READER))
    (note,) = plan.notes
    assert note.startswith("the source is a standby that cancels a run if its primary removes rows that the run still reads, ")
    assert [(problem.part, problem.is_unreachable) for problem in plan.problems] == [("warehouse", True)], "it is read-only"
    async with (
        application_of(scratch_source, database) as application,
        open_pipeline(standby.url(database, READER), warehouse_url) as pipeline,
    ):
        assert (await run(pipeline))[0] == ["first run"]
        late = await connect(scratch_source.url(database, SOURCE_OWNER))
        async with late.transaction():
            await late.execute(INSERT, "late")
            await application.execute(INSERT, "early")
            await until_replayed(scratch_source, standby)
            assert (await run(pipeline))[0] == []
        await late.close()
        await until_replayed(scratch_source, standby)
        assert tables_read((await run(pipeline))[1]) == {"design": 2}
        await asyncio.to_thread(execute, standby.url(), "SELECT pg_wal_replay_pause()")
        await application.execute("DELETE FROM payment WHERE payment_id = 3")
        await application.execute(INSERT, "behind")
        assert await run(pipeline) == ([], [])
        await require_equal(pipeline)  # with what the standby has
        await asyncio.to_thread(execute, standby.url(), "SELECT pg_wal_replay_resume()")
        await until_replayed(scratch_source, standby)
        await pipeline.run(compare_keys=True)
        names = await pipeline.select("SELECT design_name FROM dim_design WHERE design_id > 473 ORDER BY 1")
        assert names == [("behind",), ("early",), ("late",)]
        assert await pipeline.select("SELECT count(*) FROM fact_payment_current WHERE payment_id = 3") == [(0,)]
        await require_equal(pipeline)


async def test_a_standby_that_cancels_reads_counts_as_busy_and_the_error_names_the_setting(
    scratch_source: ScratchCluster, standby: ScratchCluster, warehouse_url: str
) -> None:
    execute(standby.url(), "ALTER SYSTEM SET max_standby_streaming_delay = 0", "SELECT pg_reload_conf()")
    database = await filled_database(scratch_source)
    await until_replayed(scratch_source, standby)
    advice = "a standby that cancels long reads.* set hot_standby_feedback = on there, or raise max_standby_streaming_delay"

    async def read(rounds: int) -> None:
        async with (
            application_of(scratch_source, database) as application,
            open_pipeline(standby.url(database, READER), warehouse_url) as pipeline,
            pipeline.source.transaction(isolation="repeatable_read", readonly=True) as reader,
        ):
            await reader.fetchval("SELECT count(*) FROM design")
            await application.execute("UPDATE design SET file_name = 'moved'")
            await application.execute("VACUUM design")
            for _ in range(rounds):
                await reader.fetchval("SELECT count(*) FROM design")
                await asyncio.sleep(0.05)

    with pytest.raises(DependencyDownError, match=advice):  # busy in a statement; between two, an outage
        await read(rounds=600)
    execute(standby.url(), "ALTER SYSTEM SET max_standby_streaming_delay = -1", "SELECT pg_reload_conf()")
    await read(rounds=10)


async def test_a_source_that_failed_over_to_its_standby_is_read_in_full(
    scratch_source: ScratchCluster, standby: ScratchCluster, warehouse_url: str
) -> None:
    """Rows that were committed on the old primary and never reached the standby also leave the star."""
    database = await filled_database(scratch_source)
    await until_replayed(scratch_source, standby)
    async with open_pipeline(scratch_source.url(database, READER), warehouse_url) as pipeline:
        await run(pipeline)
        standby.stop()
        async with application_of(scratch_source, database) as application:
            await application.execute(INSERT, "lost by the failover")
        await run(pipeline)
        scratch_source.kill()
        standby.start_again()
        await asyncio.to_thread(execute, standby.url(), "SELECT pg_promote()")
        async with application_of(standby, database) as application:
            await application.execute(INSERT, "after the failover")
        async with open_pipeline(standby.url(database, READER), warehouse_url, objects=pipeline.objects) as followed:
            reasons, _ = await run(followed)
            assert "another timeline: a failover or a restore" in reasons
            alive = await followed.select("SELECT design_name FROM dim_design WHERE design_id > 473 AND _deleted_at IS NULL")
            assert alive == [("after the failover",)]
            await require_equal(followed)


async def test_transaction_ids_that_cross_powers_of_two_lose_nothing(
    scratch_source: ScratchCluster, warehouse_url: str
) -> None:
    """At 2^31 the sign of an age changes, at 2^32 the 32 bits in rows start again: the ids really move past both."""
    database = await filled_database(scratch_source)
    async with open_pipeline(scratch_source.url(database, READER), warehouse_url) as pipeline:
        for boundary, steps in ((2**31, (2**31 - 10**7, 2**31 - 40)), (2**32, (2**32 - 10**7 - 2 * 10**7, 2**32 - 40))):
            for step in steps:
                scratch_source.freeze()
                scratch_source.move_next_xid(step)
            await pipeline.source.aclose()
            assert (await run(pipeline))[0]
            async with (
                application_of(scratch_source, database) as application,
                application_of(scratch_source, database) as slow,
            ):
                async with slow.transaction():
                    await slow.execute(INSERT, f"begun before {boundary}")
                    assert (await run(pipeline))[0] == []
                    await burn(application, 100)
                    await application.execute(INSERT, f"behind {boundary}")
                    assert await application.fetchval("SELECT pg_current_xact_id()::text::bigint") > boundary
                    reasons, messages = await run(pipeline)
                    assert (reasons, tables_read(messages)) == ([], {"design": 1})
                reasons, messages = await run(pipeline)
                assert (reasons, tables_read(messages)) == ([], {"design": 2})
            await require_equal(pipeline)
        names = await pipeline.select("SELECT count(*) FROM dim_design WHERE design_name ~ '^(begun before|behind) '")
        assert names == [(4,)]
