"""How a batch went from the source to the warehouse: its messages, its objects, and when each hop was done.

Nothing is searched for. Run and index lead to the manifest and to the objects, the batch's id to the ledger and to the ids of
the messages. What has expired is missing here, which is not an error.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.messages import BatchIngested, BatchLoaded, Role
from contracts.objects import SourceKeys, extract_name, rows_in
from contracts.state import Manifest
from contracts.tables import RemodelledTable
from services.operator.system import System
from services.operator.trace.life import Hop, Passage, Piece, StarRow
from shared.envelope import message_id
from shared.ledger import LoadedEvent, loaded_events
from shared.object_store import Listed
from shared.reading import all_of
from shared.source_store import SourceStore


@dataclass(frozen=True, slots=True)
class Traces:
    """What is left of a batch in each place that it has passed; `merged_at` is when the row in question was merged."""

    batch: UUID
    run: int
    merged_at: datetime
    loaded: LoadedEvent | None
    manifest: Manifest | None
    landing: tuple[Piece, ...] = ()
    processed: tuple[Piece, ...] = ()

    @property
    def announced(self) -> BatchIngested | None:
        """The batch as the manifest has it: one that was replayed from the quarantine is there with its first id."""
        for one in self.manifest.batches if self.manifest else ():
            if one.data.batch_id == self.batch or (self.loaded and one.data.index == self.loaded.event.data.index):
                return one
        return None

    @property
    def event(self) -> BatchLoaded | BatchIngested | None:
        """The last message about it that is kept."""
        return self.loaded.event if self.loaded else self.announced

    def passage(self) -> Passage:
        """What the traces add up to."""
        event, manifest = self.event, self.manifest
        first_id = SourceKeys(event.data.source_name).batch(self.run, event.data.index).batch_id if event else self.batch
        return Passage(
            run=self.run,
            id=self.batch,
            first_id=first_id,
            index=event.data.index if event else None,
            trace_id=event.traceparent.split("-")[1] if event and event.traceparent else None,
            in_ledger=self.loaded is not None,
            asked_by=manifest.requested_by if manifest else None,
            full=manifest.is_full if manifest else None,
            run_completed_at=manifest.completed_at if manifest else None,
            snapshot=event.data.snapshot if event else None,
            landing=self.landing,
            processed=self.processed,
            hops=self._hops(first_id),
        )

    def _hops(self, first_id: UUID) -> tuple[Hop, ...]:
        announced, loaded, event = self.announced, self.loaded, self.event
        landed_at = announced.time if announced else max(_written(self.landing), default=None)
        # Of a batch that was replayed there may be two objects: the first is the batch's own, the last the replay's.
        remodelled_at = (min if self.batch == first_id else max)(_written(self.processed), default=None)
        ingested, remodelled = message_id(first_id, "batch_ingested"), message_id(self.batch, "batch_remodelled")
        return _timed(
            Hop(name="source snapshot", at=event.data.snapshot.taken_at if event else None),
            Hop(name="batch ingested", at=landed_at, message=ingested, to_the_second=announced is None),
            Hop(name="batch remodelled", at=remodelled_at, message=remodelled, to_the_second=True),
            Hop(name="load began", at=loaded.event.time if loaded else None, message=message_id(self.batch, "batch_loaded")),
            Hop(name="row merged", at=self.merged_at),
            Hop(name="load committed", at=loaded.committed_at if loaded else None),
        )


def _written(pieces: tuple[Piece, ...]) -> list[datetime]:
    return [piece.written_at for piece in pieces if piece.written_at]


def _timed(*hops: Hop) -> tuple[Hop, ...]:
    """The hops with the seconds between them. A time that was rounded down is never before the other."""
    timed: list[Hop] = []
    before: Hop | None = None
    for hop in hops:
        found = hop
        if before and before.at and hop.at:
            seconds, is_estimate = (hop.at - before.at).total_seconds(), hop.to_the_second or before.to_the_second
            found = hop.model_copy(update={"seconds": max(seconds, 0.0) if is_estimate else seconds, "estimate": is_estimate})
        timed.append(found)
        before = hop if hop.at else before
    return tuple(timed)


async def read_passages(
    system: System, warehouse: asyncpg.Connection, table: RemodelledTable, rows: Sequence[StarRow]
) -> dict[UUID | None, Passage]:
    """The passages of the batches that wrote the rows of `table`, by the batch's id. The ledger knows a batch's run best.

    An inferred member may have been written by a batch of another source, for a fact of that source.
    """
    written = {row.batch_id: row for row in rows if row.batch_id is not None}
    ledger = await loaded_events(warehouse, system.contract, list(written))
    run_of = {batch: (system.store, row.run) for batch, row in written.items()}
    for batch, loaded in ledger.items():
        run_of[batch] = replace(system.store, source=loaded.event.data.source_name), loaded.event.data.run
    runs = list(dict.fromkeys(run_of.values()))
    manifests = dict(zip(runs, await all_of(runs, lambda one: one[0].find_manifest(one[1])), strict=True))

    async def read(batch: UUID) -> Passage:
        store, run = run_of[batch]
        traces = Traces(batch, run, written[batch].loaded_at, ledger.get(batch), manifests[store, run])
        return (await _with_objects(store, table, traces)).passage()

    return {passage.id: passage for passage in await all_of(list(written), read)}


async def _with_objects(store: SourceStore, table: RemodelledTable, traces: Traces) -> Traces:
    """Add what the buckets have: of the landing bucket as it was announced or, without a manifest, as it is listed."""
    if traces.event is None:
        return traces
    prefix = store.keys.batch(traces.run, traces.event.data.index).prefix
    landing, processed = await asyncio.gather(
        store.objects.listing(store.landing_bucket, prefix), store.objects.listing(store.processed_bucket, prefix)
    )
    names = {extract_name(table.source, Role.BASE), *(extract_name(one.table, Role.PARTNER) for one in table.lookups)}
    if traces.announced is None:
        landed = _pieces(store.landing_bucket, landing, names)
    else:
        written_at = {one.key: one.written_at for one in landing}
        refs = [one.object for one in traces.announced.data.extracts if extract_name(one.table, one.role) in names]
        rows = Counter[str]()  # a bundle holds those of several tables
        for ref in refs:
            rows[ref.key] += ref.row_count
        landed = tuple(
            Piece(
                bucket=ref.bucket,
                key=ref.key,
                rows=rows[ref.key],
                bytes=ref.byte_count,
                written_at=written_at.get(ref.key),
                expired=ref.key not in written_at,
            )
            for ref in {ref.key: ref for ref in refs}.values()
        )
    return replace(traces, landing=landed, processed=_pieces(store.processed_bucket, processed, {table.name}))


def _pieces(bucket: str, listing: Iterable[Listed], names: Container[str]) -> tuple[Piece, ...]:
    """The listed objects that hold rows of one of `names`, and bundles, which may."""
    return tuple(
        Piece(bucket=bucket, key=one.key, rows=None, bytes=one.byte_count, written_at=one.written_at, expired=False)
        for one in listing
        if (named := rows_in(one.key)) is not None and (named[0] is None or named[0] in names)
    )
