"""Values arrive exactly or are reported: those that careless CSV, SQL or JSON breaks, and those the warehouse can't hold."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from services.ingestion.source import BatchLimits
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import PROCESSED, Pipeline

pytestmark = begins_with(filled_totesys(orders=40))
TEXTS = (
    *("", " ", "NULL", "nan", r"\N", r"\.", "\\", "\t", "a,b", 'the "Annexe"', '"', "O'Connor", "two\nlines", "\r\n"),
    *("\ufeffbom", "🚚 naïve 大阪", "e\u0301", "\u2028\u0085\x0b\x1c", "$1", "{}", "'); DROP TABLE design; --", "x" * 5_000),
)


@pytest.fixture(params=[False, True], ids=["large batches", "small batches"])
def pipeline(pipeline: Pipeline, request: pytest.FixtureRequest) -> Pipeline:
    """A pipeline whose batches all travel as large ones do, by Parquet and temporary tables, or all as small ones."""
    return pipeline if request.param else replace(pipeline, limits=BatchLimits(bundle_rows=0), few_rows=0)


def quarantine(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Every line of every quarantine object."""
    bodies = [body for key, body in pipeline.objects.buckets[PROCESSED].items() if key.startswith("quarantine/totesys/")]
    return [json.loads(line) for body in bodies for line in body.decode().rstrip("\n").split("\n")]


