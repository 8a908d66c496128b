"""A run on fakes: what it writes, announces and leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Role, Trigger, decode
from services.ingestion.handler import Dependencies, handle
from services.ingestion.memory_source import MemorySource
from services.ingestion.source import BatchLimits
from shared.envelope import opening
from shared.errors import TransientError
from shared.source_keys import unpacked_keys
from shared.outcome import Done
from shared.source_store import SourceStore
from shared.testing import FakeObjectStore, FakeQueue, loop_now
from tests.fixtures.applications import CONTRACT, item, maker

pytestmark = pytest.mark.virtual_clock
SOURCE = "shop"


@pytest.fixture
def source() -> MemorySource:
    source = MemorySource(CONTRACT, loop_now)
    with source.transaction() as writes:
        writes.put("maker", maker(1), maker(2))
        writes.put("item", *(item(number, 1 + number % 2) for number in range(1, 6)))
        writes.put("shelf", {"row": 1, "label": "a", "width": 3})
    return source


@pytest.fixture
def deps(source: MemorySource) -> Dependencies:
    store = SourceStore(FakeObjectStore("landing"), SOURCE, "landing", "processed")
    return Dependencies(source, store, FakeQueue("remodelling"), compare_keys_every=0, now=loop_now)


async def run(deps: Dependencies, **wish: Any) -> list[BatchIngested]:
    """What one run announces."""
    outlet = FakeQueue("remodelling")
    data = IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR, **wish)
    assert await handle(IngestSource(**opening("tests"), data=data), replace(deps, remodelling=outlet)) == Done()
    announced = [decode(body) for body in outlet.bodies]
    return [message for message in announced if isinstance(message, BatchIngested)]


def rows_by_batch(batches: list[BatchIngested], table: str, role: Role = Role.BASE) -> list[int]:
    return [
        sum(one.object.row_count for one in batch.data.extracts if (one.table, one.role) == (table, role)) for batch in batches
    ]


async def test_the_last_batch_of_a_run_says_so_and_carries_the_key_lists(deps: Dependencies) -> None:
    batches = await run(replace(deps, limits=BatchLimits(rows=3)))
    assert [batch.data.index for batch in batches] == list(range(len(batches)))
    assert [batch.data.is_last for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert [[keys.table for keys in batch.data.keys] for batch in batches][-1] == ["item", "shelf"]
    assert not any(batch.data.keys for batch in batches[:-1])


async def test_batches_stay_within_the_limit_of_rows_unless_one_row_and_its_partner_exceed_it(deps: Dependencies) -> None:
    batches = await run(replace(deps, limits=BatchLimits(rows=3)))
    assert sum(rows_by_batch(batches, "item")) == 5
    pairs = await run(replace(deps, limits=BatchLimits(rows=1)), mode="full")
    items = [count for count in rows_by_batch(pairs, "item") if count]
    assert items == [1] * 5
    assert [count for count in rows_by_batch(pairs, "maker", Role.PARTNER) if count] == [1] * 5


async def test_key_lists_that_do_not_fit_follow_in_batches_of_their_own(deps: Dependencies) -> None:
    batches = await run(replace(deps, limits=BatchLimits(objects=1)))
    assert [keys.table for batch in batches for keys in batch.data.keys] == ["item", "shelf"]
    assert [len(batch.data.extracts) + len(batch.data.keys) for batch in batches if batch.data.keys] == [1, 1]
    assert [batch.data.is_last for batch in batches] == [False] * (len(batches) - 1) + [True]


async def test_a_key_list_is_cut_into_objects_between_two_keys(deps: Dependencies) -> None:
    (batch,) = await run(replace(deps, limits=BatchLimits(key_list_bytes=8)))
    (items,) = [keys for keys in batch.data.keys if keys.table == "item"]
    parts = [unpacked_keys(await deps.store.objects.get(part)) for part in items.objects]
    assert len(parts) > 1
    assert [key for part in parts for key in part] == [(number,) for number in range(1, 6)]
    assert [part.row_count for part in items.objects] == [len(part) for part in parts]


async def test_an_empty_table_has_no_key_list_until_it_is_believed_and_is_reported_once(
    deps: Dependencies, source: MemorySource
) -> None:
    await run(deps)
    with source.transaction() as writes:
        writes.delete("shelf", (1, "a"))
    with capture_logs() as logs:
        (unbelieved,) = await run(deps, compare_keys=True)
        await run(deps, compare_keys=True)
    assert [keys.table for keys in unbelieved.data.keys] == ["item"]
    assert [entry["table"] for entry in logs if entry["event"] == "empty_table_not_compared"] == ["shelf"]
    (believed,) = await run(deps, compare_keys=True, believe_empty=True)
    assert {keys.table: len(keys.objects) for keys in believed.data.keys} == {"item": 1, "shelf": 0}


async def test_the_manifest_lists_what_was_announced_and_is_written_before_the_state(deps: Dependencies) -> None:
    batches = await run(deps)
    number = batches[0].data.run
    manifest = await deps.store.find_manifest(number)
    assert manifest is not None
    assert list(manifest.batches) == batches
    assert (manifest.is_full, manifest.trigger) == (True, Trigger.OPERATOR)
    assert isinstance(deps.store.objects, FakeObjectStore)
    deps.store.objects.faults.add("put", TransientError("S3 is busy"))
    with pytest.raises(TransientError, match="S3 is busy"):
        await run(deps)
    assert await deps.store.manifest_runs(after=0) == [number]
    checkpoint = await deps.store.find_checkpoint()
    assert checkpoint is not None
    assert checkpoint.run == number
