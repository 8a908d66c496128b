"""The rows that the proof excuses (in quarantine, or with a deleted partner), and for how long."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from hashlib import sha256

import asyncpg
import pytest

from contracts.messages import RowsOf
from contracts.objects import SourceKeys
from contracts.state import SourceState
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Both, Difference, Mismatch
from services.operator.proof.verdict import Scope
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.pipeline import LANDING, PROCESSED, SOURCE, Pipeline
from tests.integration.plain_star import differences
from tests.integration.totesys_rows import SELL

pytestmark = begins_with(loaded_totesys(orders=20))


async def test_rows_the_warehouse_cannot_hold_are_counted_separately(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """The days referenced only by such a row are not in the calendar, and do not count as missing."""
    await source.fetchval(SELL, "2023-02-30", "2031-01-02")
    await source.execute("UPDATE payment SET payment_amount = 'NaN' WHERE payment_id = 3")
    await source.execute("UPDATE currency SET currency_code = 'XXZ' WHERE currency_id = 1")
    await loaded.run()
    verdict = await loaded.verify()
    held = {table.table: table.quarantined for table in verdict.tables if table.quarantined}
    assert differences(verdict) == []
    assert held == {"dim_currency": 1, "fact_sales_order": 1, "fact_payment": 1}


async def test_a_hundred_thousand_rows_in_quarantine_fit_into_the_statements(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    """PostgreSQL refuses a statement that lists them, so keys are passed as arrays."""
    await source.execute("UPDATE payment SET payment_amount = 'NaN' WHERE payment_id = 3")
    await loaded.run()
    bucket = loaded.objects.buckets[PROCESSED]
    (key,) = [key for key in bucket if key.startswith("quarantine/")]
    entry = json.loads(bucket.pop(key))
    more = [json.dumps(entry | {"key": {"payment_id": 10**6 + number}}) for number in range(100_000)]
    body = "\n".join([*more, json.dumps(entry)]).encode()
    bucket[f"{key.rpartition('-')[0]}-{sha256(body).hexdigest()[:16]}.jsonl"] = body
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, 1)


async def test_a_corrected_row_is_no_longer_excused(source: asyncpg.Connection, loaded: Pipeline) -> None:
    await source.execute("UPDATE payment SET payment_amount = 'NaN' WHERE payment_id = 3")
    await loaded.run()
    assert (await loaded.verify()).quarantined == 1
    await source.execute("UPDATE payment SET payment_amount = 7 WHERE payment_id = 3")
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, 0)
    await loaded.select("UPDATE fact_payment SET payment_amount = 7.77 WHERE payment_id = 3 AND payment_amount = 7")
    assert differences(await loaded.verify()) == [
        ("fact_payment", Difference(Mismatch.DIFFERENT, (3,), {"payment_amount": Both("7.00", "7.77")}))
    ]


async def test_a_corrected_row_that_was_lost_is_missing_and_requested(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """A row that was in quarantine once is not excused forever."""
    await source.execute("UPDATE payment SET payment_amount = 'NaN' WHERE payment_id = 3")
    await loaded.run()
    await source.execute("UPDATE payment SET payment_amount = 7 WHERE payment_id = 3")
    await loaded.run()
    await loaded.select("DELETE FROM fact_payment WHERE payment_id = 3")
    verdict = await loaded.verify()
    assert differences(verdict) == [("fact_payment", Difference(Mismatch.MISSING, (3,)))]
    (wish,) = await plan_repair(loaded.system, verdict)
    assert wish.reread == (RowsOf(table="payment", keys=((3,),)),)


async def test_a_row_that_every_run_refuses_stays_in_quarantine(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """A transaction holds the horizon back, so that each run reads the row again."""
    async with loaded.source.connection() as idle, idle.transaction():
        await idle.fetchval("SELECT pg_current_xact_id()")
        await source.execute("UPDATE payment SET payment_amount = 'NaN' WHERE payment_id = 3")
        for _ in range(3):
            await loaded.run()
    await source.execute("UPDATE design SET file_name = 'new' WHERE design_id = 1")
    await loaded.run()
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, 1)


ORPHANED = "(SELECT min(department_id) FROM staff)"


async def test_rows_whose_partner_was_deleted_are_in_flight_until_keys_are_compared(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    """Like deleted rows, they are found only by a comparison."""
    await source.execute("ALTER TABLE staff DROP CONSTRAINT staff_department_id_fkey")
    members = await source.fetchval(f"SELECT count(*) FROM staff WHERE department_id = {ORPHANED}")
    await source.execute(f"DELETE FROM department WHERE department_id = {ORPHANED}")
    for _ in range(2):
        verdict = await loaded.verify()
        assert (verdict.is_equal, verdict.in_flight) == (True, members)
        await loaded.run()
    await loaded.run(compare_keys=True)
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight, verdict.quarantined) == (True, 0, members)


@pytest.mark.parametrize("compare_keys", [False, True])
async def test_a_row_without_a_partner_that_a_comparison_did_not_repair_differs(
    source: asyncpg.Connection, loaded: Pipeline, *, compare_keys: bool
) -> None:
    await source.execute("ALTER TABLE counterparty DROP CONSTRAINT counterparty_legal_address_id_fkey")
    await source.execute("UPDATE counterparty SET legal_address_id = 999999 WHERE counterparty_id = 1")
    await loaded.run()
    await loaded.select(f"UPDATE dim_counterparty SET counterparty_legal_name = 'x', _run = {2**62} WHERE counterparty_id = 1")

    has_looked = asyncio.Event()

    async def work() -> None:
        await has_looked.wait()  # the proof waits for a run that began after its own snapshot
        await loaded.run(compare_keys=compare_keys)

    verdict, _ = await asyncio.gather(
        loaded.verify(Scope(settle=timedelta(seconds=60)), on_table=lambda _: has_looked.set()), work()
    )
    assert (verdict.in_flight + verdict.quarantined, len(differences(verdict))) == ((0, 1) if compare_keys else (1, 0))


RENAME = """ALTER TYPE "TransactionType" RENAME VALUE 'SALE' TO 'SALES'"""


async def test_a_change_without_a_transaction_id_is_in_flight_until_a_full_read(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    sales = await source.fetchval("SELECT count(*) FROM transaction WHERE transaction_type = 'SALE'")
    await source.execute(RENAME)
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, sales)
    messages = await loaded.read()  # and on their way still
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, sales)
    await loaded.load(*messages)
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)


async def test_a_wrong_row_of_a_redefined_table_is_named_after_the_table_is_read(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await source.execute(RENAME)
    await loaded.select(f"UPDATE dim_transaction SET transaction_type = 'x', _run = {2**62} WHERE transaction_id = 1")

    has_looked = asyncio.Event()

    async def work() -> None:
        await has_looked.wait()  # as above
        await loaded.run()

    verdict, _ = await asyncio.gather(
        loaded.verify(Scope(settle=timedelta(seconds=60)), on_table=lambda _: has_looked.set()), work()
    )
    assert [(table, difference.key) for table, difference in differences(verdict)] == [("dim_transaction", (1,))]


async def test_differences_to_a_replaced_source_are_in_flight(source: asyncpg.Connection, loaded: Pipeline) -> None:
    """This happens after a crash or a failover, when transaction ids are reused."""
    key = SourceKeys(SOURCE).state
    state = SourceState.model_validate_json(loaded.objects.buckets[LANDING][key])
    assert state.checkpoint is not None
    other = state.checkpoint.identity.model_copy(update={"timeline": 7})
    checkpoint = state.checkpoint.model_copy(update={"identity": other})
    loaded.objects.buckets[LANDING][key] = state.model_copy(update={"checkpoint": checkpoint}).model_dump_json().encode()
    await loaded.select("UPDATE fact_payment SET paid = NOT paid WHERE payment_id = 3")
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)
    await loaded.run()
    verdict = await loaded.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)
