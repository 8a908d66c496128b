"""The proof on a real warehouse names exactly the wrong rows."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.objects import SourceKeys
from contracts.proofs import Outcome
from services.operator.errors import NotLoadedError
from services.operator.local.totesys.fill import fill
from services.operator.proof.row_comparison import Both, Difference, Mismatch
from shared.errors import PermanentError
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import LANDING, SOURCE, Pipeline
from tests.integration.plain_star import differences
from tests.integration.totesys_rows import SELL

DAYS = ("0001-01-01", "2025-01-02", "9999-12-31")
Columns = dict[str, Both]
SWAP = """
UPDATE fact_sales_order SET agreed_payment_date = agreed_delivery_date, agreed_delivery_date = agreed_payment_date
WHERE sales_order_id = 2
"""


async def first_load(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    """A small totesys, loaded. Order 1 has the first and the last date there is; address 1 an empty text and a NULL."""
    await fill(source, orders=20, seed=1)
    await source.execute("UPDATE address SET address_line_2 = '', district = NULL WHERE address_id = 1")
    await source.execute("UPDATE counterparty SET legal_address_id = 1 WHERE counterparty_id = 1")
    agree = "UPDATE sales_order SET agreed_payment_date = $2, agreed_delivery_date = $3 WHERE sales_order_id = $1"
    await source.execute(agree, 1, "0001-01-01", "9999-12-31")
    await source.execute(agree, 2, "2025-01-02", "2025-01-03")
    await pipeline.run()


pytestmark = begins_with(first_load)


async def value(pipeline: Pipeline, expression: str, origin: str) -> str | None:
    """One value of the warehouse, as text."""
    ((text,),) = await pipeline.select(f"SELECT ({expression})::text FROM {origin}")
    return None if text is None else str(text)


async def without_foreign_keys(pipeline: Pipeline) -> None:
    for table, name in await pipeline.select(
        "SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint WHERE contype = 'f'"
    ):
        await pipeline.select(f"ALTER TABLE {table} DROP CONSTRAINT {name}")


async def test_a_loaded_warehouse_is_equal(loaded: Pipeline) -> None:
    verdict = await loaded.verify()
    assert verdict.is_equal
    assert (verdict.in_flight, verdict.quarantined, differences(verdict)) == (0, 0, [])
    counts = {table.table: table.expected for table in verdict.tables}
    assert (counts["fact_sales_order"], counts["dim_design"]) == (20, 473)
    assert all(table.expected == table.actual for table in verdict.tables)


@begins_with(filled_totesys(orders=20))
async def test_there_is_nothing_to_compare_before_the_first_load(pipeline: Pipeline) -> None:
    with pytest.raises(NotLoadedError, match="has no table 'dim_date' yet; load it first: `starlift ingest --wait`"):
        await pipeline.verify()


async def test_a_dropped_table_is_not_taken_for_one_not_loaded_yet(loaded: Pipeline) -> None:
    await loaded.select("DROP TABLE fact_payment CASCADE")
    with pytest.raises(
        PermanentError, match="the warehouse no longer has table 'fact_payment'; restore it, or restart loading"
    ):
        await loaded.verify()


CORRUPTIONS = (  # table, key, column, what it becomes; in the order in which they are found
    ("dim_location", 1, "address_line_2", "NULL"),
    ("dim_location", 2, "city", "city || ' '"),
    ("dim_staff", 3, "department_name", "'as it was called before'"),
    ("dim_counterparty", 1, "counterparty_legal_district", "''"),
    ("dim_counterparty", 2, "counterparty_legal_name", "lower(counterparty_legal_name)"),
    ("dim_transaction", 3, "sales_order_id", "coalesce(sales_order_id, 0) + 1"),
    ("fact_sales_order", 1, "units_sold", "units_sold + 1"),
    ("fact_sales_order", 3, "last_updated_time", "last_updated_time + interval '1 ms'"),
    ("fact_payment", 3, "payment_amount", "payment_amount + 0.01"),
    ("fact_payment", 4, "paid", "NOT paid"),
)


async def test_exactly_the_values_that_differ_are_named(loaded: Pipeline) -> None:
    expected = []
    for table, key, column, corrupt in CORRUPTIONS:
        origin = f"{table} WHERE {loaded.contract.warehouse_table(table).key[0]} = {key}"
        before = await value(loaded, column, origin)
        await loaded.select(f"UPDATE {table} SET {column} = {corrupt} WHERE {origin.partition(' WHERE ')[2]}")
        differing: Columns = {column: Both(before, await value(loaded, column, origin))}
        expected.append((table, Difference(Mismatch.DIFFERENT, (key,), differing)))
    assert differences(await loaded.verify()) == expected


async def test_swapped_dates_are_two_differences_in_one_row(loaded: Pipeline) -> None:
    await loaded.select(SWAP)
    swapped: Columns = {
        "agreed_payment_date": Both("2025-01-02", "2025-01-03"),
        "agreed_delivery_date": Both("2025-01-03", "2025-01-02"),
    }
    assert differences(await loaded.verify()) == [("fact_sales_order", Difference(Mismatch.DIFFERENT, (2,), swapped))]


async def test_a_row_removed_from_the_warehouse_is_missing(loaded: Pipeline) -> None:
    await loaded.select("DELETE FROM fact_payment WHERE payment_id = 3")
    assert differences(await loaded.verify()) == [("fact_payment", Difference(Mismatch.MISSING, (3,)))]


async def test_a_row_that_the_source_never_had_is_extra(loaded: Pipeline) -> None:
    await loaded.select("INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'BARTER', 1)")
    assert differences(await loaded.verify()) == [("dim_payment_type", Difference(Mismatch.EXTRA, (99,)))]


async def test_a_row_forged_under_a_future_run_is_extra_at_once(loaded: Pipeline) -> None:
    """No comparison of keys could ever be later than that run."""
    made_up = "INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'BARTER', $1)"
    await loaded.select(made_up, 2**62)
    assert differences(await loaded.verify()) == [("dim_payment_type", Difference(Mismatch.EXTRA, (99,)))]


async def test_a_duplicated_row_of_a_dimension_is_extra_once(loaded: Pipeline) -> None:
    await loaded.select("ALTER TABLE dim_staff DROP CONSTRAINT dim_staff_pkey CASCADE")
    await loaded.select("INSERT INTO dim_staff SELECT * FROM dim_staff WHERE staff_id = 3")
    assert differences(await loaded.verify()) == [("dim_staff", Difference(Mismatch.EXTRA, (3,)))]


async def test_a_deleted_row_stays_in_flight_after_the_state_was_lost(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """Run numbers continue from the clock, so rows of forgotten runs do not look later."""
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    del loaded.objects.buckets[LANDING][SourceKeys(SOURCE).state]
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)


async def test_a_row_deleted_since_the_last_comparison_is_in_flight(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await loaded.run(compare_keys=True)
    await source.execute("INSERT INTO design VALUES (900, 'brief', '/', 'f', now(), now())")
    await loaded.run()
    await source.execute("DELETE FROM design WHERE design_id = 900")  # seen by a run after the comparison
    await source.execute("DELETE FROM payment WHERE payment_id = 3")  # seen by a run before it, and in its list
    verdict = await loaded.verify()
    assert {table.table: table.in_flight for table in verdict.tables if table.in_flight} == {"dim_design": 1, "fact_payment": 1}
    assert verdict.is_equal


async def test_a_row_the_source_lacks_waits_for_the_first_comparison(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """Such a warehouse was loaded by a version that did not compare keys."""
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    for loss in ("DELETE FROM", "DROP TABLE"):
        await loaded.select(f"{loss} starlift.key_comparison")
        verdict = await loaded.verify()
        assert (differences(verdict), verdict.outcome, verdict.stuck) == ([], Outcome.PENDING, 1)
        assert list(verdict.reasons) == ["keys were never compared: `starlift ingest --compare-keys --wait` does it"]


async def test_an_older_version_in_place_of_the_current_one_differs(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("UPDATE payment SET paid = NOT paid, last_updated = '2026-12-01' WHERE payment_id = 3")
    await loaded.run()
    assert (await loaded.verify()).is_equal
    await loaded.select("UPDATE fact_payment SET _run = _run + 10^12 WHERE payment_id = 3 AND last_updated_date < '2026-12-01'")
    ((table, difference),) = differences(await loaded.verify())
    assert (table, difference.kind, difference.key) == ("fact_payment", Mismatch.DIFFERENT, (3,))
    assert set(difference.columns) == {"paid", "last_updated_date", "last_updated_time"}


async def test_a_calendar_day_with_a_wrong_description_differs(loaded: Pipeline) -> None:
    await loaded.select(f"UPDATE dim_date SET quarter = 5 - quarter WHERE date_id::text = ANY ('{{{','.join(DAYS)}}}')")
    assert differences(await loaded.verify()) == [("dim_date", Difference(Mismatch.DIFFERENT, (day,))) for day in DAYS]


async def test_a_duplicated_calendar_day_differs(loaded: Pipeline) -> None:
    """A join with the calendar would count its facts twice."""
    await loaded.select("ALTER TABLE dim_date DROP CONSTRAINT dim_date_pkey CASCADE")
    await loaded.select("INSERT INTO dim_date SELECT * FROM dim_date WHERE date_id = '2025-01-02'")
    assert differences(await loaded.verify()) == [("dim_date", Difference(Mismatch.DIFFERENT, ("2025-01-02",)))]


async def test_a_referenced_day_that_the_calendar_lacks_is_missing(loaded: Pipeline) -> None:
    await without_foreign_keys(loaded)
    await loaded.select(f"DELETE FROM dim_date WHERE date_id::text = ANY ('{{{','.join(DAYS)}}}')")
    verdict = await loaded.verify()
    assert differences(verdict) == [("dim_date", Difference(Mismatch.MISSING, (day,))) for day in DAYS]
    assert verdict.tables[0].expected == verdict.tables[0].actual + 3


async def test_a_day_that_is_no_longer_referenced_stays_and_is_not_extra(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("UPDATE sales_order SET agreed_payment_date = '2025-01-04' WHERE sales_order_id = 1")
    await loaded.run()
    assert await value(loaded, "count(*)", "dim_date WHERE date_id::text = '0001-01-01'") == "1"
    assert (await loaded.verify()).is_equal


async def test_a_commit_after_the_snapshot_is_in_flight(source: asyncpg.Connection, source_url: str, loaded: Pipeline) -> None:
    late = await asyncpg.connect(source_url)
    transaction = late.transaction()
    await transaction.start()
    await late.fetchval(SELL, "2031-01-01", "2031-01-02")
    await late.execute("UPDATE payment SET payment_amount = payment_amount + 1 WHERE payment_id = 3")
    await source.execute("UPDATE design SET file_name = 'new' WHERE design_id = 1")
    await loaded.run()
    await transaction.commit()
    await late.close()
    verdict = await loaded.verify()
    flying = {table.table: table.in_flight for table in verdict.tables if table.in_flight}
    assert verdict.is_equal
    assert flying == {"dim_date": 3, "fact_sales_order": 1, "fact_payment": 1}
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)


async def test_a_changed_partner_puts_its_rows_in_flight(source: asyncpg.Connection, loaded: Pipeline) -> None:
    members = await source.fetchval("SELECT count(*) FROM staff WHERE department_id = (SELECT min(department_id) FROM staff)")
    await source.execute(
        "UPDATE department SET department_name = 'Zoology' WHERE department_id = (SELECT min(department_id) FROM staff)"
    )
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, members)
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)


async def test_rows_in_flight_excuse_no_other_rows(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("UPDATE payment SET payment_amount = 7 WHERE payment_id = 3")
    await loaded.select("UPDATE fact_payment SET payment_amount = 7.77 WHERE payment_id = 4")
    verdict = await loaded.verify()
    assert verdict.in_flight == 1
    assert [(table, difference.key) for table, difference in differences(verdict)] == [("fact_payment", (4,))]


@pytest.mark.parametrize(
    ("table", "column", "complaint"),
    [
        ("address", "city", "^table 'address' lacks column 'city' required by contract"),
        ("dim_location", "city", r"^warehouse: .*does not exist"),
    ],
)
async def test_a_database_that_cannot_be_read_is_reported_with_the_reason(
    table: str, column: str, complaint: str, source: asyncpg.Connection, loaded: Pipeline
) -> None:
    """The reason is not that the other connection was still busy when the proof left it."""
    rename = f"ALTER TABLE {table} RENAME COLUMN {column} TO town"
    await (source.execute(rename) if table == "address" else loaded.select(rename))
    for _ in range(5):
        with pytest.raises(PermanentError, match=complaint):
            await loaded.verify()


async def test_each_table_is_announced_before_it_is_compared(loaded: Pipeline) -> None:
    told: list[str] = []
    await loaded.verify(on_table=told.append)
    assert told == [table.name for table in loaded.contract.warehouse_tables]
