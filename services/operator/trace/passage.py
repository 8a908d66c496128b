"""How a batch went from the source to the warehouse: its messages, its objects, and when each hop was done.

Nothing is searched for. Run and index lead to the manifest and to the objects, the batch's id to the ledger and to the ids of
the messages. What has expired is missing here, and no error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.messages import BatchIngested, BatchLoaded, Role, Snapshot
from contracts.objects import SourceKeys, extract_name, rows_in
from contracts.state import Manifest
from contracts.tables import RemodelledTable
from services.operator.system import System
from shared.envelope import message_id
from shared.ledger import LoadedEvent, loaded_events
from shared.object_store import Listed
from shared.reading import all_of


@dataclass(frozen=True, slots=True)
class Piece:
    """An object of a batch. Who lists it alone knows no `row_count`; one that is not there any more has expired."""

    bucket: str
    key: str
    byte_count: int
    row_count: int | None
    written_at: datetime | None

    @property
    def is_there(self) -> bool:
        """Whether the bucket still has it."""
        return self.written_at is not None


@dataclass(frozen=True, slots=True)
class Hop:
    """Something that was done: when, if that is known, by the clock of whoever did it; `message` is the id of what told of it.

    `is_rounded`: down to whole seconds, by S3. `seconds` is since the last hop before it whose time is known, `is_estimate` if
    one of the two times is rounded.
    """

    name: str
    at: datetime | None
    message: UUID | None = None
    is_rounded: bool = False
    seconds: float | None = None
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """What is known of a batch. `landing` holds the rows of the table's source and of what they were joined with."""

    run: int
    batch_id: UUID
    loaded: LoadedEvent | None
    manifest: Manifest | None
    landing: tuple[Piece, ...]
    processed: tuple[Piece, ...]

    @property
    def announced(self) -> BatchIngested | None:
        """The batch as the manifest has it. One that was replayed from the quarantine stands there under its first id."""
        for batch in self.manifest.batches if self.manifest else ():
            if batch.data.batch_id == self.batch_id or (self.loaded and batch.data.index == self.loaded.event.data.index):
                return batch
        return None

    @property
    def first_id(self) -> UUID:
        """The id under which it was announced first."""
        data = self.event.data if self.event else None
        return SourceKeys(data.source_name).batch(data.run, data.index).batch_id if data else self.batch_id

    @property
    def is_replay(self) -> bool:
        """Whether its rows were sent again, under another id, to be remodelled anew."""
        return self.batch_id != self.first_id

    @property
    def event(self) -> BatchLoaded | BatchIngested | None:
        """The last message about it that is kept."""
        return self.loaded.event if self.loaded else self.announced

    @property
    def index(self) -> int | None:
        """Its place in its run, from 0."""
        return self.event.data.index if self.event else None

    @property
    def snapshot(self) -> Snapshot | None:
        """The source snapshot that its rows were read in."""
        return self.event.data.snapshot if self.event else None

    @property
    def trace_id(self) -> str | None:
        """By which its messages belong together (W3C Trace Context)."""
        return self.event.traceparent.split("-")[1] if self.event and self.event.traceparent else None

    def hops(self, merged_at: datetime) -> list[Hop]:
        """In the order in which they were done; the row in question was merged at `merged_at`."""
        landed_at = self.announced.time if self.announced else max(_written(self.landing), default=None)
        # Of a batch that was replayed there may be two: the first has made the one, the replay the other.
        remodelled_at = (max if self.is_replay else min)(_written(self.processed), default=None)
        return _timed(
            Hop("source snapshot", self.snapshot.taken_at if self.snapshot else None),
            Hop("batch ingested", landed_at, message_id(self.first_id, "batch_ingested"), is_rounded=self.announced is None),
            Hop("batch remodelled", remodelled_at, message_id(self.batch_id, "batch_remodelled"), is_rounded=True),
            Hop("load began", self.loaded.event.time if self.loaded else None, message_id(self.batch_id, "batch_loaded")),
            Hop("row merged", merged_at),
            Hop("load committed", self.loaded.committed_at if self.loaded else None),
        )


def _written(pieces: Iterable[Piece]) -> list[datetime]:
    return [piece.written_at for piece in pieces if piece.written_at]


def _timed(*hops: Hop) -> list[Hop]:
    """With the seconds between them. A time that was rounded down is never before the other."""
    timed: list[Hop] = []
    before: Hop | None = None
    for hop in hops:
        seconds, is_estimate = None, False
        if before and before.at and hop.at:
            seconds, is_estimate = (hop.at - before.at).total_seconds(), hop.is_rounded or before.is_rounded
        timed.append(replace(hop, seconds=max(seconds or 0.0, 0.0) if is_estimate else seconds, is_estimate=is_estimate))
        before = hop if hop.at else before
    return timed


async def read_passages(
    system: System, warehouse: asyncpg.Connection, table: RemodelledTable, batches: Mapping[UUID, int]
) -> dict[UUID, Passage]:
    """The passages of batches of `table`, each given with the run that its row says. The ledger knows better."""
    ledger = await loaded_events(warehouse, list(batches))
    run_of = {**batches, **{batch: loaded.event.data.run for batch, loaded in ledger.items()}}
    runs = sorted(set(run_of.values()))
    manifests = dict(zip(runs, await all_of(runs, system.store.find_manifest), strict=True))
    passages = await all_of(
        list(run_of.items()), lambda of: _passage(system, table, of[1], of[0], ledger.get(of[0]), manifests[of[1]])
    )
    return {passage.batch_id: passage for passage in passages}


async def _passage(
    system: System, table: RemodelledTable, run: int, batch: UUID, loaded: LoadedEvent | None, manifest: Manifest | None
) -> Passage:
    bare = Passage(run, batch, loaded, manifest, (), ())
    if bare.index is None:
        return bare
    store = system.store
    prefix = store.keys.batch(run, bare.index).prefix
    landing, processed = await asyncio.gather(
        store.objects.listing(store.landing_bucket, prefix), store.objects.listing(store.processed_bucket, prefix)
    )
    return Passage(
        run,
        batch,
        loaded,
        manifest,
        _landing_pieces(store.landing_bucket, table, bare.announced, landing),
        tuple(_piece(store.processed_bucket, one) for one in processed if _holds(one, {table.name})),
    )


def _landing_pieces(
    bucket: str, table: RemodelledTable, announced: BatchIngested | None, listed: list[Listed]
) -> tuple[Piece, ...]:
    """As they were announced; without a manifest, those that lie there."""
    names = {extract_name(table.source, Role.BASE), *(extract_name(one.table, Role.PARTNER) for one in table.lookups)}
    if announced is None:
        return tuple(_piece(bucket, one) for one in listed if _holds(one, names))
    written = {one.key: one.written_at for one in listed}
    return tuple(
        Piece(bucket, one.object.key, one.object.byte_count, one.object.row_count, written.get(one.object.key))
        for one in announced.data.extracts
        if extract_name(one.table, one.role) in names
    )


def _holds(listed: Listed, names: set[str]) -> bool:
    named = rows_in(listed.key)
    return named is not None and named[0] in names


def _piece(bucket: str, listed: Listed) -> Piece:
    return Piece(bucket, listed.key, listed.byte_count, None, listed.written_at)
