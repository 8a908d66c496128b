from __future__ import annotations

from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
from structlog.testing import capture_logs

from contracts.column_types import TEXT
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
from contracts.origins import FromSource
from contracts.tables import Column, WarehouseTable
from services.loading.handler import Dependencies, handle
from services.loading.memory_warehouse import MemoryWarehouse
from services.loading.questions import Ask
from shared.codecs import codec_of
from shared.envelope import opening
from shared.errors import PermanentError, ServerBusyError, TransientError
from shared.key_hashes import packed, sums_of, table_hashes
from shared.outcome import Done
from shared.parquet import encode_parquet
from shared.testing import EPOCH, FakeObjectStore, FakeQueue, reference
from tests.fixtures.small_contract import DIM_MAKER, SHOP, with_column, with_table

BUCKET, KEY = "processed", "makers.parquet"
MAKER = SHOP.warehouse_table("dim_maker")
ADA = (1, "Ada", "Leeds")


class BusyWarehouse(MemoryWarehouse):
    """A warehouse that can't finish a run, nor compare keys."""

    error: Exception

    async def finish_run(self, source_name: str, run: int) -> None:  # noqa: ARG002 (the port's)
        raise self.error

    async def compare_keys(self, ask: Ask) -> int:  # noqa: ARG002 (the port's)
        raise self.error


def encoded(table: WarehouseTable, *rows: tuple[object, ...]) -> bytes:
    frame = pd.DataFrame(list(rows), columns=list(table.star_types))
    physical = frame.astype({name: codec_of(kind).frame for name, kind in table.star_types.items()})
    return encode_parquet(physical, table.star_types)


async def message(objects: FakeObjectStore, table: str = "dim_maker", **more: Any) -> BatchRemodelled:
    """A batch of one row of dim_maker, which calls itself a row of `table`."""
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
        **more,
    )
    return BatchRemodelled(**opening("tests"), data=data)


async def test_the_rows_of_a_batch_are_loaded_its_record_is_kept_and_its_run_finished() -> None:
    objects, warehouse = FakeObjectStore(BUCKET), MemoryWarehouse(SHOP)
    batch = await message(objects)
    assert await handle(batch, Dependencies(objects, warehouse, SHOP, FakeQueue())) == Done()
    (row,) = await warehouse.rows(MAKER)
    assert (tuple(row.columns.values()), row.run) == (ADA, 7)
    event = warehouse.ledger[batch.data.batch_id].event
    assert (event.causationid, event.data.tables[0].row_count, event.data.quarantined) == (batch.id, 1, 0)
    assert warehouse.finished_runs == [("shop", 7)]


async def test_of_a_batch_that_is_loaded_already_no_object_is_read() -> None:
    objects = FakeObjectStore(BUCKET)
    deps, batch = Dependencies(objects, MemoryWarehouse(SHOP), SHOP, FakeQueue()), await message(objects)
    await handle(batch, deps)
    objects.buckets[BUCKET].clear()  # long expired
    assert await handle(batch, deps) == Done()


@pytest.mark.parametrize(
    "error", [TransientError("a long load"), ServerBusyError("warehouse", "a lock is held"), PermanentError("no privilege")]
)
async def test_a_load_does_not_fail_because_foreign_keys_and_a_comparison_have_to_wait(error: Exception) -> None:
    objects, warehouse = FakeObjectStore(BUCKET), BusyWarehouse(SHOP)
    warehouse.error = error
    assert await handle(await message(objects), Dependencies(objects, warehouse, SHOP, FakeQueue())) == Done()
    assert len(await warehouse.rows(MAKER)) == 1


async def test_star_rows_of_a_table_that_the_contract_lacks_are_refused_by_name() -> None:
    objects = FakeObjectStore(BUCKET)
    batch = await message(objects, "dim_nothing")
    with pytest.raises(PermanentError, match=r"^star rows 'makers\.parquet' can't be loaded: .* 'dim_nothing'; deploy the"):
        await handle(batch, Dependencies(objects, MemoryWarehouse(SHOP), SHOP, FakeQueue()))


async def test_star_rows_that_lack_a_column_of_the_contract_are_refused_by_name() -> None:
    objects = FakeObjectStore(BUCKET)
    wider = with_table(SHOP, with_column(DIM_MAKER, Column("motto", TEXT, FromSource("maker_name"))))
    with pytest.raises(PermanentError, match=r"^star rows 'makers\.parquet' does not fit contract 'shop': .*motto"):
        await handle(await message(objects), Dependencies(objects, MemoryWarehouse(wider), wider, FakeQueue()))


async def with_hashes(objects: FakeObjectStore, *keys: int) -> BatchRemodelled:
    """A batch of run 7 that brings Ada, and compares `keys` of the source table."""
    hashes = KeyHashes(run=7, taken_at=EPOCH, tables=(table_hashes("maker", sums_of((key,) for key in keys)),))
    body = packed(hashes)
    await objects.put(BUCKET, "hashes", body)
    return await message(objects, hashes=reference(BUCKET, "hashes", body, row_count=len(keys)))


async def test_a_row_of_an_earlier_run_that_the_source_lacks_is_asked_about_by_the_key_of_its_source_table() -> None:
    objects, warehouse, ingestion = FakeObjectStore(BUCKET), MemoryWarehouse(SHOP), FakeQueue("ingestion")
    deps = Dependencies(objects, warehouse, SHOP, ingestion)
    earlier = await message(objects)
    await handle(earlier.model_copy(update={"data": earlier.data.model_copy(update={"run": 3})}), deps)
    later = await with_hashes(objects, 2)
    later = later.model_copy(update={"data": later.data.model_copy(update={"tables": ()})})
    assert await handle(later, deps) == Done()
    (body,) = ingestion.bodies
    question = decode(body)
    assert isinstance(question, LookUpKeys)
    assert question.data == LookUpKeysData(source_name="shop", rows=(RowsOf(table="maker", keys=((1,),)),))
    assert list(warehouse.questions) == [question.id]
    answer = (await message(objects, gone=question.data.rows, answers=question.id)).data
    answer = answer.model_copy(update={"tables": (), "run": 8})
    assert await handle(BatchRemodelled(**opening("tests"), data=answer), deps) == Done()
    assert [row.deleted_at for row in await warehouse.rows(MAKER)] == [EPOCH]
    assert warehouse.questions == {}


async def test_a_batch_whose_hashes_have_expired_is_loaded_without_a_comparison() -> None:
    objects, warehouse = FakeObjectStore(BUCKET), MemoryWarehouse(SHOP)
    batch = await with_hashes(objects, 1)
    del objects.buckets[BUCKET]["hashes"]
    with capture_logs() as logs:
        assert await handle(batch, Dependencies(objects, warehouse, SHOP, FakeQueue())) == Done()
    assert [entry["event"] for entry in logs] == ["keys_not_compared", "batch_loaded"]
    assert len(await warehouse.rows(MAKER)) == 1
