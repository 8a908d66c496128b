"""Reading what is kept of a source between its runs in the landing bucket."""

from __future__ import annotations

from contracts.objects import manifest_key, state_key
from contracts.state import Checkpoint, Manifest, SourceState
from shared.object_store import ObjectStore
from shared.source_snapshot import lsn
from shared.stored_documents import read_stored

_BIGINT = 2**63


def read_state(bucket: str, key: str, body: bytes) -> SourceState:
    """The state in an object. Raises: DamagedDocumentError."""
    remedy = "delete it: the next run then reads every row again"
    return read_stored(_state, f"{bucket}/{key}", body, what="state of a source", remedy=remedy)


def _state(body: bytes) -> SourceState:
    state = SourceState.model_validate_json(body)
    if state.checkpoint is not None:
        snapshot = state.checkpoint.snapshot
        if snapshot.horizon >= _BIGINT or lsn(snapshot.wal_position) < 0:
            raise ValueError
    return state


async def find_state(objects: ObjectStore, bucket: str, source_name: str) -> SourceState:
    """The state of a source; if there is none, that of a source without any run.

    Raises: DamagedDocumentError; every error of an object store.
    """
    key = state_key(source_name)
    found = await objects.read(bucket, key)
    return SourceState() if found is None else read_state(bucket, key, found.body)


async def find_checkpoint(objects: ObjectStore, bucket: str, source_name: str) -> Checkpoint | None:
    """What the last completed run left; None before the first. Raises: as `find_state`."""
    return (await find_state(objects, bucket, source_name)).checkpoint


async def find_manifest(objects: ObjectStore, bucket: str, source_name: str, run: int) -> Manifest | None:
    """The manifest of a run; None if the run did not complete, or the manifest has expired.

    Raises: DamagedDocumentError; every error of an object store.
    """
    key = manifest_key(source_name, run)
    found = await objects.read(bucket, key)
    if found is None:
        return None

    def parse(body: bytes) -> Manifest:
        manifest = Manifest.model_validate_json(body)
        if (manifest.source_name, manifest.run) != (source_name, run):
            raise ValueError
        return manifest

    remedy = "delete it, then run `starlift ingest --full`, which reads every row again"
    return read_stored(parse, f"{bucket}/{key}", found.body, what="manifest", remedy=remedy)
