from __future__ import annotations

import asyncio
from typing import cast

import asyncpg
import pytest

from contracts.objects import SourceKeys
from services.operator.progress import Progress, not_in_ledger, read_progress
from shared.errors import TransientError
from shared.object_store import Versioned
from shared.reading import AT_ONCE
from tests.unit.services.operator.scene import LANDING, SOURCE, Scene, ingested, snapshot


async def progress_of(scene: Scene) -> Progress:
    return await read_progress(scene.system, cast("asyncpg.Connection", scene.ledger))


async def test_progress_is_unknown_before_the_first_run() -> None:
    scene = Scene()
    scene.ledger.exists = False
    found = await progress_of(scene)
    assert (found.consistent_through, found.missing, found.checkpoint) == (None, (), None)
    assert found.fresh_as_of is None


async def test_a_run_counts_as_soon_as_every_batch_of_it_is_loaded() -> None:
    scene = Scene()
    manifest = await scene.end_run(7, batches=3)
    scene.ledger.load(*manifest.batches[:2])
    found = await progress_of(scene)
    assert found.consistent_through is None
    assert found.missing == manifest.batches[2:]
    assert found.fresh_as_of is None
    scene.ledger.load(manifest.batches[2])
    found = await progress_of(scene)
    assert found.consistent_through == manifest
    assert found.missing == ()


async def test_a_gap_holds_back_every_later_run() -> None:
    scene = Scene()
    first, second, third = [await scene.end_run(run, second=run) for run in (1, 2, 3)]
    scene.ledger.load(*first.batches, *third.batches)
    found = await progress_of(scene)
    assert found.consistent_through == first
    assert found.missing == second.batches
    assert found.fresh_as_of == snapshot(1).taken_at
    (gap,) = found.gaps
    assert (gap.manifest, gap.since, found.loaded) == (second, first.snapshot.horizon, 3)
    scene.ledger.load(*second.batches)
    found = await progress_of(scene)
    assert (found.consistent_through, found.gaps) == (third, ())


async def test_a_requested_run_that_found_nothing_counts_at_once() -> None:
    scene = Scene()
    manifest = await scene.end_run(7, batches=0)
    assert (await progress_of(scene)).consistent_through == manifest


async def test_an_idle_source_is_fresh_as_of_its_last_checkpoint() -> None:
    scene = Scene()
    manifest = await scene.end_run(7, second=1)
    scene.ledger.load(*manifest.batches)
    await scene.remember(8, second=9)
    found = await progress_of(scene)
    assert found.consistent_through == manifest
    assert found.fresh_as_of == snapshot(9).taken_at


async def test_a_run_that_ends_while_progress_is_read_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    manifest = await scene.end_run(7, second=1)
    scene.ledger.load(*manifest.batches)
    keys = scene.objects.keys

    async def keys_and_then_a_run_ends(bucket: str, prefix: str, *, after: str = "") -> list[str]:
        found = await keys(bucket, prefix, after=after)
        await scene.end_run(8, second=9)
        return found

    monkeypatch.setattr(scene.objects, "keys", keys_and_then_a_run_ends)
    assert (await progress_of(scene)).fresh_as_of == snapshot(1).taken_at


async def test_batches_without_a_manifest_are_void() -> None:
    scene = Scene()
    scene.ledger.load(ingested(6), ingested(8))
    manifest = await scene.end_run(7)
    scene.ledger.load(*manifest.batches)
    assert (await progress_of(scene)).consistent_through == manifest


async def test_the_manifests_after_a_run_are_listed_in_run_order() -> None:
    scene = Scene()
    await scene.end_run(9)
    late, early = await scene.end_run(12), await scene.end_run(10)
    assert await scene.system.store.manifests_after(9) == [early, late]
    assert await scene.system.store.manifests_after(12) == []


async def test_a_manifest_that_vanishes_is_reported() -> None:
    scene = Scene()
    await scene.end_run(7)
    del scene.objects.buckets[LANDING][SourceKeys(SOURCE).manifest(7)]
    scene.objects.keys = lambda *_a, **_k: answered([SourceKeys(SOURCE).manifest(7)])  # type: ignore[method-assign]
    with pytest.raises(TransientError, match="manifest of run 7 vanished"):
        await progress_of(scene)


async def test_manifests_after_a_gap_are_read_concurrently_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    await scene.end_run(1)  # never loaded
    for run in range(2, 41):
        scene.ledger.load(*(await scene.end_run(run)).batches)
    read, at_work, most, seen = scene.objects.read, 0, 0, list[str]()

    async def counting(bucket: str, key: str) -> Versioned | None:
        nonlocal at_work, most
        seen.append(key)
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        return await read(bucket, key)

    monkeypatch.setattr(scene.objects, "read", counting)
    assert len((await progress_of(scene)).missing) == 1
    assert sorted(key for key in seen if "/manifests/" in key) == [SourceKeys(SOURCE).manifest(run) for run in range(1, 41)]
    assert most == AT_ONCE


async def answered(keys: list[str]) -> list[str]:
    return keys


async def test_missing_batches_are_those_absent_from_the_ledger() -> None:
    scene = Scene()
    manifest = await scene.end_run(7, batches=2)
    scene.ledger.load(manifest.batches[1])
    batches = [batch.data.batch_id for batch in manifest.batches]
    assert await not_in_ledger(scene.system, batches) == batches[:1]
    scene.ledger.exists = False
    assert await not_in_ledger(scene.system, batches) == batches


async def test_manifests_up_to_a_known_consistent_run_are_not_read() -> None:
    scene = Scene()
    await scene.end_run(5)  # never loaded: reading it would end the search
    for run in (6, 7):
        scene.ledger.load(*(await scene.end_run(run)).batches)
    progress = await read_progress(scene.system, cast("asyncpg.Connection", scene.ledger), since=6)
    assert progress.consistent_through is not None
    assert (progress.consistent_through.run, progress.missing) == (7, ())
    await scene.end_run(8)
    progress = await read_progress(scene.system, cast("asyncpg.Connection", scene.ledger), since=7)
    assert progress.consistent_through is not None
    assert (progress.consistent_through.run, len(progress.missing)) == (7, 1)
