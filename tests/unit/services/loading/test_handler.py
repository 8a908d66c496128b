from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
from structlog.testing import capture_logs

from contracts.column_types import TEXT
from contracts.contract import Contract
from contracts.key_hashes import KeyHashes
from contracts.messages import (
    BatchRemodelled,
    BatchRemodelledData,
    LookUpKeys,
    LookUpKeysData,
    RowsOf,
    Snapshot,
    StarRows,
    decode,
)
from contracts.objects import ObjectRef
from contracts.origins import FromSource
from contracts.tables import Column, WarehouseTable
from services.loading.handler import Dependencies, handle, keep_comparing_keys
from services.loading.memory_warehouse import MemoryWarehouse
from services.loading.questions import question_id
from services.loading.warehouse import Ask, Warehouse
from shared.codecs import codec_of
from shared.envelope import opening
from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError
from shared.key_hashes import packed, sums_of, table_hashes
from shared.outcome import Done
from shared.parquet import encode_parquet
from shared.source_keys import Key
from shared.testing import EPOCH, FakeObjectStore, FakeQueue, connection_reset, reference
from tests.fixtures.small_contract import DIM_MAKER, SHOP, with_column, with_table

BUCKET, KEY = "processed", "makers.parquet"
MAKER = SHOP.warehouse_table("dim_maker")
ADA = (1, "Ada", "Leeds")


class BusyWarehouse(MemoryWarehouse):
    """A warehouse that can't compare keys, and may not be able to finish a run."""

    error: Exception
    may_finish = True

    async def finish_run(self, source_name: str, run: int) -> None:
        if not self.may_finish:
            raise self.error
        await super().finish_run(source_name, run)

    async def compare_keys(self, ask: Ask) -> int:  # noqa: ARG002 (the port's)
        raise self.error


def dependencies(objects: FakeObjectStore, warehouse: Warehouse, contract: Contract = SHOP) -> Dependencies:
    return Dependencies(objects, warehouse, contract, FakeQueue("ingestion"))


def encoded(table: WarehouseTable, *rows: tuple[object, ...]) -> bytes:
    frame = pd.DataFrame(list(rows), columns=list(table.star_types))
    physical = frame.astype({name: codec_of(kind).frame for name, kind in table.star_types.items()})
    return encode_parquet(physical, table.star_types)


async def message(objects: FakeObjectStore, table: str = "dim_maker", **more: Any) -> BatchRemodelled:
    """A batch of run 7 with one row of dim_maker, labelled as a row of `table`."""
    body = encoded(MAKER, ADA)
    await objects.put(BUCKET, KEY, body)
    data = BatchRemodelledData(
        source_name="shop",
        run=7,
        batch_id=uuid4(),
        index=0,
        is_last=True,
        snapshot=Snapshot(taken_at=EPOCH, horizon=3, wal_position="0/1"),
        tables=(StarRows(table=table, object=reference(BUCKET, KEY, body, row_count=1)),),
    ).model_copy(update=more)
    return BatchRemodelled(**opening("tests"), data=data)


async def test_a_batch_loads_its_rows_records_itself_and_finishes_its_run() -> None:
    objects, warehouse = FakeObjectStore(BUCKET), MemoryWarehouse(SHOP)
    batch = await message(objects)
    assert await handle(batch, dependencies(objects, warehouse)) == Done()
    (row,) = await warehouse.rows(MAKER)
    assert (tuple(row.columns.values()), row.run) == (ADA, 7)
    event = warehouse.ledger[batch.data.batch_id].event
    assert (event.causationid, event.data.tables[0].row_count, event.data.quarantined) == (batch.id, 1, 0)
    assert warehouse.finished_runs == [("shop", 7)]


async def test_no_object_is_read_for_a_batch_that_is_already_loaded() -> None:
    objects = FakeObjectStore(BUCKET)
    deps, batch = dependencies(objects, MemoryWarehouse(SHOP)), await message(objects)
    await handle(batch, deps)
    objects.buckets[BUCKET].clear()  # long expired
    assert await handle(batch, deps) == Done()


@pytest.mark.parametrize(
    "error", [TransientError("a long load"), ServerBusyError("warehouse", "a lock is held"), PermanentError("no privilege")]
)
async def test_a_load_succeeds_while_a_comparison_waits(error: Exception) -> None:
    objects, warehouse = FakeObjectStore(BUCKET), BusyWarehouse(SHOP)
    warehouse.error = error
    with capture_logs() as logs:
        assert await handle(await message(objects), dependencies(objects, warehouse)) == Done()
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["key_comparison_waits"]
    assert len(await warehouse.rows(MAKER)) == 1


async def test_a_message_comes_again_until_its_run_is_finished() -> None:
    """Its rows are there, but without what facts refer to."""
    objects, warehouse = FakeObjectStore(BUCKET), BusyWarehouse(SHOP)
    warehouse.error, warehouse.may_finish = TransientError("a long load"), False
    with pytest.raises(TransientError, match="a long load"):
        await handle(await message(objects), dependencies(objects, warehouse))


async def hashed(objects: FakeObjectStore, *keys: Key, believe_empty: bool = False) -> ObjectRef:
    """A stored object with the hashes of makers."""
    tables = (table_hashes("maker", sums_of(keys), believe_empty=believe_empty),)
    body = packed(KeyHashes(run=8, taken_at=EPOCH, tables=tables))
    await objects.put(BUCKET, "key_hashes", body)
    return reference(BUCKET, "key_hashes", body, row_count=1)


