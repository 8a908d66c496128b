"""Which batches are written as bundles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Role, Trigger, decode
from services.ingestion.handler import Dependencies, handle
from services.ingestion.memory_source import MemorySource
from services.ingestion.source import BatchLimits
from shared.envelope import opening
from shared.outcome import Done
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore, FakeQueue, loop_now
from tests.fixtures.applications import CONTRACT, item, maker

pytestmark = pytest.mark.virtual_clock


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource(CONTRACT, loop_now)
    with source.transaction() as writes:
        writes.put("maker", maker(1), maker(2))
        writes.put("item", *(item(number, 1 + number % 2) for number in range(1, 6)))
    return source


@pytest.fixture
def deps(source: MemorySource) -> Dependencies:
    store = SourceStore(FakeObjectStore("landing"), "shop", "landing", "processed")
    return Dependencies(source, store, FakeQueue("remodelling"), compare_keys_every=0, now=loop_now)


async def run(deps: Dependencies) -> BatchIngested:
    """The only batch of a run."""
    outlet = FakeQueue("remodelling")
    data = IngestSourceData(source_name="shop", trigger=Trigger.OPERATOR)
    assert await handle(IngestSource(**opening("tests"), data=data), replace(deps, remodelling=outlet)) == Done()
    (body,) = outlet.bodies
    batch = decode(body)
    assert isinstance(batch, BatchIngested)
    return batch


async def test_a_small_batch_is_one_object(deps: Dependencies, source: MemorySource) -> None:
    batch = await run(deps)
    assert {(one.table, one.role): one.object.row_count for one in batch.data.extracts} == {
        ("maker", Role.BASE): 2,
        ("item", Role.BASE): 5,
        ("maker", Role.PARTNER): 2,
    }
    assert len({extract.object.key for extract in batch.data.extracts}) == 1
    with source.transaction() as writes:
        writes.put("item", item(1, 2), item(2, 1))
    batch = await run(replace(deps, limits=BatchLimits(bundle_rows=1)))
    assert {extract.object.key.partition(".")[2][:4] for extract in batch.data.extracts} == {"base", "part"}


@pytest.mark.parametrize("limits", [BatchLimits(bundle_rows=3), BatchLimits(bundle_bytes=100)], ids=["rows", "bytes"])
async def test_a_larger_batch_has_an_object_for_each_table(deps: Dependencies, limits: BatchLimits) -> None:
    batch = await run(replace(deps, limits=limits))
    objects = [extract.object for extract in batch.data.extracts]
    assert len({one.key for one in objects}) == len(objects) == 3
    assert all(one.key.endswith(".parquet") for one in objects)
