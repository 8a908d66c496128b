"""A warehouse corrupted in every way we could think of: each is named exactly, and repaired by reading those rows again."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from contracts.messages import RowsOf
from services.operator.local.totesys.fill import fill
from services.operator.proof.repair import ROWS_MAXIMUM, RepairRun, plan_repair
from services.operator.proof.row_comparison import Mismatch
from services.operator.proof.verdict import Verdict
from shared.errors import PermanentError
from tests.fixtures.beginnings import begins_with
from tests.fixtures.pipeline import Pipeline, tables_read

MISSING, EXTRA, DIFFERENT = Mismatch.MISSING, Mismatch.EXTRA, Mismatch.DIFFERENT
COPY = """
INSERT INTO fact_payment ({columns}, last_updated_time)
SELECT {columns}, last_updated_time + interval '1 ms' FROM fact_payment WHERE payment_id = 3
"""
CORRUPTIONS: tuple[tuple[str, str, tuple[tuple[str, Mismatch, object, str | None], ...]], ...] = (
    # what it is, how it comes about, and what is to be named: table, kind, key, column
    ("a cent", "UPDATE fact_payment SET payment_amount = payment_amount + 0.01 WHERE payment_id = 3",
     (("fact_payment", DIFFERENT, 3, "payment_amount"),)),
    ("a flag", "UPDATE fact_payment SET paid = NOT paid WHERE payment_id = 4", (("fact_payment", DIFFERENT, 4, "paid"),)),
    ("one more", "UPDATE fact_sales_order SET units_sold = units_sold + 1 WHERE sales_order_id = 5",
     (("fact_sales_order", DIFFERENT, 5, "units_sold"),)),
    ("a millisecond", "UPDATE fact_sales_order SET created_time = created_time + interval '1 ms' WHERE sales_order_id = 6",
     (("fact_sales_order", DIFFERENT, 6, "created_time"),)),
    ("a day", "UPDATE fact_sales_order SET agreed_payment_date = agreed_delivery_date WHERE sales_order_id = 2",
     (("fact_sales_order", DIFFERENT, 2, "agreed_payment_date"),)),
    ("another salesman", "UPDATE fact_sales_order SET sales_staff_id = 1 + sales_staff_id % 20 WHERE sales_order_id = 7",
     (("fact_sales_order", DIFFERENT, 7, "sales_staff_id"),)),
    ("NULL for ''", "UPDATE dim_location SET address_line_2 = NULL WHERE location_id = 1",
     (("dim_location", DIFFERENT, 1, "address_line_2"),)),
    ("'' for NULL", "UPDATE dim_location SET district = '' WHERE location_id = 1",
     (("dim_location", DIFFERENT, 1, "district"),)),
    ("a blank", "UPDATE dim_location SET city = city || ' ' WHERE location_id = 2", (("dim_location", DIFFERENT, 2, "city"),)),
    ("letters that look alike", "UPDATE dim_location SET country = U&'Cote d''Ivoire' WHERE location_id = 3",
     (("dim_location", DIFFERENT, 3, "country"),)),
    ("another name", "UPDATE dim_counterparty SET counterparty_legal_name = 'acme' WHERE counterparty_id = 2",
     (("dim_counterparty", DIFFERENT, 2, "counterparty_legal_name"),)),
    ("a joined name that is stale", "UPDATE dim_staff SET department_name = 'as it was called before' WHERE staff_id = 3",
     (("dim_staff", DIFFERENT, 3, "department_name"),)),
    ("a currency's name", "UPDATE dim_currency SET currency_name = 'Guinea' WHERE currency_id = 1",
     (("dim_currency", DIFFERENT, 1, "currency_name"),)),
    ("a day of the calendar", "UPDATE dim_date SET quarter = 5 - quarter WHERE date_id = '2025-01-02'",
     (("dim_date", DIFFERENT, "2025-01-02", None),)),
    ("a row deleted", "DELETE FROM fact_payment WHERE payment_id = 8", (("fact_payment", MISSING, 8, None),)),
    ("a row doubled as a later version", COPY, (("fact_payment", DIFFERENT, 3, "last_updated_time"),)),
    # Of the run that compared the keys last it would be in flight until they are compared again.
    ("a row under another key", "UPDATE fact_payment SET payment_id = 900009, _run = _run - 1 WHERE payment_id = 9",
     (("fact_payment", MISSING, 9, None), ("fact_payment", EXTRA, 900009, None))),
    ("a row made up", "INSERT INTO dim_payment_type (payment_type_id, payment_type_name, _run) VALUES (99, 'BARTER', 1)",
     (("dim_payment_type", EXTRA, 99, None),)),
    ("a fact marked as deleted", "UPDATE fact_sales_order SET _deleted_at = now() WHERE sales_order_id = 11",
     (("fact_sales_order", MISSING, 11, None),)),
    ("a dimension's row marked as deleted", "UPDATE dim_design SET _deleted_at = now() WHERE design_id = 12",
     (("dim_design", MISSING, 12, None),)),
    ("a whole table", "DELETE FROM fact_purchase_order WHERE true",
     tuple(("fact_purchase_order", MISSING, key, None) for key in range(1, 10))),
    ("two tables at once",
     "WITH a AS (DELETE FROM fact_payment WHERE payment_id = 1) UPDATE dim_staff SET location = 'X' WHERE staff_id = 1",
     (("dim_staff", DIFFERENT, 1, "location"), ("fact_payment", MISSING, 1, None))),
)  # fmt: skip


async def first_load(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    await fill(source, orders=20, seed=1)
    await source.execute("UPDATE address SET address_line_2 = '', district = NULL WHERE address_id = 1")
    await source.execute("UPDATE address SET country = 'Côte d''Ivoire' WHERE address_id = 3")
    agree = "UPDATE sales_order SET agreed_payment_date = $2, agreed_delivery_date = $3 WHERE sales_order_id = $1"
    await source.execute(agree, 2, "2025-01-02", "2025-01-03")
    await pipeline.run()


pytestmark = begins_with(first_load)


def named(verdict: Verdict) -> Iterator[tuple[str, Mismatch, object, str | None]]:
    """Every difference in the form of CORRUPTIONS: a key of one column, and the column that differs."""
    for table in verdict.tables:
        for difference in table.differences:
            (key,) = difference.key
            yield table.table, difference.kind, key, next(iter(difference.columns), None)


async def repaired(pipeline: Pipeline, verdict: Verdict) -> list[RepairRun]:
    found = await plan_repair(pipeline.system, verdict)
    for wish in found:
        await pipeline.run(reread=wish.reread, compare_keys=wish.compare_keys)
    return found


async def copied_columns(pipeline: Pipeline) -> str:
    rows = await pipeline.select(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'fact_payment'::regclass AND attnum > 0 AND attidentity = '' "
        "AND (NOT atthasdef OR attname = '_run') AND attname <> 'last_updated_time'"
    )
    return ", ".join(f'"{name}"' for (name,) in rows)


async def test_each_corruption_is_named_exactly_and_repaired(loaded: Pipeline) -> None:
    assert len(CORRUPTIONS) >= 20
    orders = await loaded.select("SELECT purchase_order_id FROM fact_purchase_order")
    columns = await copied_columns(loaded)
    for name, corruption, expected in CORRUPTIONS:
        await loaded.select(corruption.format(columns=columns))
        verdict = await loaded.verify()
        whole = (
            [("fact_purchase_order", MISSING, key, None) for (key,) in sorted(orders)] if name == "a whole table" else expected
        )
        assert list(named(verdict)) == list(whole), name
        await repaired(loaded, verdict)
        assert list(named(await loaded.verify())) == [], name


async def test_a_day_missing_from_the_calendar_is_added_by_a_row_that_references_it(loaded: Pipeline) -> None:
    for table, name in await loaded.select(
        "SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint WHERE contype = 'f'"
    ):
        await loaded.select(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    await loaded.select("DELETE FROM dim_date WHERE date_id BETWEEN '2025-01-02' AND '2025-01-03'")
    verdict = await loaded.verify()
    assert list(named(verdict)) == [("dim_date", MISSING, f"2025-01-0{day}", None) for day in (2, 3)]
    await repaired(loaded, verdict)
    assert (await loaded.verify()).is_equal


async def test_only_the_rows_that_differ_are_read_again(loaded: Pipeline) -> None:
    await loaded.select("UPDATE fact_payment SET paid = NOT paid WHERE payment_id IN (3, 4)")
    (wish,) = await plan_repair(loaded.system, await loaded.verify())
    assert wish == RepairRun((RowsOf(table="payment", keys=((3,), (4,))),), compare_keys=False)
    assert tables_read(await loaded.ingest(reread=wish.reread)) == {"payment": 2}


async def test_the_repair_of_an_equal_warehouse_needs_no_run(loaded: Pipeline) -> None:
    assert await plan_repair(loaded.system, await loaded.verify()) == []


async def test_many_rows_are_requested_in_several_commands(loaded: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ROWS_MAXIMUM == 5_000
    monkeypatch.setattr("services.operator.proof.repair.ROWS_MAXIMUM", 8)
    await loaded.select("UPDATE fact_payment SET paid = NOT paid")
    found = await repaired(loaded, await loaded.verify())
    assert sum(len(rows.keys) for wish in found for rows in wish.reread) == len(
        await loaded.select("SELECT FROM fact_payment_current")
    )
    assert max(len(rows.keys) for wish in found for rows in wish.reread) == 8
    assert (await loaded.verify()).is_equal


async def test_rows_of_unknown_tables_and_keys_of_wrong_length_are_refused(loaded: Pipeline) -> None:
    for rows in (RowsOf(table="payments", keys=((1,),)), RowsOf(table="payment", keys=((1, 2),))):
        with pytest.raises(PermanentError, match="is not in contract 'totesys'; correct the command"):
            await loaded.ingest(reread=(rows,))


async def test_a_row_that_does_not_exist_is_skipped(loaded: Pipeline) -> None:
    assert await loaded.ingest(reread=(RowsOf(table="payment", keys=((123456,),)),)) == []
