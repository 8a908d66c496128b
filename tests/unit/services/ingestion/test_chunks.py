"""A run whose large table is read by several tasks, on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from contracts.messages import ExtractChunk, decode, encode
from contracts.objects import SourceKeys
from contracts.state import Manifest
from services.ingestion import chunks as chunks_module
from services.ingestion.handler import OTHER_CONTRACT_DELAY, Dependencies, handle, handle_chunk
from services.ingestion.memory_source import ROW_BYTES, MemorySource
from services.ingestion.source import BatchLimits, OpenSnapshot
from shared.errors import PermanentError, TransientError
from shared.outcome import Defer, Done
from shared.testing import FakeObjectStore, FakeQueue
from tests.fixtures.applications import AN_ITEM, CONTRACT, item
from tests.fixtures.sharing import tasks
from tests.unit.services.ingestion.scene import ITEMS, SOURCE, announced, dependencies, filled_source, request, rows

pytestmark = pytest.mark.virtual_clock


@pytest.fixture(autouse=True)
def a_few_batches_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few rows are shared."""
    monkeypatch.setattr(chunks_module, "LARGE", 5)


@pytest.fixture
def source() -> MemorySource:
    return filled_source()


@pytest.fixture
def deps(source: MemorySource) -> Dependencies:
    return dependencies(source)


def commands(deps: Dependencies) -> list[ExtractChunk]:
    assert isinstance(deps.chunks, FakeQueue)
    found = [decode(message.body) for message in deps.chunks.sent]
    return [message for message in found if isinstance(message, ExtractChunk)]


def manifest(deps: Dependencies) -> Manifest:
    assert isinstance(deps.store.objects, FakeObjectStore)
    landing = deps.store.objects.buckets["landing"]
    (key,) = (key for key in landing if key.startswith(SourceKeys(SOURCE).manifests))
    return Manifest.model_validate_json(landing[key])


def requires_whole_run(deps: Dependencies) -> None:
    """Every row is in one batch of the manifest, all of which are announced, without a hole; the last one closes the run."""
    batches, seen = list(manifest(deps).batches), {batch.data.batch_id for batch in announced(deps)}
    assert [batch.data.index for batch in batches] == list(range(len(batches)))
    assert [batch.data.is_last for batch in batches] == [*[False] * (len(batches) - 1), True]
    assert {batch.data.batch_id for batch in batches} == seen
    assert {table: rows(batches, table) for table in ("maker", "item", "shelf")} == {"maker": 2, "item": ITEMS, "shelf": 1}
    assert len({(batch.data.run, batch.data.snapshot) for batch in batches}) == 1


@pytest.mark.parametrize("number", [0, 1, 2, 4])
async def test_a_large_table_is_read_by_any_number_of_tasks(deps: Dependencies, number: int) -> None:
    async with tasks(number, deps):
        assert await handle(request(), deps) == Done()
    assert {command.data.table for command in commands(deps)} == {"item"}
    assert len(commands(deps)) == 12
    requires_whole_run(deps)


async def test_a_small_load_is_not_shared(deps: Dependencies, source: MemorySource) -> None:
    with source.transaction() as writes:
        writes.delete("item", *((number,) for number in range(21, ITEMS + 1)))
    await handle(request(), deps)
    assert commands(deps) == []


async def test_changes_are_not_shared(deps: Dependencies, source: MemorySource) -> None:
    async with tasks(1, deps):
        await handle(request(), deps)
        before = len(commands(deps))
        with source.transaction() as writes:
            writes.put("item", *(item(number, 2, "changed") for number in range(1, ITEMS + 1)))
        await handle(request(), deps)
    assert len(commands(deps)) == before


async def test_what_does_not_fit_into_a_batch_is_a_command_of_its_own(deps: Dependencies) -> None:
    """With their partners, two rows fill a batch."""
    deps = replace(deps, limits=BatchLimits(rows=4, byte_count=4 * ROW_BYTES))
    async with tasks(2, deps):
        await handle(request(), deps)
    assert len(commands(deps)) > 12
    requires_whole_run(deps)


