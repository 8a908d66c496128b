"""Letting extracts of data sets expire: they are kept as long as they are the truth (docs/decisions/0022-files-and-apis.md).

A later whole snapshot, or an announcement of everything that was delivered, replaces what came before. What it replaces gets a
tag, and a lifecycle rule of the landing bucket expires objects with it. Manifests are small, and stay.

A run tags what the last completed run has replaced, before it completes itself: the stored state already counts without these
objects, and a run that is killed meanwhile leaves the work to the next one.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.messages import BatchIngested
from contracts.objects import SUPERSEDED
from contracts.state import DatasetState
from shared.reading import all_of, in_order
from shared.source_store import SourceStore


async def tag_superseded(store: SourceStore, datasets: Mapping[str, DatasetState]) -> None:
    """Tag the objects that no data set needs any more, of the runs that are not known to be done. Safe to repeat.

    Raises: DependencyDownError, TransientError, PermanentError.
    """
    replaced = [range(state.tagged_run or 1, state.whole_run) for state in datasets.values() if state.whole_run is not None]
    first = min((runs.start for runs in replaced if runs), default=None)
    if first is None:
        return
    listed = await store.manifest_runs(after=first - 1)
    async for _, manifest in in_order([run for run in listed if any(run in runs for runs in replaced)], store.read_manifest):
        for batch in manifest.batches:
            await all_of(_superseded(batch, datasets), lambda key: store.objects.tag(store.landing_bucket, key, *SUPERSEDED))


def _superseded(batch: BatchIngested, datasets: Mapping[str, DatasetState]) -> list[str]:
    """The objects of a batch that only data sets need which have a later whole snapshot; a bundle may have rows of several."""

    def is_needed(name: str) -> bool:
        state = datasets.get(name)
        return state is None or state.whole_run is None or batch.data.run >= state.whole_run

    extracts, hashes = batch.data.extracts, batch.data.hashes
    needed = {extract.object.key for extract in extracts if is_needed(extract.table)}
    keys = {extract.object.key for extract in extracts} - needed
    if hashes is not None and not any(map(is_needed, datasets)):
        keys.add(hashes.key)
    return sorted(keys)