async def test_suspect_keys_are_sent_to_ingestion_under_the_id_of_the_question() -> None:
    objects = FakeObjectStore(BUCKET)
    deps = dependencies(objects, MemoryWarehouse(SHOP))
    await handle(await message(objects), deps)
    batch = await message(objects, run=8, tables=(), hashes=await hashed(objects, believe_empty=True))
    for _ in range(2):
        assert await handle(batch, deps) == Done()
    assert isinstance(deps.ingestion, FakeQueue)
    (sent,) = [decode(one.body) for one in deps.ingestion.sent]
    assert isinstance(sent, LookUpKeys)
    rows = (RowsOf(table="maker", keys=((1,),)),)
    assert sent.data == LookUpKeysData(source_name="shop", rows=rows, believe_empty=True)
    assert (sent.id, sent.causationid) == (question_id(8, "dim_maker", [(1,)]), batch.id)
    assert sent.traceparent.split("-")[1] == batch.traceparent.split("-")[1]  # type: ignore[union-attr]


async def test_deleted_rows_are_marked_and_their_question_is_answered() -> None:
    objects, warehouse = FakeObjectStore(BUCKET), MemoryWarehouse(SHOP)
    deps, answer = dependencies(objects, warehouse), uuid4()
    await handle(await message(objects), deps)
    gone = (RowsOf(table="maker", keys=((1,),)),)
    batch = await message(objects, run=8, tables=(), gone=gone, answers=answer)
    await handle(batch, deps)
    assert [row.deleted_at for row in await warehouse.rows(MAKER)] == [EPOCH]
    assert warehouse.ledger[batch.data.batch_id].answers == answer


async def test_expired_hashes_skip_the_comparison_but_not_the_batch() -> None:
    objects, warehouse = FakeObjectStore(BUCKET), MemoryWarehouse(SHOP)
    lost = await hashed(objects)
    del objects.buckets[BUCKET]["key_hashes"]
    with capture_logs() as logs:
        assert await handle(await message(objects, hashes=lost), dependencies(objects, warehouse)) == Done()
    assert [(entry["log_level"], entry["run"]) for entry in logs if entry["event"] == "keys_not_compared"] == [("warning", 7)]
    assert len(await warehouse.rows(MAKER)) == 1


async def test_a_queue_outage_is_raised_and_the_redelivery_asks_the_question() -> None:
    objects = FakeObjectStore(BUCKET)
    deps = dependencies(objects, MemoryWarehouse(SHOP))
    await handle(await message(objects), deps)
    batch = await message(objects, run=8, tables=(), hashes=await hashed(objects))
    with pytest.raises(DependencyDownError):
        await handle(batch, replace(deps, ingestion=DownQueue("ingestion")))
    assert await handle(batch, deps) == Done()
    assert isinstance(deps.ingestion, FakeQueue)
    assert len(deps.ingestion.sent) == 1


@pytest.mark.virtual_clock
async def test_a_comparison_without_a_later_load_is_made_when_due_and_repeated_if_it_failed() -> None:
    """Run 7 was killed after its first batch; nothing is loaded after the hashes of run 8."""
    clock = asyncio.get_running_loop().time
    objects, warehouse = FakeObjectStore(BUCKET), CountingWarehouse(SHOP)
    warehouse.clock = lambda: EPOCH + timedelta(seconds=clock())
    deps = dependencies(objects, warehouse)
    queue = deps.ingestion
    assert isinstance(queue, FakeQueue)
    await handle(await message(objects, is_last=False), deps)
    await asyncio.sleep(60)
    await handle(await message(objects, run=8, tables=(), hashes=await hashed(objects)), deps)
    warehouse.looks = 0
    looking = asyncio.create_task(keep_comparing_keys(deps))
    await asyncio.sleep(4 * 60 - 1)
    assert (queue.sent, warehouse.looks) == ([], 0)
    queue.faults.add("send", connection_reset())
    with capture_logs() as logs:
        await asyncio.sleep(2 * 60)
    assert [entry["event"] for entry in logs] == ["key_comparison_waits"]
    await asyncio.sleep(5 * 60)
    (sent,) = [decode(one.body) for one in queue.sent]
    assert isinstance(sent, LookUpKeys)
    assert (sent.id, sent.data.source_name, sent.causationid) == (question_id(8, "dim_maker", [(1,)]), "shop", None)
    await asyncio.sleep(60 * 60)
    assert (len(queue.sent), warehouse.looks) == (1, 14)
    looking.cancel()


class CountingWarehouse(MemoryWarehouse):
    """Counts how often it is asked to compare keys."""

    looks = 0

    async def compare_keys(self, ask: Ask) -> int:
        self.looks += 1
        return await super().compare_keys(ask)


class DownQueue(FakeQueue):
    async def send(self, body: str, **options: Any) -> str:  # noqa: ARG002 (the port's)
        raise DependencyDownError("sqs", "no route to host")


async def test_star_rows_of_a_table_that_the_contract_lacks_are_refused_by_name() -> None:
    objects = FakeObjectStore(BUCKET)
    batch = await message(objects, "dim_nothing")
    with pytest.raises(PermanentError, match=r"^star rows 'makers\.parquet' can't be loaded: .* 'dim_nothing'; deploy the"):
        await handle(batch, dependencies(objects, MemoryWarehouse(SHOP)))


async def test_star_rows_that_lack_a_column_of_the_contract_are_refused_by_name() -> None:
    objects = FakeObjectStore(BUCKET)
    wider = with_table(SHOP, with_column(DIM_MAKER, Column("motto", TEXT, FromSource("maker_name"))))
    with pytest.raises(PermanentError, match=r"^star rows 'makers\.parquet' does not fit contract 'shop': .*motto"):
        await handle(await message(objects), dependencies(objects, MemoryWarehouse(wider), wider))
