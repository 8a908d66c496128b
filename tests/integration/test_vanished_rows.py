"""Many rows that are gone at once: an empty table, row security, a swapped table, a partition that was detached."""

from __future__ import annotations

import asyncpg
from structlog.testing import capture_logs

from contracts.key_hashes import KeyHashes
from contracts.messages import BatchRemodelled
from infra.local.databases import READER
from shared.key_hashes import unpacked
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import require_equal

pytestmark = begins_with(loaded_totesys(orders=40))
CURRENT = "SELECT count(*) FROM fact_payment_current WHERE payment_id = 3"


def compared(pipeline: Pipeline, message: BatchRemodelled) -> set[str]:
    """The source tables whose keys the run of a batch compares."""
    assert message.data.hashes is not None
    hashes = unpacked(KeyHashes, pipeline.objects.buckets[message.data.hashes.bucket][message.data.hashes.key])
    return {table.table for table in hashes.tables}


async def test_an_empty_table_is_compared_only_on_request_and_this_is_logged(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    payments = await source.fetchval("SELECT count(*) FROM payment")
    await source.execute("TRUNCATE payment")
    with capture_logs() as logs:
        (message,) = await loaded.run(compare_keys=True)
    assert "payment" not in compared(loaded, message)
    (told,) = [entry for entry in logs if entry["event"] == "empty_table_not_compared"]
    assert (told["table"], told["log_level"]) == ("payment", "warning")
    with capture_logs() as logs:
        await loaded.run(compare_keys=True)
        await loaded.run()
        await loaded.run(compare_keys=True)
    assert [entry for entry in logs if entry["event"] == "empty_table_not_compared"] == []
    assert loaded.checkpoint().empty_tables == {"payment"}
    assert await loaded.select("SELECT count(*) FROM fact_payment_current") == [(payments,)]
    await loaded.run(compare_keys=True, believe_empty=True)
    assert await loaded.select("SELECT count(*) FROM fact_payment_current") == [(0,)]
    assert await loaded.select("SELECT count(*) FROM fact_payment") == [(payments,)]
    assert loaded.checkpoint().empty_tables == frozenset()
    await require_equal(loaded)


async def test_row_security_that_hides_every_row_marks_none_deleted(source: asyncpg.Connection, loaded: Pipeline) -> None:
    payments = await source.fetchval("SELECT count(*) FROM payment")
    await source.execute("ALTER TABLE payment ENABLE ROW LEVEL SECURITY")
    assert (await loaded.run(compare_keys=True))[0].data.tables == ()
    assert await loaded.select("SELECT count(*) FROM fact_payment_current") == [(payments,)]


async def test_rows_hidden_by_row_security_are_marked_deleted_until_visible_again(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    """The source is what the role may see; a lifted policy gives no row a new xmin."""
    await source.execute("ALTER TABLE payment ENABLE ROW LEVEL SECURITY")
    await source.execute(f"CREATE POLICY others ON payment TO {READER} USING (payment_id <> 3)")
    await loaded.run()
    assert await loaded.select(CURRENT) == [(0,)]
    await source.execute("ALTER TABLE payment DISABLE ROW LEVEL SECURITY")
    await loaded.run()
    assert await loaded.select(CURRENT) == [(1,)]
    await require_equal(loaded)


async def test_rows_missing_from_a_swapped_table_are_found_at_once(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("CREATE TABLE payment_new (LIKE payment INCLUDING ALL)")
    await source.execute("INSERT INTO payment_new SELECT * FROM payment WHERE payment_id <> 3")
    await source.execute("ALTER TABLE payment RENAME TO payment_old")
    await source.execute("ALTER TABLE payment_new RENAME TO payment")
    (message,) = await loaded.run()
    assert compared(loaded, message) == {"payment"}
    assert await loaded.select(CURRENT) == [(0,)]
    await require_equal(loaded)


async def test_rows_of_a_detached_partition_are_marked_deleted_until_it_is_attached(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await source.execute("ALTER TABLE payment RENAME TO payment_before")
    await source.execute("CREATE TABLE payment (LIKE payment_before) PARTITION BY RANGE (payment_id)")
    await source.execute("ALTER TABLE payment ADD PRIMARY KEY (payment_id)")
    await source.execute("CREATE TABLE low PARTITION OF payment FOR VALUES FROM (1) TO (10)")
    await source.execute("CREATE TABLE high PARTITION OF payment FOR VALUES FROM (10) TO (MAXVALUE)")
    await source.execute("INSERT INTO payment SELECT * FROM payment_before")
    await loaded.run()
    await require_equal(loaded)
    await source.execute("ALTER TABLE payment DETACH PARTITION low")
    await loaded.run()
    assert await loaded.select(CURRENT) == [(0,)]
    await require_equal(loaded)
    await source.execute("ALTER TABLE payment ATTACH PARTITION low FOR VALUES FROM (1) TO (10)")
    await loaded.run()
    assert await loaded.select(CURRENT) == [(1,)]
    await require_equal(loaded)
