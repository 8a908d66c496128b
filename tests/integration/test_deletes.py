"""Rows deleted at the source, found by a role with only SELECT (docs/decisions/0015-deletes-by-look-up.md)."""

from __future__ import annotations

from datetime import datetime

import asyncpg
from structlog.testing import capture_logs

from contracts.messages import Mode, Trigger
from services.operator.proof.row_comparison import Difference, Mismatch
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.pipeline import PROCESSED, Pipeline, tables_read
from tests.integration.plain_star import differences, require_equal

pytestmark = begins_with(loaded_totesys(orders=40))
DELETE = "DELETE FROM payment WHERE payment_id = 3"
CURRENT = "SELECT count(*) FROM fact_payment_current WHERE payment_id = 3"
MARKS = "SELECT _deleted_at IS NOT NULL FROM fact_payment WHERE payment_id = 3 ORDER BY _run"
UNKNOWN_CURRENCY = """
UPDATE dim_currency SET currency_code = '(unknown)', currency_name = '(unknown)', _run = 0 WHERE currency_id = 1
"""
UPDATE = "UPDATE payment SET paid = NOT paid, last_updated = $1 WHERE payment_id = 3"


async def row_of(source: asyncpg.Connection, table: str, key: int) -> tuple[object, ...]:
    found = await source.fetchrow(f"SELECT * FROM {table} WHERE {table}_id = {key}")
    return () if found is None else tuple(found)


async def put_back(source: asyncpg.Connection, table: str, row: tuple[object, ...]) -> None:
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await source.execute(f"INSERT INTO {table} VALUES ({places})", *row)


