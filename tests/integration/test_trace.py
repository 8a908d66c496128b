"""The life of a row, traced in a real warehouse and a real source: known facts are correct, expired ones are reported."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from contracts.messages import BatchRemodelled
from contracts.objects import SourceKeys
from contracts.state import Manifest
from services.ingestion.source import BatchLimits
from services.operator.proof.history import check_history
from services.operator.trace.life import Hop, Passage
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import LANDING, PROCESSED, SOURCE, Pipeline
from tests.fixtures.tracing import life, printed

pytestmark = begins_with(filled_totesys(orders=20))
PAY = "UPDATE payment SET payment_amount = $2, last_updated = $3::text::timestamp WHERE payment_id = $1"
HOPS = ["source snapshot", "batch ingested", "batch remodelled", "load began", "row merged", "load committed"]


@pytest.fixture
def filled(pipeline: Pipeline) -> Pipeline:
    """The pipeline of a small totesys that is not loaded yet."""
    return pipeline


async def passage(pipeline: Pipeline, table: str, *key: str) -> tuple[Passage, tuple[Hop, ...]]:
    """The passage of the newest row."""
    found = await life(pipeline, table, *key)
    batch = found.rows[0].batch
    assert batch is not None
    return batch, batch.hops


def manifest(pipeline: Pipeline, run: int) -> Manifest:
    return Manifest.model_validate_json(pipeline.objects.buckets[LANDING][SourceKeys(SOURCE).manifest(run)])


@pytest.mark.parametrize("limits", [BatchLimits(), BatchLimits(bundle_rows=0)], ids=["in a bundle", "in Parquet"])
async def test_a_trace_names_the_run_batch_messages_and_objects_of_a_row(filled: Pipeline, limits: BatchLimits) -> None:
    (message,) = await replace(filled, limits=limits).run()
    found, hops = await passage(filled, "dim_staff", "3")
    (announced,) = manifest(filled, message.data.run).batches
    assert (found.run, found.id, found.index) == (message.data.run, message.data.batch_id, 0)
    assert found.snapshot == message.data.snapshot == announced.data.snapshot
    assert found.asked_by == announced.causationid
    by_name = {hop.name: hop.message for hop in hops}
    assert by_name["batch ingested"] == announced.id == message.causationid
    assert by_name["batch remodelled"] == message.id
    assert [(str(by_name["load began"]),)] == await filled.select("SELECT event ->> 'id' FROM starlift.ledger")
    assert found.trace_id == (message.traceparent or "").split("-")[1]
    wanted = {("staff", "base"), ("department", "partner")}
    extracts = [extract.object for extract in announced.data.extracts if (extract.table, extract.role) in wanted]
    assert len(extracts) == 2
    found_in = {ref.key: ref for ref in extracts}
    assert [(piece.key, piece.rows, piece.bytes) for piece in found.landing] == [
        (key, sum(one.row_count for one in extracts if one.key == key), ref.byte_count) for key, ref in found_in.items()
    ]
    assert len(found_in) == (1 if limits.bundle_rows else 2)
    (star,) = [rows.object for rows in message.data.tables if rows.table == "dim_staff"]
    assert [(piece.bucket, piece.key, piece.bytes) for piece in found.processed] == [(PROCESSED, star.key, star.byte_count)]
    assert not any(piece.expired for piece in (*found.landing, *found.processed))


async def test_every_hop_has_its_time_and_the_seconds_since_the_previous_one(filled: Pipeline) -> None:
    (message,) = await filled.run()
    _, hops = await passage(filled, "fact_payment", "3")
    ((merged_at, began_at, committed_at),) = await filled.select(
        "SELECT _loaded_at, (event ->> 'time')::timestamptz, loaded_at FROM fact_payment, starlift.ledger WHERE payment_id = 3"
    )
    (announced,) = manifest(filled, message.data.run).batches
    exact = {hop.name: hop.at for hop in hops if not hop.to_the_second}
    assert exact == dict(
        zip(
            [HOPS[0], HOPS[1], *HOPS[3:]],
            [message.data.snapshot.taken_at, announced.time, began_at, merged_at, committed_at],
            strict=True,
        )
    )
    assert [hop.name for hop in hops] == HOPS
    remodelled = hops[2]
    assert remodelled.at is not None
    assert announced.time.replace(microsecond=0) <= remodelled.at <= message.time
    assert hops[0].seconds is None
    assert [hop.seconds for hop in hops[4:]] == [
        (merged_at - began_at).total_seconds(),
        (committed_at - merged_at).total_seconds(),
    ]
    assert all(hop.seconds is not None and hop.seconds >= 0 for hop in hops[1:])


async def test_every_version_of_a_fact_is_traced_and_the_newest_is_current(
    source: asyncpg.Connection, filled: Pipeline
) -> None:
    """Newest is the version of the highest run, whatever its last_updated is."""
    runs = [await filled.run()]
    for amount, moment in ((7, "2026-12-01 10:00"), (8, "2026-11-30 10:00")):
        await source.execute(PAY, 3, amount, moment)
        runs.append(await filled.run())
    found = await life(filled, "fact_payment", "3")
    assert [row.run for row in found.rows] == [messages[0].data.run for messages in reversed(runs)]
    assert [row.current for row in found.rows] == [True, False, False]
    assert [row.values["payment_amount"] for row in found.rows[:2]] == ["8.00", "7.00"]
    assert [row.batch.run for row in found.rows if row.batch] == [row.run for row in found.rows]
    lines = (await printed(filled, "fact_payment", "3")).splitlines()
    assert lines[0] == "fact_payment 3: 3 rows in the warehouse"
    assert [line for line in lines if line.startswith("20") and "current" in line] == ["2026-11-30 10:00:00, current"]
    assert "2026-12-01 10:00:00" in lines


def star_key(message: BatchRemodelled, table: str) -> str:
    (ref,) = [rows.object for rows in message.data.tables if rows.table == table]
    return ref.key


async def test_a_row_of_a_later_batch_is_traced_to_that_batch_s_objects(filled: Pipeline) -> None:
    messages = await replace(filled, limits=BatchLimits(rows=25, bundle_rows=0)).run()
    found_keys = await filled.select("SELECT _batch_id, min(payment_id)::text FROM fact_payment GROUP BY _batch_id")
    batches: dict[UUID, str] = dict(found_keys)
    by_id = {message.data.batch_id: message for message in messages}
    assert len(batches) > 1
    for batch, key in batches.items():
        found, _ = await passage(filled, "fact_payment", key)
        assert found.index == by_id[batch].data.index
        assert [piece.key for piece in found.processed] == [star_key(by_id[batch], "fact_payment")]
        assert all(f"/{found.index:05d}/payment.base-" in piece.key for piece in found.landing)


def require(moment: datetime | None) -> datetime:
    assert moment is not None
    return moment


async def test_expired_objects_are_reported_and_the_rest_is_traced(filled: Pipeline) -> None:
    (message,) = await replace(filled, limits=BatchLimits(bundle_rows=0)).run()
    (announced,) = manifest(filled, message.data.run).batches
    objects = filled.objects.buckets
    for key in [key for key in objects[PROCESSED] if "/runs/" in key]:
        del objects[PROCESSED][key]
    for key in [key for key in objects[LANDING] if "/department." in key]:
        del objects[LANDING][key]
    found, hops = await passage(filled, "dim_staff", "3")
    assert {piece.key.partition("-")[0].rpartition("/")[2]: piece.expired for piece in found.landing} == {
        "staff.base": False,
        "department.partner": True,
    }
    assert (found.processed, hops[2].at, hops[2].message, hops[3].seconds) == (
        (),
        None,
        message.id,
        (require(hops[3].at) - announced.time).total_seconds(),
    )
    words = await printed(filled, "dim_staff", "3")
    assert "time not known" in words
    assert "its objects have expired" in words
    assert words.count(": expired") == 1


async def test_a_batch_without_a_manifest_is_traced_from_ledger_and_buckets(filled: Pipeline) -> None:
    (message,) = await filled.run()
    (announced,) = manifest(filled, message.data.run).batches
    before, _ = await passage(filled, "dim_staff", "3")
    del filled.objects.buckets[LANDING][SourceKeys(SOURCE).manifest(message.data.run)]
    found, hops = await passage(filled, "dim_staff", "3")
    assert (found.run_completed_at, found.snapshot, found.trace_id) == (None, before.snapshot, before.trace_id)
    assert sorted(piece.key for piece in found.landing) == sorted(piece.key for piece in before.landing)
    assert all(piece.rows is None and not piece.expired for piece in found.landing)
    assert (hops[1].message, hops[1].to_the_second) == (announced.id, True)
    assert require(hops[1].at) <= announced.time
    assert "no manifest: it has expired, or the run did not complete" in await printed(filled, "dim_staff", "3")
    for key in [key for key in filled.objects.buckets[LANDING] if "/runs/" in key]:
        del filled.objects.buckets[LANDING][key]
    found, hops = await passage(filled, "dim_staff", "3")
    assert (found.landing, hops[1].at) == ((), None)


async def test_a_row_of_a_replayed_batch_is_traced_with_both_message_ids(filled: Pipeline) -> None:
    """`starlift quarantine replay` sends the same extracts as another batch of the same run."""
    (first,) = await filled.run()
    (announced,) = manifest(filled, first.data.run).batches
    again = announced.model_copy(update={"id": uuid4(), "data": announced.data.model_copy(update={"batch_id": uuid4()})})
    message = await filled.remodel(again)
    await filled.load(message)
    found, hops = await passage(filled, "dim_staff", "3")
    assert (found.id, found.first_id) == (again.data.batch_id, first.data.batch_id)
    assert [hop.message for hop in hops[1:3]] == [announced.id, message.id]
    assert [piece.key for piece in found.landing] == [announced.data.extracts[0].object.key]
    assert "sent again later under another batch id" in await printed(filled, "dim_staff", "3")
    assert (await check_history(filled.system)).is_complete


@begins_with(loaded_totesys(orders=20))
async def test_a_row_that_starlift_did_not_write_is_reported(filled: Pipeline) -> None:
    await filled.select(
        f"UPDATE dim_design SET _batch_id = '{UUID(int=1)}' WHERE design_id = 1",
    )
    await filled.select("UPDATE dim_design SET _batch_id = NULL WHERE design_id = 2")
    assert "the ledger does not have the batch" in await printed(filled, "dim_design", "1")
    assert "of no batch: Starlift did not load it" in await printed(filled, "dim_design", "2")


async def test_the_json_of_a_trace_has_stable_names(filled: Pipeline) -> None:
    (message,) = await filled.run()
    document = (await life(filled, "fact_payment", "3")).model_dump(mode="json")
    ((row,), batch) = (document.pop("rows"), document)
    assert batch == {
        "table": "fact_payment",
        "key": [3],
        "known": True,
        "computed": False,
        "quarantine": [],
        "tombstone": None,
        "at_source": None,
    }
    batch, values = row.pop("batch"), row.pop("values")
    assert values["payment_id"] == "3"
    assert datetime.fromisoformat(row.pop("loaded_at")) <= datetime.now(UTC)
    assert row == {
        "current": True,
        "inferred": False,
        "deleted_at": None,
        "run": message.data.run,
        "batch_id": str(message.data.batch_id),
        "version": [values["last_updated_date"], values["last_updated_time"]],
    }
    assert [hop["name"] for hop in batch.pop("hops")] == HOPS
    assert batch.pop("snapshot") == message.data.snapshot.model_dump(mode="json")
    (landing,), (processed,) = batch.pop("landing"), batch.pop("processed")
    assert landing.keys() == processed.keys() == {"bucket", "key", "rows", "bytes", "written_at", "expired"}
    assert (landing["bucket"], processed["bucket"], processed["expired"]) == (LANDING, PROCESSED, False)
    completed = manifest(filled, message.data.run)
    assert batch == {
        "id": str(message.data.batch_id),
        "first_id": str(message.data.batch_id),
        "run": message.data.run,
        "index": 0,
        "trace_id": (message.traceparent or "").split("-")[1],
        "in_ledger": True,
        "asked_by": str(completed.requested_by),
        "full": True,
        "run_completed_at": completed.model_dump(mode="json")["completed_at"],
    }
