"""The trace of a row that was deleted, inferred, refused or never loaded."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest
from pydantic import SecretStr

from contracts.messages import Mode
from infra.local.machine import free_port
from services.operator.trace.life import AtSource
from shared.postgres import Database
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.tracing import life, printed

pytestmark = begins_with(filled_totesys(orders=20))
PAY = "UPDATE payment SET payment_amount = $2, last_updated = $3::text::timestamp WHERE payment_id = $1"
HOPS = ["source snapshot", "batch ingested", "batch remodelled", "load began", "row merged", "load committed"]


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """The pipeline of a small totesys that is not loaded yet."""
    return pipeline


@begins_with(loaded_totesys(orders=20))
async def test_a_row_deleted_at_the_source_is_traced_to_the_run_that_found_it_missing(
    source: asyncpg.Connection, filled: Pipeline
) -> None:
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    await filled.run(Mode.FULL)
    found = await life(filled, "fact_payment", "3")
    assert (found.known, found.rows[0].current, found.at_source) == (True, False, None)
    assert found.tombstone is not None
    answered = filled.checkpoint()  # the run that answered loading's question was the last
    assert (found.tombstone.run, found.rows[0].deleted_at) == (answered.run, answered.snapshot.taken_at)
    assert f"as the look-up of run {answered.run} found" in await printed(filled, "fact_payment", "3")
    assert (await life(filled, "fact_payment", "4")).tombstone is None


async def test_an_inferred_member_is_labelled_and_its_row_looked_up_at_the_source(
    source: asyncpg.Connection, filled: Pipeline
) -> None:
    """A fact overtook its dimension: the batches of one run are loaded in reverse order."""
    await filled.run()
    await filled.select("TRUNCATE dim_transaction CASCADE")
    messages = await filled.cut(200).read(Mode.FULL)
    facts = [message for message in messages if any(rows.table == "fact_payment" for rows in message.data.tables)]
    await filled.load(facts[0])
    ((key,),) = await filled.select("SELECT min(transaction_id)::text FROM dim_transaction WHERE _run = 0")
    found = await life(filled, "dim_transaction", key)
    assert (found.known, found.rows[0].inferred, found.at_source) == (True, True, AtSource.READ)
    assert "inferred member: a fact refers to it" in await printed(filled, "dim_transaction", key)
    await filled.load(*messages)
    found = await life(filled, "dim_transaction", key)
    assert (found.rows[0].inferred, found.at_source) == (False, None)


@begins_with(loaded_totesys(orders=20))
async def test_a_refused_row_is_traced_with_its_reasons_and_later_arrival(source: asyncpg.Connection, filled: Pipeline) -> None:
    await source.execute(PAY, 3, "NaN", "2026-12-01 10:00")
    await source.execute(PAY, 4, "NaN", "2026-12-01 10:00")
    (message,) = await filled.run()
    found = await life(filled, "fact_payment", "3")
    (refusal,) = found.quarantine
    assert (refusal.run, refusal.open, len(found.rows)) == (message.data.run, True, 1)
    assert refusal.row["payment_id"] == 3
    line = f"quarantine: run {refusal.run} refused it: payment_amount is NaN (still missing)"
    assert line in await printed(filled, "fact_payment", "3")
    await source.execute(PAY, 3, 7, "2026-12-02 10:00")
    await filled.run()
    found = await life(filled, "fact_payment", "3")
    assert [one.open for one in found.quarantine] == [False]
    assert "(a later image of it is loaded)" in await printed(filled, "fact_payment", "3")
    assert (await life(filled, "fact_payment", "5")).quarantine == ()


@begins_with(loaded_totesys(orders=20))
async def test_a_refused_row_that_was_deleted_is_no_longer_missing(source: asyncpg.Connection, filled: Pipeline) -> None:
    await source.execute(PAY, 3, "NaN", "2026-12-01 10:00")
    await filled.run()
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    await filled.run(Mode.FULL)
    found = await life(filled, "fact_payment", "3")
    assert [refusal.open for refusal in found.quarantine] == [False]
    assert "payment_amount is NaN (the source no longer has it)" in await printed(filled, "fact_payment", "3")


async def test_refusals_are_listed_newest_first_for_the_requested_table(source: asyncpg.Connection, filled: Pipeline) -> None:
    await source.execute("UPDATE currency SET currency_code = 'XXZ' WHERE currency_id = 1")
    await filled.run()
    await source.execute("UPDATE currency SET currency_code = 'XXY' WHERE currency_id = 1")
    await filled.run()
    refusals = (await life(filled, "dim_currency", "1")).quarantine
    assert [refusal.row["currency_code"] for refusal in refusals] == ["XXY", "XXZ"]
    assert (await life(filled, "dim_design", "1")).quarantine == ()


async def test_a_row_that_is_not_loaded_is_looked_up_at_the_source(source: asyncpg.Connection, filled: Pipeline) -> None:
    assert (await life(filled, "fact_payment", "3")).at_source is AtSource.WAITING  # nothing was ever read
    messages = await filled.read()
    found = await life(filled, "fact_payment", "3")
    assert (found.known, found.at_source) == (False, AtSource.READ)
    await filled.load(*messages)
    assert (await life(filled, "fact_payment", "3")).at_source is None
    await source.execute(
        "INSERT INTO department (department_id, department_name, created_at, last_updated) VALUES (99, 'Zoology', now(), now())"
    )
    await source.execute(
        "INSERT INTO staff (staff_id, first_name, last_name, department_id, email_address, created_at, "
        "last_updated) VALUES (999, 'Ada', 'L', 99, 'a@b.c', now(), now())"
    )
    assert (await life(filled, "dim_staff", "999")).at_source is AtSource.WAITING
    assert (await life(filled, "dim_staff", "998")).at_source is AtSource.NOWHERE
    assert await printed(filled, "dim_staff", "998") == "dim_staff 998 is not in the warehouse.\nThe source has no such row."


@begins_with(loaded_totesys(orders=20))
async def test_an_unreachable_source_is_reported(filled: Pipeline) -> None:
    nobody = Database("source", SecretStr(f"postgresql://me:secret@127.0.0.1:{free_port()}/shop"), connections=1)
    alone = replace(filled, source=nobody)
    assert (await life(alone, "dim_staff", "998")).at_source is AtSource.UNKNOWN
    assert (await life(alone, "dim_staff", "3")).known
    await nobody.aclose()


@begins_with(loaded_totesys(orders=20))
async def test_a_calendar_day_is_computed_and_belongs_to_no_run(filled: Pipeline) -> None:
    ((day,),) = await filled.select("SELECT max(date_id)::text FROM dim_date")
    found = await life(filled, "dim_date", day)
    assert (found.known, found.computed, found.at_source) == (True, True, None)
    assert "the loader computes it, no run reads it" in await printed(filled, "dim_date", day)
    assert "inferred" not in await printed(filled, "dim_date", day)
    assert not (await life(filled, "dim_date", "1066-10-14")).known


@begins_with(loaded_totesys(orders=20))
async def test_a_number_may_be_typed_with_a_sign_and_leading_zeros(filled: Pipeline) -> None:
    assert (await life(filled, "dim_staff", "+003")).key == (3,)
    assert (await life(filled, "dim_staff", "-2147483648")).at_source is AtSource.NOWHERE
