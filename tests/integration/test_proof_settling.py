"""Rows in flight are compared again: those that a later run should have brought, but has not, differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from contracts.key_hashes import SUMMED_BITS
from contracts.messages import Mode
from contracts.objects import SourceKeys
from contracts.proofs import Outcome
from contracts.state import SourceState
from infra.local.databases import LOADER, execute
from services.operator.errors import UsageError
from services.operator.proof.canonical import BUCKETS
from services.operator.proof.look import open_look
from services.operator.proof.row_comparison import Difference, Mismatch
from services.operator.proof.table_comparison import compare_again, compare_table
from services.operator.proof.verdict import Scope, Verdict
from services.operator.proof.verify import wait_for_later_run
from shared.key_hashes import hash_of
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import LANDING, SOURCE, Pipeline
from tests.fixtures.postgres_cluster import TestCluster

PATIENT = Scope(settle=timedelta(seconds=60))
ORDERS = 20
pytestmark = begins_with(loaded_totesys(orders=ORDERS))
CHANGE = "UPDATE sales_order SET units_sold = units_sold + 1, last_updated = now() WHERE sales_order_id = $1"


@pytest.fixture
async def held_back(source: asyncpg.Connection, pipeline: Pipeline) -> AsyncIterator[Pipeline]:
    """A loaded totesys whose horizon a transaction holds back: order 2, changed and loaded since, is still in flight."""
    async with pipeline.source.connection() as idle:
        transaction = idle.transaction()
        await transaction.start()
        await idle.fetchval("SELECT pg_current_xact_id()")
        await source.execute(CHANGE, 2)
        await pipeline.run()
        yield pipeline
        await transaction.rollback()


def facts(verdict: Verdict) -> tuple[int, list[Difference]]:
    (found,) = [table for table in verdict.tables if table.table == "fact_sales_order"]
    return found.in_flight, list(found.differences)


async def corrupt(pipeline: Pipeline, order: int) -> None:
    """Make the row wrong and newer than any future run, so that no load repairs it."""
    query = f"UPDATE fact_sales_order SET units_sold = -1, _run = {2**62} WHERE sales_order_id = {order}"
    await pipeline.select(query)


async def proved_while(pipeline: Pipeline, source: asyncpg.Connection, *orders: int, **wish: bool) -> Verdict:
    """A proof, during which `orders` change at the source and a run is loaded."""
    has_looked = asyncio.Event()

    async def work() -> None:
        await has_looked.wait()  # the proof waits for a run that began after its own snapshot
        for order in orders:
            await source.execute(CHANGE, order)
        await pipeline.run(Mode.CHANGES, **wish)

    verdict, _ = await asyncio.gather(pipeline.verify(PATIENT, on_table=lambda _: has_looked.set()), work())
    return verdict


async def test_a_row_beyond_the_horizon_is_in_flight_at_first(held_back: Pipeline) -> None:
    assert facts(await held_back.verify()) == (0, [])
    await corrupt(held_back, 2)
    assert facts(await held_back.verify()) == (1, [])


async def test_a_difference_that_a_later_run_does_not_repair_is_reported(
    held_back: Pipeline, source: asyncpg.Connection
) -> None:
    await corrupt(held_back, 2)
    verdict = await proved_while(held_back, source)
    in_flight, (difference,) = facts(verdict)
    assert (in_flight, difference.kind, difference.key) == (0, Mismatch.DIFFERENT, (2,))
    assert difference.columns["units_sold"].actual == "-1"
    assert not verdict.is_equal
    assert verdict.settled_at is not None
    assert verdict.settled_at > verdict.taken_at


async def test_a_row_that_a_later_run_brings_is_equal(held_back: Pipeline, source: asyncpg.Connection) -> None:
    await held_back.select("UPDATE fact_sales_order SET units_sold = -1 WHERE sales_order_id = 2")
    verdict = await proved_while(held_back, source)
    assert facts(verdict) == (0, [])
    assert verdict.is_equal
    assert verdict.settled_at is not None


async def test_a_missing_row_that_arrives_is_equal(held_back: Pipeline, source: asyncpg.Connection) -> None:
    await held_back.select("DELETE FROM fact_sales_order WHERE sales_order_id = 2")
    verdict = await proved_while(held_back, source)
    (orders,) = [table for table in verdict.tables if table.table == "fact_sales_order"]
    assert (orders.expected, orders.actual, orders.in_flight, orders.different) == (ORDERS, ORDERS, 0, 0)


async def test_a_row_that_no_run_brings_is_missing(held_back: Pipeline, source: asyncpg.Connection) -> None:
    await corrupt(held_back, 2)
    await held_back.select("UPDATE fact_sales_order SET _deleted_at = now() WHERE sales_order_id = 2")
    assert facts(await proved_while(held_back, source)) == (0, [Difference(Mismatch.MISSING, (2,))])


async def changed_while_loading(pipeline: Pipeline, source: asyncpg.Connection, change: str) -> Verdict:
    """A proof, during which a run reads order 2, `change` is made, and then the run is loaded."""
    has_looked = asyncio.Event()

    async def work() -> None:
        await has_looked.wait()  # as above
        messages = await pipeline.read()
        await source.execute(change)
        await pipeline.load(*messages)

    verdict, _ = await asyncio.gather(pipeline.verify(PATIENT, on_table=lambda _: has_looked.set()), work())
    return verdict


async def test_a_row_that_changed_again_is_in_flight_again(held_back: Pipeline, source: asyncpg.Connection) -> None:
    await source.execute(CHANGE, 2)
    assert facts(await changed_while_loading(held_back, source, CHANGE.replace("$1", "2"))) == (1, [])


async def test_a_row_that_keeps_changing_and_is_never_loaded_differs(held_back: Pipeline, source: asyncpg.Connection) -> None:
    await corrupt(held_back, 2)
    in_flight, (difference,) = facts(await proved_while(held_back, source, 2))
    assert (in_flight, difference.key) == (0, (2,))
    await held_back.select("UPDATE fact_sales_order SET _deleted_at = now() WHERE sales_order_id = 2")
    assert facts(await proved_while(held_back, source, 2)) == (0, [Difference(Mismatch.MISSING, (2,))])


async def test_a_row_that_was_refused_and_then_changed_is_in_flight_again(
    held_back: Pipeline, source: asyncpg.Connection
) -> None:
    await source.execute("UPDATE sales_order SET agreed_payment_date = 'soon' WHERE sales_order_id = 2")
    assert facts(await changed_while_loading(held_back, source, CHANGE.replace("$1", "2"))) == (1, [])


DELETE = "DELETE FROM sales_order WHERE sales_order_id = 3"
UNTRUE = """
CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW._deleted_at := NULL; RETURN NEW; END';
CREATE TRIGGER undo BEFORE UPDATE ON fact_sales_order FOR EACH ROW EXECUTE FUNCTION undo();
"""


async def test_a_deleted_row_is_in_flight_until_keys_are_compared(held_back: Pipeline, source: asyncpg.Connection) -> None:
    await source.execute(DELETE)
    assert facts(await proved_while(held_back, source)) == (1, [])
    assert facts(await proved_while(held_back, source, compare_keys=True)) == (0, [])


async def test_a_row_in_flight_that_is_deleted_while_the_proof_waits_stays_in_flight(
    held_back: Pipeline, source: asyncpg.Connection
) -> None:
    await source.execute(CHANGE, 2)
    verdict = await changed_while_loading(held_back, source, "DELETE FROM sales_order WHERE sales_order_id = 2")
    (orders,) = [table for table in verdict.tables if table.table == "fact_sales_order"]
    assert (orders.expected, orders.actual, orders.in_flight, orders.different) == (ORDERS - 1, ORDERS, 1, 0)


async def test_a_deleted_row_that_a_comparison_did_not_mark_differs(
    held_back: Pipeline, source: asyncpg.Connection, postgres_cluster: TestCluster, warehouse_database: str
) -> None:
    execute(postgres_cluster.url(warehouse_database, LOADER), UNTRUE)
    await source.execute(DELETE)
    assert facts(await proved_while(held_back, source, compare_keys=True)) == (0, [Difference(Mismatch.EXTRA, (3,))])


async def test_a_row_that_returned_and_was_deleted_again_waits_for_the_next_comparison(
    pipeline: Pipeline, source: asyncpg.Connection
) -> None:
    """The comparison between the two looks saw it alive; the image that a run read since is not left over from before."""
    table = pipeline.contract.warehouse_table("fact_payment")
    payment = await source.fetchrow("DELETE FROM payment WHERE payment_id = 3 RETURNING *")
    assert payment is not None
    async with open_look(pipeline.system) as first:
        found = await compare_table(first, table, BUCKETS)
    assert (found.in_flight, found.differences) == (1, [])
    values = ", ".join(f"${position}" for position, _ in enumerate(payment, start=1))
    await source.execute(f"INSERT INTO payment OVERRIDING SYSTEM VALUE VALUES ({values})", *payment)
    await pipeline.run()
    await pipeline.run(compare_keys=True)
    await source.execute("DELETE FROM payment WHERE payment_id = 3")
    async with open_look(pipeline.system) as second:
        (again,) = await compare_again(first, second, [found], BUCKETS)
    assert (again.in_flight, again.differences) == (1, [])


async def test_without_a_later_run_rows_stay_in_flight(held_back: Pipeline) -> None:
    await corrupt(held_back, 2)
    verdict = await held_back.verify(Scope(settle=timedelta(seconds=1)))
    assert facts(verdict) == (1, [])
    assert (verdict.is_equal, verdict.settled_at) == (True, None)


async def test_a_proof_of_some_tables_compares_only_them(held_back: Pipeline) -> None:
    verdict = await held_back.verify(Scope(tables=("dim_staff", "fact_payment")))
    assert [table.table for table in verdict.tables] == ["dim_staff", "fact_payment"]
    with pytest.raises(UsageError, match="has no warehouse table 'dim_stuff'; it has dim_date, "):
        await held_back.verify(Scope(tables=("dim_stuff",)))


async def test_a_sample_compares_only_its_share_of_the_keys(held_back: Pipeline) -> None:
    await held_back.select("UPDATE fact_sales_order SET units_sold = -1")
    verdict = await held_back.verify(Scope(sample=8 / BUCKETS))
    _, differences = facts(verdict)
    assert [difference.key for difference in differences] == [(key,) for key in range(1, 8) if key != 2]
    assert verdict.sample == 8 / BUCKETS


async def test_a_run_that_began_before_the_proof_is_not_awaited_whatever_its_clock_says(held_back: Pipeline) -> None:
    """On a busy machine, others may commit between a snapshot and the reading of its clock."""
    async with open_look(held_back.system) as look:
        pass
    key = SourceKeys(SOURCE).state
    state = SourceState.model_validate_json(held_back.objects.buckets[LANDING][key])
    assert state.checkpoint is not None
    late = state.checkpoint.snapshot.model_copy(update={"taken_at": look.taken_at + timedelta(seconds=1)})
    checkpoint = state.checkpoint.model_copy(update={"snapshot": late})
    held_back.objects.buckets[LANDING][key] = state.model_copy(update={"checkpoint": checkpoint}).model_dump_json().encode()
    assert not await wait_for_later_run(held_back.system, look, timedelta(seconds=1))
    await held_back.run()
    assert await wait_for_later_run(held_back.system, look, timedelta(seconds=1))


async def test_a_row_rewritten_without_a_change_is_in_flight_again(held_back: Pipeline, source: asyncpg.Connection) -> None:
    await source.execute(CHANGE, 2)
    again = "UPDATE sales_order SET units_sold = units_sold WHERE sales_order_id = 2"
    await held_back.select(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.units_sold := -1; RETURN NEW; END'"
    )
    await held_back.select("CREATE TRIGGER spoil BEFORE INSERT ON fact_sales_order FOR EACH ROW EXECUTE FUNCTION spoil()")
    assert facts(await changed_while_loading(held_back, source, again)) == (1, [])


@pytest.mark.parametrize(("minutes", "outcome"), [(4, Outcome.EQUAL), (6, Outcome.PENDING)])
async def test_rows_without_a_run_to_load_them_are_stuck_after_a_while(
    held_back: Pipeline, source: asyncpg.Connection, minutes: int, outcome: Outcome
) -> None:
    """This happens when ingestion is down: every row may have changed since."""
    await source.execute("UPDATE design SET file_name = 'x'")
    key = SourceKeys(SOURCE).state
    state = SourceState.model_validate_json(held_back.objects.buckets[LANDING][key])
    assert state.checkpoint is not None
    old = state.checkpoint.snapshot.taken_at - timedelta(minutes=minutes)
    snapshot = state.checkpoint.snapshot.model_copy(update={"taken_at": old})
    checkpoint = state.checkpoint.model_copy(update={"snapshot": snapshot})
    held_back.objects.buckets[LANDING][key] = state.model_copy(update={"checkpoint": checkpoint}).model_dump_json().encode()
    verdict = await held_back.verify(Scope(settle=timedelta(seconds=0.5)))
    is_stuck = outcome is Outcome.PENDING
    assert (verdict.outcome, verdict.in_flight, verdict.stuck) == (outcome, 473 * (not is_stuck), 473 * is_stuck)
    assert (f"473 rows: no run has read the source for {minutes} min" in verdict.sentence) is is_stuck


@begins_with(filled_totesys(orders=ORDERS))
async def test_a_deleted_row_waits_until_a_full_rotation_has_asked_about_its_bucket(
    source: asyncpg.Connection, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a run that is not loaded are missing in every bucket, so that a comparison asks about a part of the buckets."""
    monkeypatch.setattr("services.loading.questions.UNLIKELY_KEYS", 1)
    add_designs = "INSERT INTO design SELECT n, 'brief', '/', 'f', now(), now() FROM generate_series($1::int, $2::int) AS n"
    await source.execute(add_designs, 1001, 1250)
    await pipeline.run()
    await source.execute(add_designs, 1251, 1350)
    late = await pipeline.read()
    gone = next(key for key in range(1001, 1250) if hash_of((key,)) >> SUMMED_BITS & 1)  # in the last of the buckets
    await source.execute("DELETE FROM design WHERE design_id = $1", gone)

    async def designs(*, compare_keys: bool) -> tuple[int, int]:
        """How many wait, and how many differ: the last hundred wait for their batch."""
        verdict = await proved_while(pipeline, source, compare_keys=compare_keys)
        assert verdict.settled_at is not None
        (found,) = [table for table in verdict.tables if table.table == "dim_design"]
        return found.in_flight + found.stuck, found.different

    found = [await designs(compare_keys=False)]
    while found[-1] == (101, 0):
        found.append(await designs(compare_keys=True))
    assert (found[-1], len(found) > 2) == ((100, 0), True)
    await pipeline.load(*late)
    await pipeline.run(compare_keys=True)
    assert (await pipeline.verify()).in_flight == 0
