"""What Starlift keeps of one source in S3: its state, a manifest per run, and the objects of its batches."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from contracts.objects import ObjectRef, SourceKeys
from contracts.state import Checkpoint, Chunk, Manifest, SourceState
from shared.errors import TransientError
from shared.object_store import ConflictError, ObjectStore, put_addressed, replace_ours
from shared.reading import all_of
from shared.stored_documents import read_stored

Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SourceStore:
    """The objects of one source, in the two buckets.

    Every method raises DamagedDocumentError, and whatever an object store raises.
    """

    objects: ObjectStore
    source: str  # its name
    landing_bucket: str  # state, manifests, extracts, hashes of keys, proofs
    processed_bucket: str  # star rows, hashes of keys, quarantine

    @property
    def keys(self) -> SourceKeys:
        """The keys of the source."""
        return SourceKeys(self.source)

    async def read_state(self) -> tuple[SourceState, str | None]:
        """The state, and the etag of the version that was read; before the first run an empty state, and None."""
        found = await self.objects.read(self.landing_bucket, self.keys.state)
        return (SourceState(), None) if found is None else (self._parsed_state(found.body), found.etag)

    async def replace_state(
        self, state: SourceState, *, expected: str | None, is_ours: Callable[[SourceState], bool] = lambda _found: False
    ) -> str:
        """Write the state if `expected` is still its version, or one that `is_ours`; return the new etag.

        Raises: ConflictError.
        """
        return await replace_ours(
            self.objects,
            self.landing_bucket,
            self.keys.state,
            state.model_dump_json().encode(),
            expected=expected,
            is_ours=lambda stored: is_ours(self._parsed_state(stored)),
        )

    def _parsed_state(self, body: bytes) -> SourceState:
        place = f"{self.landing_bucket}/{self.keys.state}"
        remedy = "delete it: the next run then reads every row again"
        return read_stored(SourceState.model_validate_json, place, body, what="state of a source", remedy=remedy)

    async def highest_run(self) -> int:
        """The highest run number ever taken; 0 before the first."""
        state, _ = await self.read_state()
        return state.run

    async def find_checkpoint(self) -> Checkpoint | None:
        """What the last completed run left to the next; None before the first."""
        state, _ = await self.read_state()
        return state.checkpoint

    async def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest of a run."""
        await self.objects.put(self.landing_bucket, self.keys.manifest(manifest.run), manifest.model_dump_json().encode())

    async def find_manifest(self, run: int) -> Manifest | None:
        """The manifest of a run; None if the run did not complete, or its manifest has expired."""
        key = self.keys.manifest(run)
        found = await self.objects.read(self.landing_bucket, key)
        if found is None:
            return None

        def parse(body: bytes) -> Manifest:
            manifest = Manifest.model_validate_json(body)
            if (manifest.source_name, manifest.run) != (self.source, run):
                raise ValueError
            return manifest

        remedy = "delete it, then run `starlift ingest --full`, which reads every row again"
        return read_stored(parse, f"{self.landing_bucket}/{key}", found.body, what="manifest", remedy=remedy)

    async def read_manifest(self, run: int) -> Manifest:
        """The manifest of a run that has just been listed. Raises: TransientError if it has expired since."""
        found = await self.find_manifest(run)
        if found is None:
            raise TransientError(f"the manifest of run {run} vanished while it was read; try again")
        return found

    async def manifest_runs(self, *, after: int) -> list[int]:
        """The runs above `after` that have a manifest, in their order."""
        bucket, keys = self.landing_bucket, self.keys
        remedy = "move it away: Starlift did not write it"
        return [
            read_stored(keys.run_of_manifest, f"{bucket}/{key}", key, what="name of a manifest", remedy=remedy)
            for key in await self.objects.keys(bucket, keys.manifests, after=keys.manifest(after))
        ]

    async def manifests_after(self, run: int) -> list[Manifest]:
        """The manifest of every completed run above `run`, in the order of the runs."""
        return await all_of(await self.manifest_runs(after=run), self.read_manifest)

    async def record_chunk(self, chunk: Chunk) -> Chunk:
        """Record a chunk unless one is recorded for its batch; return the one that is recorded.

        Raises: ConflictError while another task writes its own.
        """
        key = self.keys.chunk(chunk.batch.data.run, chunk.batch.data.index)
        try:
            await self.objects.replace(self.landing_bucket, key, chunk.model_dump_json().encode(), expected=None)
        except ConflictError:
            if (found := await self.find_chunk(chunk.batch.data.run, chunk.batch.data.index)) is None:
                raise
            return found
        return chunk

    async def find_chunk(self, run: int, index: int) -> Chunk | None:
        """What is recorded of the chunk that becomes batch `index` of a run."""
        remedy = "delete it: its rows are read again"
        return await self.read_document(self.keys.chunk(run, index), Chunk, what="record of a chunk", remedy=remedy)

    async def chunks_of(self, run: int, *, after: int = -1, known: Collection[int] = ()) -> list[Chunk]:
        """The recorded chunks of a run whose indexes are above `after`, in their order, without those in `known`."""
        prefix = self.keys.chunks(run)
        listed = await self.objects.keys(self.landing_bucket, prefix, after=self.keys.chunk(run, after) if after >= 0 else "")
        names = (key.removeprefix(prefix).removesuffix(".json") for key in listed)
        new = [index for index in map(int, names) if index not in known]
        return [one for one in await all_of(new, lambda index: self.find_chunk(run, index)) if one is not None]

    async def put_landing(self, key_of: Callable[[str], str], body: bytes, *, row_count: int) -> ObjectRef:
        """Write rows to the landing bucket, under the key that `key_of` makes of their hash."""
        return await put_addressed(self.objects, self.landing_bucket, key_of, body, row_count=row_count)

    async def read_document(self, key: str, model: type[Document], *, what: str, remedy: str) -> Document | None:
        """A JSON document of the landing bucket; None if there is none."""
        found = await self.objects.read(self.landing_bucket, key)
        if found is None:
            return None
        return read_stored(model.model_validate_json, f"{self.landing_bucket}/{key}", found.body, what=what, remedy=remedy)

    async def write_document(self, key: str, document: BaseModel) -> None:
        """Write a JSON document to the landing bucket."""
        await self.objects.put(self.landing_bucket, key, document.model_dump_json().encode())