async def test_texts_arrive_exactly(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    for number, text in enumerate(TEXTS, start=1):
        await filled.execute("UPDATE design SET design_name = $2, file_name = $2 WHERE design_id = $1", number, text)
    await pipeline.run()
    found = await pipeline.select("SELECT design_name, file_name FROM dim_design WHERE design_id <= $1 ORDER BY 1", len(TEXTS))
    assert sorted(found) == sorted((text, text) for text in TEXTS)
    assert (await pipeline.verify()).is_equal


async def test_null_and_the_empty_text_stay_distinct(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("UPDATE address SET address_line_2 = NULL, district = '' WHERE address_id = 1")
    await filled.execute("UPDATE address SET address_line_2 = '', district = NULL WHERE address_id = 2")
    await filled.execute("UPDATE department SET location = '' WHERE department_id = 1")
    await filled.execute("UPDATE department SET location = NULL WHERE department_id = 2")
    await filled.execute("UPDATE staff SET department_id = staff_id WHERE staff_id <= 2")
    await pipeline.run()
    found = await pipeline.select("SELECT address_line_2, district FROM dim_location WHERE location_id <= 2 ORDER BY 1 DESC")
    assert found == [(None, ""), ("", None)]  # NULL sorts as the greatest
    found = await pipeline.select("SELECT location FROM dim_staff WHERE staff_id <= 2 ORDER BY staff_id")
    assert found == [("",), ("(unknown)",)]
    assert (await pipeline.verify()).is_equal


async def test_money_is_exact_to_the_limits_of_its_type(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    amounts = [Decimal(text) for text in ("0", "-0.01", "0.01", "99999999.99", "-99999999.99")]
    for key, amount in enumerate(amounts, start=1):
        await filled.execute("UPDATE payment SET payment_amount = $2 WHERE payment_id = $1", key, amount)
    await pipeline.run()
    found = await pipeline.select("SELECT payment_amount FROM fact_payment WHERE payment_id <= 5 ORDER BY payment_id")
    assert [amount for (amount,) in found] == amounts
    assert (await pipeline.verify()).is_equal


NO_DATE, NO_YEAR = "is not a date (YYYY-MM-DD)", "is outside the years 0001 to 9999"
# By payment: what is done to it, and the problem that this makes.
BROKEN = {
    1: ("payment_amount = 'NaN'", ("", "payment_amount is NaN")),
    2: ("last_updated = 'infinity'", ("", "last_updated is infinite")),
    3: ("created_at = '-infinity'", ("", "created_at is infinite")),
    4: ("payment_date = '2023-02-30'", ("payment_date", NO_DATE)),
    5: ("payment_date = ''", ("payment_date", NO_DATE)),
    6: ("payment_date = 'soon'", ("payment_date", NO_DATE)),
    7: ("payment_date = '20230301'", ("payment_date", NO_DATE)),
    8: ("payment_date = E'\\u2028'", ("payment_date", NO_DATE)),
    9: ("created_at = '12000-01-01'", ("created_date", NO_YEAR)),
    10: ("created_at = '0044-03-15 BC'", ("created_date", NO_YEAR)),
    11: ("created_at = '294276-12-31 23:59:59.999999'", ("", "created_at is too late")),
}


@pytest.mark.parametrize("when", ["in the first load", "in a later run"])
async def test_a_row_the_warehouse_cannot_hold_is_quarantined_and_the_rest_loads(
    filled: asyncpg.Connection, pipeline: Pipeline, when: str
) -> None:
    if when == "in a later run":
        await pipeline.run()
    for key, (change, _) in BROKEN.items():
        await filled.execute(f"UPDATE payment SET {change} WHERE payment_id = {key}")
    await filled.execute("UPDATE currency SET currency_code = 'XQX' WHERE currency_id = 3")
    (message,) = await pipeline.run()
    found = {
        (entry["table"], *entry["key"].values()): [(problem["column"], problem["reason"]) for problem in entry["problems"]]
        for entry in quarantine(pipeline)
    }
    expected = {("fact_payment", key): [problem] for key, (_, problem) in BROKEN.items()}
    assert found == expected | {("dim_currency", 3): [("currency_name", "is not an ISO 4217 currency code")]}
    assert message.data.quarantine is not None
    assert message.data.quarantine.row_count == len(found)
    verdict = await pipeline.verify()
    assert {table.table: table.quarantined for table in verdict.tables if table.quarantined} == {
        "fact_payment": len(BROKEN),
        "dim_currency": 1,
    }
    assert [difference for table in verdict.tables for difference in table.differences] == []


async def test_a_corrected_row_is_loaded_and_leaves_the_quarantine(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("UPDATE payment SET payment_date = 'soon' WHERE payment_id = 3")
    await pipeline.run()
    await filled.execute("UPDATE payment SET payment_date = '2027-03-01' WHERE payment_id = 3")
    await pipeline.run()
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, 0)


async def test_dates_referenced_only_by_a_quarantined_row_are_not_missing(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await filled.execute(
        "UPDATE sales_order SET agreed_delivery_date = '2099-09-09', agreed_payment_date = 'soon', created_at = '2098-08-08' "
        "WHERE sales_order_id = 3"
    )
    await pipeline.run()
    verdict = await pipeline.verify()
    assert [(found.table, found.quarantined) for found in verdict.tables if found.quarantined] == [("fact_sales_order", 1)]
    assert [difference for found in verdict.tables for difference in found.differences] == []


async def test_a_fact_that_references_a_quarantined_member_is_kept(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("UPDATE currency SET currency_code = 'XQX' WHERE currency_id = 1")
    await pipeline.run()
    assert await pipeline.select("SELECT currency_name, _run FROM dim_currency WHERE currency_id = 1") == [("(unknown)", 0)]
    expected = await filled.fetchval("SELECT count(*) FROM sales_order WHERE currency_id = 1")
    assert await pipeline.select("SELECT count(*) FROM fact_sales_order WHERE currency_id = 1") == [(expected,)]
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, 1)


async def test_the_first_and_last_days_of_the_calendar_are_exact(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    dates = ("0001-01-01", "1900-02-28", "2000-02-29", "2024-12-31", "9999-12-31")
    for number, date in enumerate(dates, start=1):
        await filled.execute("UPDATE payment SET payment_date = $2 WHERE payment_id = $1", number, date)
    await pipeline.run()
    found = await pipeline.select(
        "SELECT date_id::text, year, month, day, day_of_week, day_name, month_name, quarter FROM dim_date "
        "WHERE date_id::text = ANY ($1::text[]) ORDER BY date_id",
        list(dates),
    )
    assert found == [
        ("0001-01-01", 1, 1, 1, 0, "Monday", "January", 1),
        ("1900-02-28", 1900, 2, 28, 2, "Wednesday", "February", 1),
        ("2000-02-29", 2000, 2, 29, 1, "Tuesday", "February", 1),
        ("2024-12-31", 2024, 12, 31, 1, "Tuesday", "December", 4),
        ("9999-12-31", 9999, 12, 31, 4, "Friday", "December", 4),
    ]
    assert (await pipeline.verify()).is_equal
