from __future__ import annotations

import datetime as dt

import asyncpg

from contracts.messages import Mode
from contracts.tables import Calendar
from services.operator.local.totesys.fill import fill
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import Pipeline, row_count, tables_read
from tests.fixtures.totesys import CONTRACT


async def require_equal(pipeline: Pipeline) -> None:
    """Require that the proof finds every row and no other."""
    verdict = await pipeline.verify()
    assert [difference for table in verdict.tables for difference in table.differences] == []
    assert (verdict.in_flight, verdict.quarantined) == (0, 0)
    assert {table.table for table in verdict.tables} == {table.name for table in CONTRACT.warehouse_tables}


async def test_the_first_load_makes_the_warehouse_equal(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    counts = await fill(source, orders=300, seed=2)
    (message,) = await pipeline.run()
    await require_equal(pipeline)
    rows = {name: len(found) for name, found in (await pipeline.dump()).items()}
    for table in CONTRACT.warehouse_tables:
        assert isinstance(table, Calendar) or rows[table.name] == counts[table.source]
    assert (message.data.is_last, message.data.quarantine) == (True, None)


async def test_a_load_split_into_batches_equals_a_load_in_one_batch(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    await fill(source, orders=300, seed=3)
    await pipeline.run()
    uncut = await pipeline.dump(with_runs=False)
    await pipeline.empty_warehouse()
    batches = await pipeline.cut(100).run(Mode.FULL)
    assert len(batches) > 10
    assert [batch.data.index for batch in batches] == list(range(len(batches)))
    assert [batch.data.is_last for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert all(sum(table.object.row_count for table in batch.data.tables) <= 100 for batch in batches)
    assert await pipeline.dump(with_runs=False) == uncut
    await require_equal(pipeline)


@begins_with(loaded_totesys(orders=40))
async def test_no_rows_are_read_from_an_idle_source(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    assert await pipeline.ingest() == []
    assert await pipeline.ingest() == []


@begins_with(loaded_totesys(orders=40))
async def test_an_updated_order_gets_a_second_version(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("UPDATE sales_order SET units_sold = 7, last_updated = '2027-01-01 10:00' WHERE sales_order_id = 5")
    messages = await pipeline.ingest()
    assert row_count(messages) == 1
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    versions = await pipeline.select(
        "SELECT units_sold, last_updated_date FROM fact_sales_order WHERE sales_order_id = 5 ORDER BY last_updated_date"
    )
    assert len(versions) == 2
    assert versions[-1] == (7, dt.date(2027, 1, 1))
    assert await pipeline.select("SELECT units_sold FROM fact_sales_order_current WHERE sales_order_id = 5") == [(7,)]
    await require_equal(pipeline)


@begins_with(loaded_totesys(orders=40))
async def test_an_order_updated_three_times_has_four_versions(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    for day in ("2027-01-01", "2027-01-02", "2027-01-03"):
        moment = dt.datetime.fromisoformat(day)
        await filled.execute("UPDATE payment SET paid = NOT paid, last_updated = $1 WHERE payment_id = 9", moment)
        await pipeline.run()
    found = await pipeline.select("SELECT count(*), count(DISTINCT last_updated_date) FROM fact_payment WHERE payment_id = 9")
    assert found == [(4, 4)]
    await require_equal(pipeline)


@begins_with(loaded_totesys(orders=40))
async def test_an_update_that_does_not_touch_last_updated_still_arrives(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("UPDATE sales_order SET units_sold = 11 WHERE sales_order_id = 5")
    await pipeline.run()
    assert await pipeline.select("SELECT units_sold FROM fact_sales_order WHERE sales_order_id = 5") == [(11,)]
    await require_equal(pipeline)


@begins_with(loaded_totesys(orders=40))
async def test_the_current_version_is_the_one_seen_last(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    """A long transaction sets last_updated to its own start, and commits after others that started later."""
    await filled.execute("UPDATE sales_order SET units_sold = 1, last_updated = '2027-06-01' WHERE sales_order_id = 5")
    await pipeline.run()
    await filled.execute("UPDATE sales_order SET units_sold = 2, last_updated = '2027-05-01' WHERE sales_order_id = 5")
    await pipeline.run()
    assert await pipeline.select("SELECT units_sold FROM fact_sales_order_current WHERE sales_order_id = 5") == [(2,)]
    await require_equal(pipeline)


@begins_with(loaded_totesys(orders=40))
async def test_a_renamed_department_is_renamed_for_all_its_staff(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    staff = await filled.fetchval("SELECT count(*) FROM staff WHERE department_id = 3")
    await filled.execute("UPDATE department SET department_name = 'Making', location = NULL WHERE department_id = 3")
    messages = await pipeline.ingest()
    assert tables_read(messages) == {"department": 1, "staff": staff}
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    found = await pipeline.select("SELECT count(*), min(location) FROM dim_staff WHERE department_name = 'Making'")
    assert found == [(staff, "(unknown)")]
    await require_equal(pipeline)


@begins_with(filled_totesys(orders=40))
async def test_a_changed_address_reaches_its_location_and_every_counterparty_there(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await filled.execute("UPDATE counterparty SET legal_address_id = 4 WHERE counterparty_id <= 3")
    await pipeline.run()
    counterparties = await filled.fetchval("SELECT count(*) FROM counterparty WHERE legal_address_id = 4")
    await filled.execute("UPDATE address SET city = 'Ambridge', district = NULL WHERE address_id = 4")
    await pipeline.run()
    assert await pipeline.select("SELECT location_id, district FROM dim_location WHERE city = 'Ambridge'") == [(4, None)]
    found = await pipeline.select("SELECT count(*) FROM dim_counterparty WHERE counterparty_legal_city = 'Ambridge'")
    assert found == [(counterparties,)]
    await require_equal(pipeline)


@begins_with(loaded_totesys(orders=40))
async def test_a_member_of_staff_who_moves_gets_the_new_department(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("UPDATE staff SET department_id = 8 WHERE staff_id = 1")
    await pipeline.run()
    assert await pipeline.select("SELECT department_name, location FROM dim_staff WHERE staff_id = 1") == [("HR", "Sheffield")]
    await require_equal(pipeline)


async def test_a_table_longer_than_a_page_is_read_to_its_end(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    counts = await fill(source, orders=60, seed=4)
    messages = await pipeline.cut(43).ingest()  # the last page of the 473 designs is full, the last of the orders is not
    assert tables_read(messages) == counts
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    await require_equal(pipeline)
