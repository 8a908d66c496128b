"""A first load that continues where earlier runs were killed.

Before its first chunk, a run that shares its first load stores the checkpoint that it would leave as the *unfinished load* of
the source. If it is killed, the next run reads three things in its own snapshot, under its own number:

- the ranges of keys of which no chunk is recorded, and the tables that were not shared;
- whatever has changed since the *first* snapshot of the load, found as by any run, with the rows that lost a partner;
- the hashes of all other keys: rows of recorded chunks that were deleted meanwhile are found by its key comparison.

A row of the new snapshot is therefore in a missing range, or has changed since the first snapshot, or is unchanged
in a recorded chunk; a row whose key moved from one range to another has changed. So the run that continues the load is
complete for its own snapshot, and stores that as its checkpoint. The load starts over if no chunk is recorded, or if
anything changed on which a horizon depends: contract, cluster, crash recovery, definition of a table.
docs/decisions/0020-a-first-load-by-many-tasks.md has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from contracts.messages import IngestSourceData, KeyRange, Mode
from contracts.state import Chunk, Manifest, SourceState, UnfinishedLoad
from services.ingestion.plan import Plan, Request
from services.ingestion.source import OpenSnapshot
from shared.source_store import SourceStore

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Resumed:
    """The plan of a run that continues an unfinished load, and the chunks that earlier runs of the load have recorded."""

    plan: Plan
    load: UnfinishedLoad
    chunks: Mapping[int, Sequence[Chunk]]  # by run; only runs that recorded any

    def manifests(self, completed_at: datetime) -> list[Manifest]:
        """A manifest of each earlier run, with its recorded batches: readers of manifests find out what is not loaded."""
        return [
            Manifest(
                source_name=chunks[0].batch.data.source_name,
                run=run,
                requested_by=chunks[
                    0
                ].batch.data.batch_id,  # by no command: the requester waits for the run that continues the load
                snapshot=chunks[0].batch.data.snapshot,
                completed_at=completed_at,
                redefined=self.plan.redefined,
                batches=tuple(chunk.batch for chunk in chunks),
                is_part=True,
            )
            for run, chunks in self.chunks.items()
        ]


async def resumed(
    plan: Plan, state: SourceState, snapshot: OpenSnapshot, request: Request, store: SourceStore
) -> Resumed | None:
    """How to continue the load that earlier runs have left; None if the run has to follow `plan`."""
    load, is_asked = state.load, isinstance(request, IngestSourceData) and request.mode is Mode.FULL
    if load is None or state.checkpoint is not None or is_asked:
        return None
    changes = snapshot.plan(load.checkpoint, request, 0)
    if changes.is_full or changes.redefined:
        return None
    recorded = {run: chunks for run in load.runs if (chunks := await store.chunks_of(run))}
    if not recorded:
        return None
    missing = missing_ranges([table.name for table in plan.contract.source_tables], recorded.values())
    _log.info("load_resumed", runs=list(recorded), chunks=sum(map(len, recorded.values())))
    return Resumed(
        replace(
            changes,
            redefined=plan.redefined,
            runs_since_comparison=0,
            missing={name: ranges for name, ranges in missing.items() if name not in changes.full_tables},
        ),
        UnfinishedLoad(checkpoint=load.checkpoint, runs=tuple(recorded)),
        recorded,
    )


def missing_ranges(tables: Iterable[str], recorded: Iterable[Sequence[Chunk]]) -> dict[str, tuple[KeyRange, ...]]:
    """By table, the ranges that no chunk has; `recorded` are the chunks of each run, in the order of runs and indexes."""
    missing: dict[str, tuple[KeyRange, ...]] = {table: (KeyRange(),) for table in tables}
    for chunks in recorded:
        for table, ranges in missing.items():
            of_table = [chunk for chunk in chunks if chunk.table == table]
            missing[table] = tuple(
                gap for one in ranges for gap in _without(one, [chunk.rows for chunk in of_table if chunk.within == one])
            )
    return missing


def _without(whole: KeyRange, parts: Sequence[KeyRange]) -> list[KeyRange]:
    """What is left of a range without some parts of it.

    Keys are compared by the source alone. But a run cuts a range in the order of its keys, and what did not fit into a batch
    begins where the batch ends: so parts follow each other in chains, which begin in the order of `parts`.
    """
    following = {part.after: part for part in parts if part.after != whole.after}
    ends = {part.until for part in parts}
    gaps, end, is_over = list[KeyRange](), whole.after, False
    for head in parts:
        if head.after != whole.after and head.after in ends:
            continue  # in the middle of a chain
        if head.after != end:
            gaps.append(KeyRange(after=end, until=head.after))
        end = head.until
        while end is not None and end in following:
            end = following.pop(end).until
        is_over = end == whole.until
    return gaps if is_over else [*gaps, KeyRange(after=end, until=whole.until)]