async def test_a_deleted_fact_leaves_the_current_view_and_keeps_its_history(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await source.execute(UPDATE, datetime(2027, 1, 1))  # noqa: DTZ001 (the source's timestamps are without time zone)
    await loaded.run()
    await source.execute(DELETE)
    (message,) = await loaded.run(compare_keys=True)
    assert await loaded.select(MARKS) == [(False,), (True,)]
    assert await loaded.select(CURRENT) == [(0,)]
    ((found_at,),) = await loaded.select("SELECT DISTINCT _deleted_at FROM fact_payment WHERE _deleted_at IS NOT NULL")
    assert found_at > message.data.snapshot.taken_at  # by the snapshot in which it was looked up
    await require_equal(loaded)


async def test_a_row_that_stays_deleted_keeps_its_first_mark(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(DELETE)
    await loaded.run(compare_keys=True)
    before = await loaded.select("SELECT _deleted_at FROM fact_payment WHERE payment_id = 3")
    await loaded.run(compare_keys=True)
    assert await loaded.select("SELECT _deleted_at FROM fact_payment WHERE payment_id = 3") == before


async def test_a_deleted_dimension_row_is_marked_and_facts_keep_their_reference(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await source.execute("ALTER TABLE sales_order DROP CONSTRAINT sales_order_design_id_fkey")
    await source.execute("UPDATE sales_order SET design_id = 5 WHERE sales_order_id = 1")
    await loaded.run()
    await source.execute("DELETE FROM design WHERE design_id = 5")
    await loaded.run(compare_keys=True)
    assert await loaded.select("SELECT design_id FROM dim_design WHERE _deleted_at IS NOT NULL") == [(5,)]
    assert await loaded.select("SELECT design_id FROM fact_sales_order_current WHERE sales_order_id = 1") == [(5,)]
    await require_equal(loaded)


async def test_a_deleted_row_is_in_flight_until_keys_are_compared_again(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(DELETE)
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)
    assert await loaded.select(CURRENT) == [(1,)]


async def test_a_row_that_no_batch_brought_differs_at_once(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """No batch of the ledger has brought it."""
    await loaded.select("INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'BARTER', 1)")
    await source.execute(DELETE)
    verdict = await loaded.verify()
    assert differences(verdict) == [("dim_payment_type", Difference(Mismatch.EXTRA, (99,)))]
    assert verdict.in_flight == 1
    await loaded.run(compare_keys=True)
    await require_equal(loaded)


async def test_a_row_that_returns_loses_its_deletion_mark(source: asyncpg.Connection, loaded: Pipeline) -> None:
    row = await row_of(source, "payment", 3)
    await source.execute(DELETE)
    await loaded.run(compare_keys=True)
    await put_back(source, "payment", row)
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)
    await loaded.run()
    assert await loaded.select(MARKS) == [(False,)]
    await loaded.run(compare_keys=True)
    await require_equal(loaded)


async def test_a_fact_that_returns_as_a_new_version_is_unmarked_and_can_be_deleted_again(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    row = await row_of(source, "payment", 3)
    await source.execute(DELETE)
    await loaded.run(compare_keys=True)
    await put_back(source, "payment", row)
    await source.execute(UPDATE, datetime(2027, 1, 1))  # noqa: DTZ001
    await loaded.run()
    assert await loaded.select(MARKS) == [(False,), (False,)]
    await require_equal(loaded)
    await source.execute(DELETE)
    await loaded.run(compare_keys=True)
    assert await loaded.select(MARKS) == [(False,), (True,)]
    await require_equal(loaded)


async def test_a_row_inserted_and_deleted_between_two_comparisons_is_found(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    design = "INSERT INTO design VALUES (900, 'brief', '/', 'f', now(), now())"
    await source.execute(design)
    await loaded.run()
    await source.execute("DELETE FROM design WHERE design_id = 900")
    await loaded.run(compare_keys=True)
    assert await loaded.select("SELECT _deleted_at IS NULL FROM dim_design WHERE design_id = 900") == [(False,)]
    await require_equal(loaded)


async def test_a_row_of_a_crashed_run_that_was_deleted_before_the_next_run_is_found(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    """No manifest and no horizon mention it, and its batch arrives after the comparison."""
    state = dict(loaded.objects.buckets["landing"])
    await source.execute("INSERT INTO design VALUES (900, 'brief', '/', 'f', now(), now())")
    crashed = await loaded.read()
    loaded.objects.buckets["landing"].update(state)
    await source.execute("DELETE FROM design WHERE design_id = 900")
    await loaded.run(compare_keys=True)
    await loaded.settle(await loaded.load(*crashed))
    assert await loaded.select("SELECT _deleted_at IS NULL FROM dim_design WHERE design_id = 900") == [(False,)]
    await require_equal(loaded)


async def test_an_older_version_that_arrives_after_the_comparison_stays_history(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await source.execute(UPDATE, datetime(2027, 1, 1))  # noqa: DTZ001
    late = await loaded.read()
    await source.execute(UPDATE, datetime(2027, 1, 2))  # noqa: DTZ001
    await loaded.run()
    await source.execute(DELETE)
    await loaded.run(compare_keys=True)
    await loaded.settle(await loaded.load(*late))
    assert await loaded.select(MARKS) == [(False,), (False,), (True,)]
    await require_equal(loaded)


async def test_no_delete_is_lost_with_the_object_store(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """The first run afterwards reads everything, keys included, and compares them with the warehouse, not with stored state."""
    await source.execute(DELETE)
    for bucket in loaded.objects.buckets.values():
        bucket.clear()
    await loaded.run()
    assert await loaded.select(CURRENT) == [(0,)]
    await require_equal(loaded)


async def test_a_full_run_compares_keys(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(DELETE)
    await loaded.cut(50).run(Mode.FULL)
    assert await loaded.select(CURRENT) == [(0,)]
    await require_equal(loaded)


async def test_keys_are_compared_every_n_runs_even_on_an_idle_source(source: asyncpg.Connection, loaded: Pipeline) -> None:
    scheduled = loaded.comparing(every=3)
    await source.execute(DELETE)
    assert await scheduled.ingest(trigger=Trigger.SCHEDULE) == []
    assert await scheduled.ingest(trigger=Trigger.SCHEDULE) == []
    (message,) = await scheduled.ingest(trigger=Trigger.SCHEDULE)
    assert tables_read([message]) == {}
    await loaded.settle(await loaded.load(await loaded.remodel(message)))
    assert await loaded.select(CURRENT) == [(0,)]
    assert await scheduled.ingest(trigger=Trigger.SCHEDULE) == []


async def test_a_row_whose_partner_was_deleted_is_quarantined_until_the_partner_returns(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await source.execute("ALTER TABLE staff DROP CONSTRAINT staff_department_id_fkey")
    staff = await source.fetchval("SELECT count(*) FROM staff WHERE department_id = 3")
    department = await row_of(source, "department", 3)
    await source.execute("DELETE FROM department WHERE department_id = 3")
    await loaded.run(compare_keys=True)
    verdict = await loaded.verify()
    assert (differences(verdict), verdict.quarantined) == ([], staff)
    await put_back(source, "department", department)
    await loaded.run()
    await require_equal(loaded)


async def test_a_deleted_row_leaves_the_quarantine(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("UPDATE payment SET payment_date = 'soon' WHERE payment_id = 3")
    await loaded.run()
    assert (await loaded.verify()).quarantined == 1
    await source.execute(DELETE)
    await loaded.run(compare_keys=True)
    await require_equal(loaded)


async def test_a_row_in_quarantine_is_not_marked_deleted(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """Its key is at the source, although no run brings it, so its rows in the warehouse stay."""
    await source.execute("UPDATE payment SET payment_date = 'soon' WHERE payment_id = 3")
    await loaded.run(Mode.FULL)
    assert await loaded.select(CURRENT) == [(1,)]
    verdict = await loaded.verify()
    assert (differences(verdict), verdict.quarantined) == ([], 1)


async def test_an_inferred_member_is_not_marked_deleted(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await loaded.select(UNKNOWN_CURRENCY)
    await source.execute("ALTER TABLE sales_order DROP CONSTRAINT sales_order_currency_id_fkey")
    await source.execute("ALTER TABLE purchase_order DROP CONSTRAINT purchase_order_currency_id_fkey")
    await source.execute("ALTER TABLE payment DROP CONSTRAINT payment_currency_id_fkey")
    await source.execute("DELETE FROM currency WHERE currency_id = 1")
    await loaded.run(compare_keys=True)
    assert await loaded.select("SELECT _deleted_at FROM dim_currency WHERE currency_id = 1") == [(None,)]
    await require_equal(loaded)


async def test_expired_hashes_skip_the_comparison_but_not_the_batch(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(DELETE)
    (message,) = await loaded.read(compare_keys=True)
    assert message.data.hashes is not None
    del loaded.objects.buckets[PROCESSED][message.data.hashes.key]
    with capture_logs() as logs:
        assert await loaded.load(message) == []
    assert [entry["run"] for entry in logs if entry["event"] == "keys_not_compared"] == [message.data.run]
    assert await loaded.select(CURRENT) == [(1,)]
    await loaded.run(compare_keys=True)
    assert await loaded.select(CURRENT) == [(0,)]


async def test_a_lost_question_is_asked_again_by_the_next_comparison(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute(DELETE)
    (lost,) = await loaded.load(*await loaded.read(compare_keys=True))
    assert lost.data.rows[0].keys == ((3,),)
    assert await loaded.select(CURRENT) == [(1,)]
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)
    await loaded.run(compare_keys=True)
    assert await loaded.select(CURRENT) == [(0,)]
    await require_equal(loaded)