async def test_a_command_that_is_delivered_again_has_the_same_batch(deps: Dependencies) -> None:
    async with tasks(1, deps):
        await handle(request(), deps)
    before, count = {batch.data.batch_id: batch for batch in announced(deps)}, len(announced(deps))
    for command in commands(deps):
        assert await handle_chunk(command, replace(deps, limits=BatchLimits(rows=1))) == Done()
    assert len(announced(deps)) == count + len(commands(deps))
    assert all(before[batch.data.batch_id] == batch for batch in announced(deps))
    requires_whole_run(deps)


async def test_a_task_that_dies_between_record_and_announcement_leaves_it_to_the_redelivery(deps: Dependencies) -> None:
    run = asyncio.create_task(handle(request(), deps))
    await asyncio.sleep(1)
    (first, *_) = commands(deps)
    outlet = FakeQueue("remodelling")
    outlet.faults.add("send", TransientError("the task dies here"))
    with pytest.raises(TransientError):
        await handle_chunk(first, replace(deps, remodelling=outlet))
    chunk = await deps.store.find_chunk(first.data.run, first.data.index)
    assert chunk is not None
    assert chunk.batch not in announced(deps)
    await run
    assert chunk.batch in manifest(deps).batches
    assert await handle_chunk(first, deps) == Done()  # the run has ended meanwhile
    assert chunk.batch in announced(deps)
    requires_whole_run(deps)


async def test_of_two_tasks_that_cut_a_chunk_differently_the_first_record_counts(deps: Dependencies) -> None:
    deps = replace(deps, limits=BatchLimits(rows=4, byte_count=8 * ROW_BYTES))
    smaller = replace(deps, limits=BatchLimits(rows=2, byte_count=4 * ROW_BYTES))
    async with tasks(2, deps), tasks(2, smaller):
        await handle(request(), deps)
    requires_whole_run(deps)


async def test_a_chunk_of_a_run_that_has_ended_is_dropped(deps: Dependencies, source: MemorySource) -> None:
    run = asyncio.create_task(handle(request(), deps))
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    (first, *_) = commands(deps)
    assert await handle_chunk(first, deps) == Done()
    with source.transaction() as writes:
        writes.put("item", item(1, 1, "changed"))
    async with source.open_snapshot() as snapshot:  # another run's, by the same name
        same_name = first.data.model_copy(update={"exported": await snapshot.export()})
        assert await handle_chunk(first.model_copy(update={"data": same_name}), deps) == Done()
    assert all(rows([batch], "item") == 0 for batch in announced(deps))


async def test_a_task_with_another_contract_leaves_the_chunk_to_others(deps: Dependencies, source: MemorySource) -> None:
    newer = replace(deps, source=OtherContract(source))
    run = asyncio.create_task(handle(request(), deps))
    await asyncio.sleep(1)
    (first, *_) = commands(deps)
    outcome = await handle_chunk(first, newer)
    assert isinstance(outcome, Defer)
    assert outcome.delay == OTHER_CONTRACT_DELAY
    await run
    requires_whole_run(deps)


@dataclass
class OtherContract:
    source: MemorySource

    def open_snapshot(self, request: Any = None) -> Any:
        raise NotImplementedError

    @asynccontextmanager
    async def join_snapshot(self, exported: str) -> AsyncIterator[OpenSnapshot]:
        async with self.source.join_snapshot(exported) as snapshot:
            contract = replace(CONTRACT, warehouse_tables=(replace(AN_ITEM, name="dim_thing"),))
            yield replace(snapshot, contract=contract)


async def test_a_chunk_of_another_source_is_refused(deps: Dependencies) -> None:
    run = asyncio.create_task(handle(request(), deps))
    await asyncio.sleep(1)
    (first, *_) = commands(deps)
    elsewhere = replace(deps, store=replace(deps.store, source="crm"))
    with pytest.raises(PermanentError, match=r"^this service ingests 'crm', not 'shop'; correct the command$"):
        await handle_chunk(decode(encode(first)), elsewhere)
    with pytest.raises(PermanentError, match=r"^this queue carries starlift.extract_chunk, not 'starlift.ingest_source.v2'"):
        await handle_chunk(request(), deps)
    await run
