"""A first load that goes on after its run was killed, on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.key_hashes import KeyHashes
from contracts.messages import BatchIngested, BatchIngestedData, KeyRange, Mode, Snapshot
from contracts.objects import SourceKeys
from contracts.state import Chunk, Manifest, SourceState
from services.ingestion import chunks as chunks_module
from services.ingestion.handler import Dependencies, handle
from services.ingestion.memory_source import IDENTITY, MemorySource
from services.ingestion.resume import missing_ranges
from shared.envelope import opening
from shared.key_hashes import unpacked
from shared.outcome import Done
from shared.source_facts import SourceTableFacts
from shared.testing import EPOCH, FakeObjectStore
from tests.fixtures.applications import item
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


def again(deps: Dependencies) -> Dependencies:
    """The same installation, with queues that a test has not looked at."""
    assert isinstance(deps.source, MemorySource)
    return dependencies(deps.source, deps.store)


async def killed(deps: Dependencies, after: int) -> int:
    """Begin a run, and kill it when so many chunks are recorded; return its number."""
    run = asyncio.create_task(handle(request(), deps))
    async with tasks(1, deps):
        while True:
            await asyncio.sleep(0.01)
            state, _ = await deps.store.read_state()
            if len(await deps.store.chunks_of(state.run)) >= after:
                break
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    return state.run


def manifests(deps: Dependencies) -> list[Manifest]:
    assert isinstance(deps.store.objects, FakeObjectStore)
    landing = deps.store.objects.buckets["landing"]
    return [
        Manifest.model_validate_json(landing[key]) for key in sorted(landing) if key.startswith(SourceKeys(SOURCE).manifests)
    ]


async def state_of(deps: Dependencies) -> SourceState:
    return (await deps.store.read_state())[0]


async def test_a_run_reads_only_what_the_killed_one_has_not_recorded(deps: Dependencies) -> None:
    first = await killed(deps, 5)
    recorded = await deps.store.chunks_of(first)
    deps = again(deps)
    async with tasks(2, deps):
        assert await handle(request(), deps) == Done()
    part, whole = manifests(deps)
    assert (part.run, part.is_part, part.is_full, len(part.batches)) == (first, True, False, len(recorded))
    assert (whole.is_part, whole.is_full, [one.data.index for one in whole.batches]) == (
        False,
        False,
        [*range(len(whole.batches))],
    )
    there, read = rows(list(part.batches), "item"), rows(list(whole.batches), "item")
    assert there == sum(rows([chunk.batch], "item") for chunk in recorded) > 0
    assert there + read == ITEMS
    assert (rows(list(whole.batches), "maker"), rows(list(whole.batches), "shelf")) == (2, 1)
    assert (await state_of(deps)).load is None


async def test_what_changed_since_the_first_snapshot_is_read_again_and_deleted_rows_are_compared(
    deps: Dependencies, source: MemorySource
) -> None:
    first = await killed(deps, 12)
    with source.transaction() as writes:
        writes.put("item", item(1, 2, "changed"), item(100, 1, "new"))
        writes.delete("item", (2,))
        writes.delete("maker", (2,))
    deps = again(deps)
    await handle(request(), deps)
    part, whole = manifests(deps)
    assert rows(list(part.batches), "item") == ITEMS
    # Those that refer to the maker that is gone, the changed one among them, and the new one.
    assert rows(list(whole.batches), "item") == len({*range(1, ITEMS + 1, 2), 100})
    (ref,) = [batch.data.hashes for batch in whole.batches if batch.data.hashes]
    hashes = unpacked(KeyHashes, await deps.store.objects.get(ref))
    assert {one.table: sum(one.counts) for one in hashes.tables}["item"] == len(range(4, ITEMS + 1, 2))
    checkpoint = (await state_of(deps)).checkpoint
    assert checkpoint is not None
    assert (checkpoint.run, checkpoint.snapshot, checkpoint.runs_since_key_comparison) == (whole.run, whole.snapshot, 0)
    assert whole.snapshot.horizon > part.snapshot.horizon
    assert part.run == first


async def test_a_load_goes_on_after_any_number_of_kills(deps: Dependencies) -> None:
    first = await killed(deps, 3)
    deps = again(deps)
    second = await killed(deps, 4)
    deps = again(deps)
    async with tasks(1, deps):
        await handle(request(), deps)
    parts = manifests(deps)
    assert [(one.run, one.is_part) for one in parts[:2]] == [(first, True), (second, True)]
    assert sum(rows(list(one.batches), "item") for one in parts) == ITEMS
    assert len(parts) == 3


def another_cluster(source: MemorySource) -> None:
    source.identity = IDENTITY.model_copy(update={"timeline": 2})


def another_definition(source: MemorySource) -> None:
    source.tables["shelf"] = SourceTableFacts("altered", 100)


@pytest.mark.parametrize("change", [another_cluster, another_definition])
async def test_a_load_begins_anew_if_its_horizon_means_nothing_any_more(
    deps: Dependencies, source: MemorySource, change: Callable[[MemorySource], None]
) -> None:
    await killed(deps, 5)
    change(source)
    deps = again(deps)
    async with tasks(1, deps):
        await handle(request(), deps)
    (whole,) = manifests(deps)
    assert (whole.is_full, rows(list(whole.batches), "item")) == (True, ITEMS)


async def test_a_load_begins_anew_if_a_full_run_is_asked_for(deps: Dependencies) -> None:
    await killed(deps, 5)
    deps = again(deps)
    async with tasks(1, deps):
        await handle(request(mode=Mode.FULL), deps)
    (whole,) = manifests(deps)
    assert (whole.is_full, rows(list(whole.batches), "item")) == (True, ITEMS)


async def test_a_load_without_a_recorded_chunk_starts_over(deps: Dependencies) -> None:
    """To read what has changed since its snapshot as well would only cost another scan of every table."""
    run = asyncio.create_task(handle(request(), deps))
    while (await state_of(deps)).load is None:  # noqa: ASYNC110 (an object store has no event for that)
        await asyncio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    deps = again(deps)
    async with tasks(1, deps):
        await handle(request(), deps)
    (whole,) = manifests(deps)
    assert (whole.is_full, rows(list(whole.batches), "item")) == (True, ITEMS)


async def test_a_load_goes_on_without_a_queue_for_chunks(deps: Dependencies) -> None:
    await killed(deps, 5)
    deps = replace(again(deps), chunks=None)
    await handle(request(), deps)
    part, whole = manifests(deps)
    assert rows(list(part.batches), "item") + rows(list(whole.batches), "item") == ITEMS
    assert len({batch.data.batch_id for batch in announced(deps)}) == len(whole.batches)


def chunk(number: int, rows: KeyRange, within: KeyRange) -> Chunk:
    data = BatchIngestedData(
        source_name=SOURCE,
        run=1,
        batch_id=UUID(int=number),
        index=number,
        is_last=False,
        snapshot=Snapshot(taken_at=EPOCH, horizon=3, wal_position="0/0"),
        extracts=(),
    )
    return Chunk(table="item", rows=rows, within=within, is_whole=True, batch=BatchIngested(**opening("tests"), data=data))


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_what_is_missing_is_what_no_chunk_of_any_run_has(random: Random, runs: int) -> None:
    """Keys are 1 to 30; each run cuts what is missing, and some of it twice, because it did not fit."""
    missing, read = [KeyRange()], set[int]()

    def keys(one: KeyRange) -> set[int]:
        low, high = one.after[0] if one.after else 0, one.until[0] if one.until else 30
        return set(range(int(low) + 1, int(high) + 1))

    recorded = list[list[Chunk]]()
    for _ in range(runs):
        chunks, rests = list[Chunk](), list[tuple[KeyRange, KeyRange]]()
        for within in missing:
            cuts = sorted(random.sample(sorted(keys(within) - {30}), min(4, len(keys(within) - {30}))))
            cuts = [cut for cut in cuts if (cut,) != within.until]
            edges = [within.after, *((cut,) for cut in cuts), within.until]
            for after, until in pairwise(edges):
                part, inside = KeyRange(after=after, until=until), sorted(keys(KeyRange(after=after, until=until)))
                if random.random() < 0.5:
                    continue
                if len(inside) > 2 and random.random() < 0.5:
                    rests.append((KeyRange(after=(inside[0],), until=until), within))
                    part = KeyRange(after=after, until=(inside[0],))
                chunks.append(chunk(len(chunks), part, within))
        chunks += [
            chunk(len(chunks) + place, rest, within) for place, (rest, within) in enumerate(rests) if random.random() < 0.7
        ]
        read |= {key for one in chunks for key in keys(one.rows)}
        recorded.append(chunks)
        missing = list(missing_ranges(["item"], recorded)["item"])
        assert sorted(key for one in missing for key in keys(one)) == sorted(set(range(1, 31)) - read)
