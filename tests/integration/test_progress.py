"""The progress of the warehouse while batches are missing, and its effect on the proof."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg

from contracts.messages import BatchRemodelled, Mode, Trigger
from contracts.objects import SourceKeys
from contracts.proofs import Outcome
from contracts.state import Manifest
from services.operator.progress import OVERDUE, not_in_ledger
from services.operator.proof.row_comparison import Mismatch
from services.operator.runs import RunOutcome, last_runs
from shared.clock import utc_now
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import LANDING, SOURCE, Pipeline
from tests.unit.services.operator.scene import Scene

pytestmark = begins_with(filled_totesys(orders=40))


def later() -> datetime:
    """The moment at which a batch that is announced now becomes overdue."""
    return utc_now() + OVERDUE + timedelta(seconds=1)


async def change(filled: asyncpg.Connection, pipeline: Pipeline, name: str) -> BatchRemodelled:
    """Make one more run, remodelled but not loaded."""
    await filled.execute("UPDATE staff SET first_name = $1 WHERE staff_id = 1", name)
    (message,) = await pipeline.read()
    return message


async def test_progress_is_empty_before_anything_happens(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    progress = await pipeline.progress()
    assert (progress.consistent_through, progress.missing, progress.checkpoint) == (None, (), None)
    assert progress.fresh_as_of is None


async def test_a_run_that_was_read_but_not_loaded_is_missing(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.read()
    progress = await pipeline.progress()
    assert (progress.consistent_through, progress.fresh_as_of) == (None, None)
    assert [batch.data.batch_id for batch in progress.missing] == [message.data.batch_id]


async def test_the_warehouse_is_consistent_up_to_the_run_before_the_first_missing_batch(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    first = await pipeline.run()
    second, third = await change(filled, pipeline, "Ada"), await change(filled, pipeline, "Grace")
    await pipeline.load(third)
    progress = await pipeline.progress()
    assert progress.consistent_through is not None
    assert progress.consistent_through.run == first[0].data.run
    assert [batch.data.batch_id for batch in progress.missing] == [second.data.batch_id]
    assert progress.fresh_as_of == first[0].data.snapshot.taken_at
    await pipeline.load(second)
    progress = await pipeline.progress()
    assert progress.consistent_through is not None
    assert (progress.consistent_through.run, progress.missing) == (third.data.run, ())
    assert await pipeline.select("SELECT first_name FROM dim_staff WHERE staff_id = 1") == [("Grace",)]


async def test_one_missing_batch_makes_its_run_missing(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    first = await pipeline.run()
    *batches, left_out, last = await pipeline.cut(200).read(Mode.FULL)
    await pipeline.load(*batches, last)
    progress = await pipeline.progress()
    assert progress.consistent_through is not None
    assert progress.consistent_through.run == first[0].data.run
    assert [batch.data.batch_id for batch in progress.missing] == [left_out.data.batch_id]
    await pipeline.load(left_out)
    progress = await pipeline.progress()
    assert progress.consistent_through is not None
    assert progress.consistent_through.run == last.data.run


@begins_with(loaded_totesys(orders=40))
async def test_a_run_that_never_completed_is_void(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    """Its messages were sent but its manifest was not written, so its rows are read again."""
    await change(filled, pipeline, "Ada")
    manifests = sorted(key for key in pipeline.objects.buckets[LANDING] if key.startswith(SourceKeys(SOURCE).manifests))
    del pipeline.objects.buckets[LANDING][manifests[-1]]
    progress = await pipeline.progress()
    assert progress.missing == ()


async def test_an_idle_source_is_fresh_without_manifests(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.run()
    for _ in range(3):
        assert await pipeline.ingest(trigger=Trigger.SCHEDULE) == []
    progress = await pipeline.progress()
    assert progress.fresh_as_of is not None
    assert progress.fresh_as_of > message.data.snapshot.taken_at
    assert progress.consistent_through is not None
    assert progress.consistent_through.run == message.data.run


async def test_the_last_runs_are_listed_with_their_outcomes(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (first,) = await pipeline.run()
    second = await change(filled, pipeline, "Ada")
    system = replace(Scene().system, objects=pipeline.objects, warehouse=pipeline.warehouse)
    newest, oldest = (await last_runs(system, 20)).runs
    assert (newest.run, newest.outcome, newest.full, newest.rows_read) == (second.data.run, RunOutcome.MISSING, False, 1)
    assert (newest.trigger, newest.asked_by) == (
        Trigger.OPERATOR,
        (await pipeline.store.read_manifest(newest.run)).requested_by,
    )
    assert (newest.seconds_remodelling, newest.seconds_loading) == (None, None)
    assert (oldest.run, oldest.outcome, oldest.full, oldest.batches) == (first.data.run, RunOutcome.LOADED, True, 1)
    assert oldest.rows_loaded == sum(rows.object.row_count for rows in first.data.tables)
    seconds = (oldest.seconds_ingesting, oldest.seconds_remodelling, oldest.seconds_loading)
    assert all(one is not None and one >= 0 for one in seconds)
    await pipeline.run(Mode.FULL)
    assert [run.outcome for run in (await last_runs(system, 20)).runs] == [
        RunOutcome.LOADED,
        RunOutcome.SUPERSEDED,
        RunOutcome.LOADED,
    ]
    assert await pipeline.ingest(trigger=Trigger.SCHEDULE) == []
    assert [run.outcome for run in (await last_runs(system, 2)).runs] == [RunOutcome.UNCHANGED, RunOutcome.LOADED]


async def test_the_manifests_after_a_run_name_their_requests(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.ingest()
    (manifest,) = await pipeline.store.manifests_after(0)
    assert (manifest.run, manifest.requested_by, manifest.batches) == (message.data.run, message.causationid, (message,))
    assert manifest.trigger is Trigger.OPERATOR
    assert await pipeline.store.manifests_after(manifest.run) == []
    batches = [batch.data.batch_id for batch in manifest.batches]
    assert await not_in_ledger(pipeline.system, batches) == [message.data.batch_id]


async def test_a_batch_that_went_missing_long_ago_is_still_missing(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    """Such a batch was a dead letter for days while later runs were loaded."""
    (message,) = await pipeline.read()
    landing = pipeline.objects.buckets[LANDING]
    old = message.data.run - int(timedelta(days=3) / timedelta(milliseconds=1))
    key, old_key = SourceKeys(SOURCE).manifest(message.data.run), SourceKeys(SOURCE).manifest(old)
    landing[old_key] = Manifest.model_validate_json(landing.pop(key)).model_copy(update={"run": old}).model_dump_json().encode()
    await pipeline.load(await change(filled, pipeline, "Ada"))
    progress = await pipeline.progress()
    assert [batch.data.batch_id for batch in progress.missing] == [message.data.batch_id]
    assert (progress.consistent_through, progress.fresh_as_of) == (None, None)


@begins_with(loaded_totesys(orders=40))
async def test_changes_that_no_loaded_run_could_see_are_in_flight(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await filled.execute("UPDATE staff SET first_name = 'Ada' WHERE staff_id = 1")
    await filled.execute("UPDATE department SET location = 'Hull' WHERE department_id = 2")
    await filled.execute("UPDATE sales_order SET agreed_payment_date = '2077-07-07' WHERE sales_order_id = 1")
    verdict = await pipeline.verify()
    staff = await filled.fetchval("SELECT count(*) FROM staff WHERE department_id = 2 OR staff_id = 1")
    assert {table.table: table.in_flight for table in verdict.tables if table.in_flight} == {
        "dim_date": 1,
        "dim_staff": staff,
        "fact_sales_order": 1,
    }
    assert verdict.is_equal
    await pipeline.run()
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)


@begins_with(loaded_totesys(orders=40))
async def test_the_rows_of_a_missing_batch_are_in_flight_and_not_different(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    second = await change(filled, pipeline, "Ada")
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)
    await pipeline.load(second)
    assert (await pipeline.verify()).in_flight == 0


@begins_with(loaded_totesys(orders=40))
async def test_every_manually_changed_row_of_the_warehouse_is_found(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    await pipeline.select("UPDATE fact_payment SET payment_amount = payment_amount + 0.01 WHERE payment_id = 2")
    await pipeline.select("DELETE FROM fact_sales_order WHERE sales_order_id = 3")
    await pipeline.select("INSERT INTO dim_payment_type VALUES (77, 'BARTER', 1)")
    await pipeline.select("UPDATE dim_date SET day_name = 'Doomsday' WHERE date_id = (SELECT min(date_id) FROM dim_date)")
    verdict = await pipeline.verify()
    found = {(table.table, d.kind, d.key) for table in verdict.tables for d in table.differences if table.table != "dim_date"}
    assert found == {
        ("fact_payment", Mismatch.DIFFERENT, (2,)),
        ("fact_sales_order", Mismatch.MISSING, (3,)),
        ("dim_payment_type", Mismatch.EXTRA, (77,)),
    }
    (date,) = next(table.differences for table in verdict.tables if table.table == "dim_date")
    assert date.kind is Mismatch.DIFFERENT
    (payment,) = next(table.differences for table in verdict.tables if table.table == "fact_payment")
    assert list(payment.columns) == ["payment_amount"]


@begins_with(loaded_totesys(orders=40))
async def test_an_overdue_batch_makes_the_proof_pending(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    lost = await change(filled, pipeline, "Ada")
    verdict = await replace(pipeline, clock=later).verify()
    assert (verdict.outcome, verdict.overdue_batches, verdict.in_flight, verdict.stuck) == (Outcome.PENDING, 1, 0, 1)
    ((reason, rows),) = verdict.reasons.items()
    assert (rows, reason.partition(":")[0]) == (1, f"run {lost.data.run} is overdue, batch {lost.data.batch_id} is not loaded")


@begins_with(loaded_totesys(orders=40))
async def test_a_loaded_full_run_closes_the_gaps_before_it(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    lost = await change(filled, pipeline, "Ada")
    await pipeline.run(Mode.FULL)
    verdict = await replace(pipeline, clock=later).verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)
    progress = await pipeline.progress()
    assert (progress.missing, [batch.data.batch_id for batch in progress.superseded]) == ((), [lost.data.batch_id])
