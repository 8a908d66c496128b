"""Changes that give no row a new transaction id, and horizons that lost their meaning: the tables concerned are read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import asyncpg
import pytest

from contracts.messages import Mode, Trigger
from contracts.objects import SourceKeys
from contracts.state import SourceState
from infra.local.databases import READER, execute
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import LANDING, SOURCE, Pipeline, tables_read
from tests.fixtures.postgres_cluster import TestCluster

pytestmark = begins_with(filled_totesys(orders=40))
CLERK = "a_clerk"

SWAP = (
    "CREATE TABLE payment_new (LIKE payment INCLUDING ALL)",
    "INSERT INTO payment_new SELECT * FROM payment",
    "UPDATE payment_new SET payment_amount = 1 WHERE payment_id = 1",
)


@pytest.fixture
def may(postgres_cluster: TestCluster) -> Iterator[Callable[[str], None]]:
    """Grants of a superuser to the reader or a clerk, removed after the test, since roles belong to the whole server."""
    execute(postgres_cluster.url(), f"DROP ROLE IF EXISTS {CLERK}", f"CREATE ROLE {CLERK}")
    yield lambda statement: execute(postgres_cluster.url(), statement)
    execute(postgres_cluster.url(), f"ALTER ROLE {READER} NOBYPASSRLS", f"REVOKE {CLERK} FROM {READER}")


async def test_a_table_swapped_by_rename_is_read_in_full(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    for statement in SWAP:
        await filled.execute(statement)
    await pipeline.run()
    await filled.execute("ALTER TABLE payment RENAME TO payment_old")
    await filled.execute("ALTER TABLE payment_new RENAME TO payment")
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)
    assert [table.table for message in await pipeline.run() for table in message.data.tables] == ["fact_payment"]
    assert await pipeline.select("SELECT payment_amount FROM fact_payment_current WHERE payment_id = 1") == [(1,)]
    assert (await pipeline.verify()).is_equal
    assert await pipeline.ingest() == []


@begins_with(loaded_totesys(orders=40))
async def test_a_column_added_with_a_default_is_read_in_full(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    staff = await filled.fetchval("SELECT count(*) FROM staff")
    await filled.execute("ALTER TABLE department ADD COLUMN budget int NOT NULL DEFAULT 5")
    assert tables_read(await pipeline.ingest()) == {"department": 8, "staff": staff}
    assert await pipeline.ingest() == []


@begins_with(loaded_totesys(orders=40))
async def test_a_dropped_column_that_comes_back_with_a_default_is_read_in_full(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await filled.execute("ALTER TABLE design DROP COLUMN file_name")
    await filled.execute("ALTER TABLE design ADD COLUMN file_name text NOT NULL DEFAULT 'none'")
    await pipeline.run()
    assert await pipeline.select("SELECT DISTINCT file_name FROM dim_design") == [("none",)]
    assert (await pipeline.verify()).is_equal


@begins_with(loaded_totesys(orders=40))
async def test_a_renamed_enum_label_is_read_in_full(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("""ALTER TYPE "TransactionType" RENAME VALUE 'SALE' TO 'SOLD'""")
    assert list(tables_read(await pipeline.ingest())) == ["transaction"]
    await pipeline.run(Mode.FULL)
    assert await pipeline.select("SELECT count(*) FROM dim_transaction WHERE transaction_type = 'SALE'") == [(0,)]
    assert (await pipeline.verify()).is_equal


@begins_with(loaded_totesys(orders=40))
async def test_a_new_enum_label_needs_no_change_of_the_warehouse(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("""ALTER TYPE "TransactionType" ADD VALUE 'BARTER'""")
    await filled.execute("UPDATE transaction SET transaction_type = 'BARTER' WHERE transaction_id = 1")
    await pipeline.run()
    found = await pipeline.select("SELECT transaction_type FROM dim_transaction WHERE transaction_id = 1")
    assert found == [("BARTER",)]
    assert (await pipeline.verify()).is_equal


async def test_partitions_and_row_security_change_the_fingerprint(
    filled: asyncpg.Connection, pipeline: Pipeline, may: Callable[[str], None]
) -> None:
    await filled.execute("DROP TABLE payment")
    await filled.execute(
        "CREATE TABLE payment (payment_id int PRIMARY KEY, transaction_id int, counterparty_id int, "
        "payment_amount numeric(10, 2), currency_id int, payment_type_id int, paid boolean, payment_date text, "
        "company_ac_number int, "
        "counterparty_ac_number int, created_at timestamp, last_updated timestamp) PARTITION BY RANGE (payment_id)"
    )
    await filled.execute("CREATE TABLE payment_1 PARTITION OF payment FOR VALUES FROM (1) TO (10)")
    await filled.execute("CREATE TABLE payment_2 (LIKE payment INCLUDING ALL)")
    row = "VALUES ($1, 1, 1, 1, 1, 1, true, '2026-01-01', 1, 1, now(), now())"
    await filled.execute(f"INSERT INTO payment {row}", 1)
    await filled.execute(f"INSERT INTO payment_2 {row}", 11)
    await pipeline.run()
    assert await pipeline.select("SELECT payment_id FROM fact_payment") == [(1,)]
    await filled.execute("ALTER TABLE payment ATTACH PARTITION payment_2 FOR VALUES FROM (11) TO (20)")
    await pipeline.run()
    assert await pipeline.select("SELECT payment_id FROM fact_payment ORDER BY 1") == [(1,), (11,)]
    assert (await pipeline.verify()).is_equal
    await filled.execute("ALTER TABLE payment ENABLE ROW LEVEL SECURITY")
    await filled.execute("CREATE POLICY high ON payment USING (payment_id > 10)")
    assert tables_read(await pipeline.ingest()) == {"payment": 1}
    await filled.execute(f"CREATE POLICY low ON payment TO {CLERK} USING (payment_id < 10)")
    assert tables_read(await pipeline.ingest()) == {"payment": 1}
    may(f"GRANT {CLERK} TO {READER}")
    assert tables_read(await pipeline.ingest()) == {"payment": 2}
    may(f"REVOKE {CLERK} FROM {READER}")
    assert tables_read(await pipeline.ingest()) == {"payment": 1}
    may(f"ALTER ROLE {READER} BYPASSRLS")
    assert tables_read(await pipeline.ingest()) == {"payment": 2}
    assert await pipeline.ingest() == []


async def test_a_virtual_column_with_a_new_expression_is_read_in_full(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    if filled.get_server_version() < (18, 0):
        pytest.skip("PostgreSQL has virtual columns since version 18")
    await filled.execute("ALTER TABLE staff DROP COLUMN email_address")
    await filled.execute("ALTER TABLE staff ADD COLUMN email_address text GENERATED ALWAYS AS (lower(first_name)) VIRTUAL")
    await pipeline.run()
    await filled.execute("ALTER TABLE staff ALTER COLUMN email_address SET EXPRESSION AS (upper(first_name))")
    await pipeline.run()
    assert await pipeline.select("SELECT count(*) FROM dim_staff WHERE email_address <> upper(first_name)") == [(0,)]
    assert (await pipeline.verify()).is_equal
    assert await pipeline.ingest() == []


@begins_with(loaded_totesys(orders=40))
async def test_a_horizon_ahead_of_the_source_is_not_trusted(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    """This happens after the restore of an older backup, or a crash that reused transaction ids."""
    before = pipeline.checkpoint()
    ahead = before.snapshot.model_copy(update={"horizon": before.snapshot.horizon + 10**6})
    state = SourceState(run=before.run, checkpoint=before.model_copy(update={"snapshot": ahead}))
    pipeline.objects.buckets[LANDING][SourceKeys(SOURCE).state] = state.model_dump_json().encode()
    assert len(tables_read(await pipeline.ingest())) == 11
    assert await pipeline.ingest() == []


@begins_with(loaded_totesys(orders=40))
async def test_a_requested_full_read_changes_nothing(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    before = await pipeline.dump(with_runs=False)
    (message,) = await pipeline.run(Mode.FULL)
    assert len(message.data.tables) == 10
    assert await pipeline.dump(with_runs=False) == before


async def test_after_a_lost_state_object_runs_continue_with_higher_numbers(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    """An object store that forgets everything, beside a warehouse that remembers."""
    (first,) = await pipeline.run()
    await filled.execute("UPDATE staff SET first_name = 'Ada' WHERE staff_id = 1")
    for bucket in pipeline.objects.buckets.values():
        bucket.clear()
    (second,) = await pipeline.run()
    assert second.data.run > first.data.run
    await filled.execute("UPDATE staff SET last_name = 'Lovelace' WHERE staff_id = 1")
    await pipeline.run()
    found = await pipeline.select("SELECT first_name, last_name FROM dim_staff WHERE staff_id = 1")
    assert found == [("Ada", "Lovelace")]
    assert (await pipeline.verify()).is_equal


@begins_with(loaded_totesys(orders=40))
async def test_a_run_that_crashed_before_its_horizon_is_repeated_with_a_higher_number(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await filled.execute("UPDATE staff SET first_name = 'Ada' WHERE staff_id = 1")
    state = pipeline.objects.buckets[LANDING][SourceKeys(SOURCE).state]
    (crashed,) = await pipeline.ingest(trigger=Trigger.SCHEDULE)
    pipeline.objects.buckets[LANDING][SourceKeys(SOURCE).state] = state
    (again,) = await pipeline.ingest()
    assert again.data.run > crashed.data.run
    assert tables_read([again]) == tables_read([crashed]) == {"staff": 1}
    await pipeline.load(await pipeline.remodel(again), await pipeline.remodel(crashed))
    assert (await pipeline.verify()).is_equal
