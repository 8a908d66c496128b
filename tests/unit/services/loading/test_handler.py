from __future__ import annotations

from uuid import uuid4

import pandas as pd
import pytest

from contracts.column_types import TEXT
from contracts.messages import BatchRemodelled, BatchRemodelledData, Snapshot, StarRows
from contracts.origins import FromSource
from contracts.tables import Column, WarehouseTable
from services.loading.handler import Dependencies, handle
from services.loading.memory_warehouse import MemoryWarehouse
from shared.codecs import codec_of
from shared.envelope import opening
from shared.errors import PermanentError, ServerBusyError, TransientError
from shared.outcome import Done
from shared.parquet import encode_parquet
from shared.testing import EPOCH, FakeObjectStore, reference
from tests.fixtures.small_contract import DIM_MAKER, SHOP, with_column, with_table

BUCKET, KEY = "processed", "makers.parquet"
MAKER = SHOP.warehouse_table("dim_maker")
ADA = (1, "Ada", "Leeds")


class BusyWarehouse(MemoryWarehouse):
    """A warehouse that can't finish a run."""

    error: Exception

    async def finish_run(self, source_name: str, run: int) -> None:  # noqa: ARG002 (the port's)
        raise self.error


def encoded(table: WarehouseTable, *rows: tuple[object, ...]) -> bytes:
    frame = pd.DataFrame(list(rows), columns=list(table.star_types))
    physical = frame.astype({name: codec_of(kind).frame for name, kind in table.star_types.items()})
    return encode_parquet(physical, table.star_types)


async def message(objects: FakeObjectStore, table: str = "dim_maker") -> BatchRemodelled:
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
        keys=(),
    )
    return BatchRemodelled(**opening("tests"), data=data)


async def test_the_rows_of_a_batch_are_loaded_its_record_is_kept_and_its_run_finished() -> None:
    objects, warehouse = FakeObjectStore(BUCKET), MemoryWarehouse(SHOP)
    batch = await message(objects)
    assert await handle(batch, Dependencies(objects, warehouse, SHOP)) == Done()
    (row,) = await warehouse.rows(MAKER)
    assert (tuple(row.columns.values()), row.run) == (ADA, 7)
    event = warehouse.ledger[batch.data.batch_id].event
    assert (event.causationid, event.data.tables[0].row_count, event.data.quarantined) == (batch.id, 1, 0)
    assert warehouse.finished_runs == [("shop", 7)]


async def test_of_a_batch_that_is_loaded_already_no_object_is_read() -> None:
    objects = FakeObjectStore(BUCKET)
    deps, batch = Dependencies(objects, MemoryWarehouse(SHOP), SHOP), await message(objects)
    await handle(batch, deps)
    objects.buckets[BUCKET].clear()  # long expired
    assert await handle(batch, deps) == Done()


@pytest.mark.parametrize(
    "error", [TransientError("a long load"), ServerBusyError("warehouse", "a lock is held"), PermanentError("no privilege")]
)
async def test_a_load_does_not_fail_because_foreign_keys_have_to_wait(error: Exception) -> None:
    objects, warehouse = FakeObjectStore(BUCKET), BusyWarehouse(SHOP)
    warehouse.error = error
    assert await handle(await message(objects), Dependencies(objects, warehouse, SHOP)) == Done()
    assert len(await warehouse.rows(MAKER)) == 1


async def test_star_rows_of_a_table_that_the_contract_lacks_are_refused_by_name() -> None:
    objects = FakeObjectStore(BUCKET)
    batch = await message(objects, "dim_nothing")
    with pytest.raises(PermanentError, match=r"^star rows 'makers\.parquet' can't be loaded: .* 'dim_nothing'; deploy the"):
        await handle(batch, Dependencies(objects, MemoryWarehouse(SHOP), SHOP))


async def test_star_rows_that_lack_a_column_of_the_contract_are_refused_by_name() -> None:
    objects = FakeObjectStore(BUCKET)
    wider = with_table(SHOP, with_column(DIM_MAKER, Column("motto", TEXT, FromSource("maker_name"))))
    with pytest.raises(PermanentError, match=r"^star rows 'makers\.parquet' does not fit contract 'shop': .*motto"):
        await handle(await message(objects), Dependencies(objects, MemoryWarehouse(wider), wider))
