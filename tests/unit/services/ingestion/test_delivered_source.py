"""Runs of a source of files, on fakes: which file is taken when, what it announces, and what is recorded of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from contracts.column_types import numeric
from contracts.files import Outcome
from contracts.messages import Mode, RowsOf, Trigger
from services.ingestion.source import BatchLimits
from services.ingestion.spool import NEW_COLUMNS_MAXIMUM
from tests.fixtures.delivered_contract import PLANS
from tests.unit.services.ingestion.delivered_scene import (
    KEY_A,
    KEY_B,
    KEY_C,
    LANDING,
    SECOND,
    A,
    B,
    C,
    DeliveredScene,
    budget,
    product,
)


@pytest.fixture
def scene() -> DeliveredScene:
    return DeliveredScene()


async def outcomes(scene: DeliveredScene, dataset: str = "budget") -> list[tuple[str, Outcome]]:
    return [(record.key.rpartition("/")[2], record.outcome) for record in await scene.records(dataset)]


async def test_a_file_becomes_a_run(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A, B))
    (batch,) = await scene.ingest()
    assert [(one.table, one.object.row_count, one.whole_run) for one in batch.data.extracts] == [("budget", 2, batch.data.run)]
    assert batch.data.hashes is not None
    assert await scene.truth() == {KEY_A: 1050, KEY_B: 700}
    (record,) = await scene.records()
    assert (record.outcome, record.run, record.records, record.bad) == (Outcome.TAKEN, batch.data.run, 2, 0)
    assert not [key for key in scene.objects.buckets[LANDING] if key.startswith("dropzone/") and key != record.key]


async def test_one_command_takes_everything_that_waits_in_the_order_of_writing(scene: DeliveredScene) -> None:
    await scene.put("budget/z.csv", budget(A))
    scene.objects.written_at += SECOND
    await scene.put("budget/a.csv", budget(B))
    await scene.put("budget/b.csv", budget(C))
    scene.objects.written_at -= 2 * SECOND  # a file that was written before the others and became visible late
    batches = await scene.ingest()
    assert [batch.data.run for batch in batches] == sorted({batch.data.run for batch in batches})
    assert await outcomes(scene) == [("z.csv", Outcome.TAKEN), ("a.csv", Outcome.TAKEN), ("b.csv", Outcome.TAKEN)]
    assert await scene.truth() == {KEY_C: 100}
    await scene.put("budget/0.csv", budget(A, B))
    await scene.ingest()
    assert await scene.truth() == {KEY_A: 1050, KEY_B: 700}, "a file that becomes visible late counts as newer"


async def test_each_version_of_a_file_is_taken(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A))
    await scene.put("budget/a.csv", budget(A, B))
    await scene.put("budget/a.csv", budget(C))
    assert [batch.data.extracts[0].object.row_count for batch in await scene.ingest()] == [1, 2, 1]
    assert await scene.truth() == {KEY_C: 100}


async def test_the_same_bytes_again_change_nothing(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A))
    await scene.ingest()
    await scene.put("budget/b.csv", budget(A))
    await scene.put("budget/a.csv", budget(A))
    assert await scene.ingest() == []
    assert await outcomes(scene) == [("a.csv", Outcome.TAKEN), ("a.csv", Outcome.UNCHANGED), ("b.csv", Outcome.UNCHANGED)]
    await scene.put("budget/c.csv", budget(B))
    await scene.put("budget/d.csv", budget(A))
    assert len(await scene.ingest()) == 2, "they are not those of the file before it"


async def test_an_unreadable_file_is_refused_and_holds_no_other_up(scene: DeliveredScene) -> None:
    await scene.put("budget/1.csv", b"")
    await scene.put("budget/2.csv", b"nothing;of;this\n")
    await scene.put("budget/3.csv", budget(A, B).removesuffix(b"7\n") + b'"7')
    await scene.put("budget/4.csv", budget(C))
    await scene.put("budget/folder/", b"")
    with capture_logs() as logs:
        assert len(await scene.ingest()) == 1
    assert [name for name, outcome in await outcomes(scene) if outcome is Outcome.TAKEN] == ["4.csv"]
    reasons = [record.reason for record in await scene.records() if record.outcome is Outcome.REFUSED]
    assert reasons[0] == "it has no bytes; put it into the drop zone again, complete"
    assert len(reasons) == 3
    refused = [log for log in logs if log["event"] == "delivery_refused"]
    assert [log["delivery"].rpartition("/")[2] for log in refused] == ["1.csv", "2.csv", "3.csv"]
    assert "nothing" not in str(logs), "a first line may be a row"


async def test_a_file_that_is_deleted_before_it_is_taken_is_refused(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A))
    scene.objects.delete(LANDING, "dropzone/budget/a.csv")
    assert await scene.ingest() == []
    (record,) = await scene.records()
    assert record.reason == "it was deleted before it was taken; put it into the drop zone again if it is needed"


async def test_a_file_that_vanishes_after_it_was_listed_is_refused(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A))
    scene.objects.vanishing.add("dropzone/budget/a.csv")
    await scene.ingest()
    (record,) = await scene.records()
    assert record.reason == "it was deleted before it was read; put it into the drop zone again if it is needed"


async def test_a_whole_snapshot_compares_keys_and_questions_are_answered_from_what_was_delivered(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A, B))
    await scene.ingest()
    await scene.put("budget/b.csv", budget(B, C))
    (batch,) = await scene.ingest()
    (hashes,) = await scene.hashes(batch)
    assert sum(hashes.counts) == 0, "all rows that exist are in the batch"
    assert await scene.look_up("budget", KEY_A, KEY_B, KEY_C, (9, "2026-01-01")) == [KEY_A, (9, "2026-01-01")]


async def test_an_increment_deletes_nothing_until_a_whole_snapshot_comes(scene: DeliveredScene) -> None:
    await scene.put("product/a.jsonl", product(1, "one", 1) + product(2, "two", 1))
    await scene.put("product/b.jsonl", product(1, "newest", 3))
    await scene.put("product/c.jsonl", product(1, "late", 2) + product(3, "three", 1))
    batches = await scene.ingest()
    assert [batch.data.hashes for batch in batches] == [None, None, None]
    assert {one.whole_run for batch in batches for one in batch.data.extracts} == {None}
    assert await scene.truth("product") == {(1,): "newest", (2,): "two", (3,): "three"}
    assert await scene.look_up("product", (1,), (2,), (3,), (4,)) == [(4,)]
    await scene.put("product/snapshot/d.jsonl", product(3, "whole", 1))
    (batch,) = await scene.ingest()
    assert batch.data.hashes is not None
    assert await scene.truth("product") == {(3,): "whole"}
    await scene.put("product/e.jsonl", product(1, "later", 1))
    (after,) = await scene.ingest()
    assert [one.whole_run for one in after.data.extracts] == [batch.data.run]
    assert await scene.look_up("product", (1,), (2,), (3,)) == [(2,)]


async def test_a_snapshot_of_increments_with_the_bytes_of_an_increment_is_taken(scene: DeliveredScene) -> None:
    await scene.put("product/a.jsonl", product(1, "one", 1))
    await scene.put("product/b.jsonl", product(2, "two", 1))
    await scene.put("product/snapshot/b.jsonl", product(2, "two", 1))
    await scene.ingest()
    assert await scene.truth("product") == {(2,): "two"}


async def test_an_empty_snapshot_is_not_believed_unless_a_person_says_so(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A))
    await scene.ingest()
    await scene.put("budget/b.csv", budget())
    assert await scene.ingest(Trigger.SCHEDULE) == []
    *_, record = await scene.records()
    assert (record.outcome, record.run) == (Outcome.REFUSED, None)
    assert "`starlift ingest --believe-empty`" in str(record.reason)
    assert await scene.truth() == {KEY_A: 1050}
    assert await scene.look_up("budget", KEY_A, KEY_B) == [KEY_B], "an older question is answered as before"
    (batch,) = await scene.ingest(compare_keys=True, believe_empty=True)
    assert [(one.table, one.counts, one.believe_empty) for one in await scene.hashes(batch)] == [
        ("budget", (0,), True),
        ("product", (0,), True),
    ]
    assert await scene.truth() == {}
    assert await scene.look_up("budget", KEY_A, believe_empty=True) == [KEY_A]


async def test_a_command_that_believes_takes_an_empty_snapshot_that_waits(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A))
    await scene.ingest()
    await scene.put("budget/b.csv", budget())
    await scene.ingest(compare_keys=True, believe_empty=True)
    assert [outcome for _, outcome in await outcomes(scene)] == [Outcome.TAKEN, Outcome.TAKEN]
    assert await scene.truth() == {}


async def test_a_later_delivery_takes_the_place_of_an_empty_snapshot_that_was_not_believed(scene: DeliveredScene) -> None:
    await scene.put("product/a.jsonl", product(1, "one", 1))
    await scene.put("product/snapshot/b.jsonl", b"\n")
    await scene.put("product/z.jsonl", product(2, "two", 1))
    await scene.ingest()
    await scene.ingest(compare_keys=True, believe_empty=True)
    assert await scene.truth("product") == {(1,): "one", (2,): "two"}


async def test_a_snapshot_as_before_takes_the_place_of_an_empty_one_that_was_not_believed(scene: DeliveredScene) -> None:
    for name, body in (("a", budget(A)), ("b", budget()), ("c", budget(A))):
        await scene.put(f"budget/{name}.csv", body)
        await scene.ingest()
    await scene.ingest(compare_keys=True, believe_empty=True)
    assert await scene.truth() == {KEY_A: 1050}


async def test_a_snapshot_with_records_whose_key_can_not_be_read_counts_as_an_increment(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A, B))
    await scene.ingest()
    await scene.put("budget/b.csv", budget(C, "x;2026-01-01;1", "4"))
    (batch,) = await scene.ingest()
    assert batch.data.hashes is None
    assert batch.data.extracts[0].object.row_count == 3, "they are landed, for the quarantine"
    assert await scene.truth() == {KEY_A: 1050, KEY_B: 700, KEY_C: 100}
    *_, record = await scene.records()
    assert (record.records, record.bad) == (1, 2)
    assert "not marked deleted" in str(record.reason)
    await scene.put("budget/c.csv", budget(C, "x;2026-01-01;1", "4"))
    assert len(await scene.ingest()) == 1, "a corrected contract may read it otherwise"


async def test_of_two_records_with_one_key_the_first_counts(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A, B, "1;2026-01-01;99"))
    (batch,) = await scene.ingest()
    assert batch.data.hashes is not None, "no key is unknown"
    assert await scene.truth() == {KEY_A: 1050, KEY_B: 700}


async def test_a_large_file_is_cut_into_batches(scene: DeliveredScene) -> None:
    scene.limits = BatchLimits(rows=7)
    await scene.put("budget/a.csv", budget(*(f"{number};2026-01-01;1" for number in range(50))))
    batches = await scene.ingest()
    assert [sum(one.object.row_count for one in batch.data.extracts) for batch in batches] == [7] * 7 + [1]
    assert len(await scene.truth()) == 50


async def test_rows_that_were_delivered_are_read_again_on_demand(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A, B))
    await scene.ingest()
    await scene.put("budget/b.csv", budget(A, C))
    batches = await scene.ingest(reread=(RowsOf(table="budget", keys=(KEY_A, (9, "2026-01-01"))),))
    assert [batch.data.extracts[0].object.row_count for batch in batches] == [1, 2]


async def test_a_full_run_announces_what_was_delivered_as_a_whole_snapshot(scene: DeliveredScene) -> None:
    await scene.put("product/a.jsonl", product(1, "one", 1) + product(2, "two", 1))
    await scene.put("product/b.jsonl", product(1, "newest", 3))
    await scene.ingest()
    (batch,) = await scene.ingest(mode=Mode.FULL)
    assert [(one.object.row_count, one.whole_run) for one in batch.data.extracts] == [(2, batch.data.run)]
    assert (await scene.checkpoint()).datasets["product"].whole_run == batch.data.run
    assert (await scene.checkpoint()).datasets["budget"].whole_run is None, "nothing of it was delivered"
    assert await scene.truth("product") == {(1,): "newest", (2,): "two"}
    assert await scene.truth() == {}


async def test_a_changed_contract_announces_everything_once(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget(A, B))
    await scene.ingest()
    (fact,) = [table for table in PLANS.warehouse_tables if table.name == "fact_budget"]
    narrower = replace(fact, columns=tuple(column for column in fact.columns if column.name != "amount"))
    others = [table for table in PLANS.warehouse_tables if table is not fact]
    scene.contract = replace(PLANS, warehouse_tables=(*others, narrower), whole=None)
    await scene.put("budget/b.csv", budget(C))
    batches = await scene.ingest(Trigger.SCHEDULE)
    assert [batch.data.extracts[0].object.row_count for batch in batches] == [2, 1]
    assert await scene.ingest(Trigger.SCHEDULE) == []


async def test_rows_that_a_changed_contract_reads_otherwise_wait_for_a_whole_snapshot(scene: DeliveredScene) -> None:
    await scene.put("product/a.jsonl", product(1, "one", 1))
    await scene.ingest()
    (table,) = [table for table in PLANS.source_tables if table.name == "product"]
    finer = tuple(replace(one, type=numeric(12, 4)) if one.name == "price" else one for one in table.columns)
    others = [one for one in PLANS.source_tables if one is not table]
    scene.contract = replace(PLANS, source_tables=(*others, replace(table, columns=finer)))
    await scene.put("product/b.jsonl", product(2, "two", 1))
    await scene.ingest(Trigger.SCHEDULE)
    *_, record = await scene.records("product")
    assert (record.outcome, "deliver a whole snapshot" in str(record.reason)) == (Outcome.REFUSED, True)
    await scene.put("product/snapshot/c.jsonl", product(3, "three", 1))
    assert len(await scene.ingest(Trigger.SCHEDULE)) == 1
    assert await scene.truth("product") == {(3,): "three"}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"product_id": null, "product_name": "\\ud800"}', id="in a record without a key"),
        pytest.param(b'{"product_id": 1, "updated_at": "2026-01-01T00:00:00Z", "\\ud800": 1}', id="in the name of a member"),
    ],
)
async def test_half_a_surrogate_pair_stops_no_run(scene: DeliveredScene, line: bytes) -> None:
    await scene.put("product/a.jsonl", product(2, "ink", 1) + line + b"\n")
    await scene.ingest()
    assert [record.outcome for record in await scene.records("product")] == [Outcome.TAKEN]


async def test_only_some_of_very_many_unknown_columns_are_kept(scene: DeliveredScene) -> None:
    row = product(1, "ink", 1).rstrip()[:-1]
    await scene.put("product/a.jsonl", b"".join(row + f', "c{number}": 1}}\n'.encode() for number in range(1000)))
    with capture_logs() as logs:
        await scene.ingest()
    assert len((await scene.checkpoint()).new_columns["product"]) == NEW_COLUMNS_MAXIMUM
    (told,) = [log["columns"] for log in logs if log["event"] == "new_columns"]
    assert told == (f"{NEW_COLUMNS_MAXIMUM} that `starlift status` lists",), "names of members may be values"
