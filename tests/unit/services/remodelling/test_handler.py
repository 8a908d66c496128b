from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from contracts.datasets import Dataset, Format, RecordForm
from contracts.messages import BatchIngested, BatchIngestedData, BatchRemodelled, Extract, Role, Snapshot, decode
from services.remodelling.handler import Dependencies, handle
from shared.bundles import encode_bundle
from shared.envelope import opening
from shared.parquet import encode_parquet
from shared.testing import EPOCH, FakeObjectStore, FakeQueue, reference
from tests.fixtures.small_contract import SHELF, SHOP
from tests.fixtures.source_rows import frame

WHOLE_RUN = 6
ROWS = frame(SHELF, [{"row": 1, "label": "a", "width": 60}])
DELIVERED = replace(
    SHOP,
    source_tables=tuple(
        replace(table, dataset=Dataset(RecordForm(Format.CSV))) if table == SHELF else table for table in SHOP.source_tables
    ),
    whole=SHOP,  # as a part of a contract, which is not checked: whether a table is a data set is all that counts here
)


async def remodelled(extract: Extract, body: bytes, deps: Dependencies) -> BatchRemodelled:
    """What remodelling announces of a batch of this extract."""
    await deps.objects.put("landing", extract.object.key, body)
    data = BatchIngestedData(
        source_name="shop",
        run=7,
        batch_id=uuid4(),
        index=0,
        is_last=True,
        snapshot=Snapshot(taken_at=EPOCH, horizon=3, wal_position="0/0"),
        extracts=(extract,),
    )
    await handle(BatchIngested(**opening("tests"), data=data), deps)
    assert isinstance(deps.loading, FakeQueue)
    event = decode(deps.loading.sent[-1].body)
    assert isinstance(event, BatchRemodelled)
    return event


async def test_the_whole_run_and_the_hashes_of_a_data_set_are_passed_on_and_those_of_a_table_are_not() -> None:
    objects = FakeObjectStore("landing", "processed")
    delivered = Dependencies(objects, FakeQueue(), DELIVERED, "processed")
    for key, body in (
        ("x/shelf.base-0123456789abcdef.parquet", encode_parquet(ROWS, SHELF.extract_types)),
        ("x/bundle-0123456789abcdef.json.gz", encode_bundle([("shelf.base", ROWS, SHELF.extract_types, ())])),
    ):
        landed = reference("landing", key, body, row_count=1)
        extract = Extract(table="shelf", role=Role.BASE, object=landed, whole_run=WHOLE_RUN)
        event = await remodelled(extract, body, delivered)
        assert [(rows.table, rows.whole_run) for rows in event.data.tables] == [("dim_shelf", WHOLE_RUN)]
        assert event.data.landed == (landed.sha256,)

        table = Extract(table="shelf", role=Role.BASE, object=landed)
        event = await remodelled(table, body, Dependencies(objects, FakeQueue(), SHOP, "processed"))
        assert [rows.whole_run for rows in event.data.tables] == [None]
        assert event.data.landed == ()
