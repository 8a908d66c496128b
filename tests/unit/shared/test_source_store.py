"""The objects kept for a source, on an object store in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from contracts.messages import Snapshot
from contracts.state import Checkpoint, Manifest, SourceIdentity, SourceState
from shared.errors import TransientError
from shared.object_store import ConflictError
from shared.source_store import SourceStore
from shared.stored_documents import DamagedDocumentError
from shared.testing import FakeObjectStore

AT = datetime(2026, 11, 1, tzinfo=UTC)
IDENTITY = SourceIdentity(system_identifier=1, timeline=1, database_oid=1, statistics_reset="")


def position(horizon: int = 1000, wal_position: str = "0/1") -> Snapshot:
    return Snapshot(taken_at=AT, horizon=horizon, wal_position=wal_position)


def manifest(run: int, source: str = "shop") -> Manifest:
    return Manifest(source_name=source, run=run, requested_by=uuid4(), snapshot=position(), completed_at=AT, batches=())


@pytest.fixture
def objects() -> FakeObjectStore:
    return FakeObjectStore("landing", "processed")


@pytest.fixture
def store(objects: FakeObjectStore) -> SourceStore:
    return SourceStore(objects, "shop", "landing", "processed")


async def test_a_source_without_any_run_has_an_empty_state(store: SourceStore) -> None:
    assert await store.read_state() == (SourceState(), None)
    assert (await store.highest_run(), await store.find_checkpoint(), await store.manifests_after(0)) == (0, None, [])


async def test_a_state_is_replaced_only_if_it_has_not_changed(store: SourceStore) -> None:
    etag = await store.replace_state(SourceState(run=1), expected=None)
    await store.replace_state(SourceState(run=2), expected=etag)
    with pytest.raises(ConflictError):
        await store.replace_state(SourceState(run=3), expected=etag)
    await store.replace_state(SourceState(run=4), expected=etag, is_ours=lambda found: found.run == 2)
    assert await store.highest_run() == 4


async def test_manifests_are_listed_by_run(store: SourceStore) -> None:
    for run in (10, 9, 7):
        await store.write_manifest(manifest(run))
    assert await store.manifest_runs(after=7) == [9, 10]
    assert [one.run for one in await store.manifests_after(0)] == [7, 9, 10]
    assert await store.find_manifest(8) is None
    with pytest.raises(TransientError, match="the manifest of run 8 vanished while it was read"):
        await store.read_manifest(8)


async def test_the_manifest_of_another_run_or_source_is_damaged(store: SourceStore, objects: FakeObjectStore) -> None:
    for wrong in (manifest(8), manifest(7, "crm")):
        await objects.put("landing", store.keys.manifest(7), wrong.model_dump_json().encode())
        with pytest.raises(DamagedDocumentError, match=r"^'landing/shop/manifests/0+7\.json' is not a valid manifest"):
            await store.find_manifest(7)


async def test_a_foreign_object_among_the_manifests_is_reported(store: SourceStore, objects: FakeObjectStore) -> None:
    await objects.put("landing", "shop/manifests/notes.txt", b"")
    with pytest.raises(DamagedDocumentError, match="move it away: Starlift did not write it"):
        await store.manifest_runs(after=0)


@pytest.mark.parametrize("wrong", [{"horizon": 2**63}, {"wal_position": "-1/0"}, {"wal_position": "nowhere"}])
async def test_a_state_with_a_position_postgresql_would_reject_is_damaged(
    store: SourceStore, objects: FakeObjectStore, wrong: dict[str, object]
) -> None:
    checkpoint = Checkpoint(run=1, started_at=AT, snapshot=position(), identity=IDENTITY, contract="", tables={})
    damaged = checkpoint.model_copy(update={"snapshot": position().model_copy(update=wrong)})
    state = SourceState(run=1).model_copy(update={"checkpoint": damaged})
    await objects.put("landing", store.keys.state, state.model_dump_json().encode())
    with pytest.raises(DamagedDocumentError, match="is not a valid state of a source; delete it"):
        await store.read_state()
