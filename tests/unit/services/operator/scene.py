"""A system of fakes for the operator: queues, buckets, and a warehouse that answers queries of its ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

from contracts.messages import BatchIngested, BatchIngestedData, BatchRemodelled, BatchRemodelledData, Snapshot
from contracts.objects import ObjectRef, SourceKeys
from contracts.state import Checkpoint, Manifest, SourceIdentity, SourceState
from contracts.warehouse import COMPARISON, HAS_SINCE, LEDGER, QUESTION
from services.operator.system import SERVICES, OperatorSettings, System
from shared.envelope import caused_by, opening
from shared.ledger import BATCHES, COMPARISONS, OPEN_QUESTIONS, RUNS, KeyComparison, OpenQuestion
from shared.postgres import Database
from shared.testing import FakeObjectStore, FakeQueue
from tests.fixtures.totesys import CONTRACT

LANDING, PROCESSED, SOURCE = "landing", "processed", "totesys"
BEGAN = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
SETTINGS = OperatorSettings(
    region="eu-west-2",
    ingestion_queue_url="https://sqs/1/ingestion",
    remodelling_queue_url="https://sqs/1/remodelling",
    loading_queue_url="https://sqs/1/loading",
    ingestion_dead_letter_url="https://sqs/1/ingestion-dlq",
    remodelling_dead_letter_url="https://sqs/1/remodelling-dlq",
    loading_dead_letter_url="https://sqs/1/loading-dlq",
    landing_bucket=LANDING,
    processed_bucket=PROCESSED,
)


def snapshot(second: int = 0) -> Snapshot:
    return Snapshot(taken_at=BEGAN.replace(second=second), horizon=700 + second, wal_position="0/1")


@dataclass
class FakeLedger:
    """The warehouse's ledger, as a database whose transaction answers the operator's questions. `loaded` is by run."""

    exists: bool = True
    loaded: dict[int, list[BatchIngested]] = field(default_factory=dict)
    questions: int = 0  # queries of batches
    comparisons: dict[str, KeyComparison] = field(default_factory=dict)  # the last one of each table
    open_questions: list[OpenQuestion] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self, **_options: object) -> AsyncIterator[FakeLedger]:
        yield self

    async def fetchval(self, query: str, *tables: str) -> bool:
        if query == "SELECT pg_try_advisory_xact_lock($1)":  # no other proof runs
            return True
        known = {("SELECT to_regclass($1) IS NOT NULL", (name,)) for name in (COMPARISON, LEDGER, QUESTION)} | {
            (HAS_SINCE, (COMPARISON,))
        }
        assert (query, tables) in known
        return self.exists

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        if query == RUNS:
            return [self._run(run) for run in sorted(self.loaded) if run >= arguments[1]]
        if query == COMPARISONS:
            return [(name, *astuple(one)) for name, one in self.comparisons.items()]
        if query == OPEN_QUESTIONS:
            return [astuple(one) for one in self.open_questions]
        if arguments[0] == []:  # queries without a batch
            return []
        assert query == BATCHES
        self.questions += 1
        return [{"batch_id": known} for known in self._ids() if arguments[0] is None or known in arguments[0]]

    def load(self, *batches: BatchIngested) -> None:
        for batch in batches:
            self.loaded.setdefault(batch.data.run, []).append(batch)

    def _ids(self) -> list[UUID]:
        return [batch.data.batch_id for batches in self.loaded.values() for batch in batches]

    def _run(self, run: int) -> dict[str, Any]:
        batches = self.loaded[run]
        last = [batch.data.index for batch in batches if batch.data.is_last]
        return {
            "run": run,
            "batches": [batch.data.batch_id for batch in batches],
            "is_complete": bool(last) and len(batches) == last[0] + 1,
        }


@dataclass
class Scene:
    """The system that a command works on. Queues and dead letters are by service."""

    queues: dict[str, FakeQueue] = field(default_factory=lambda: {name: FakeQueue(name) for name in SERVICES})
    dead_letters: dict[str, FakeQueue] = field(default_factory=lambda: {name: FakeQueue(f"{name}-dlq") for name in SERVICES})
    objects: FakeObjectStore = field(default_factory=lambda: FakeObjectStore(LANDING, PROCESSED))
    ledger: FakeLedger = field(default_factory=FakeLedger)

    @property
    def system(self) -> System:
        database = cast("Database", self.ledger)
        return System(SETTINGS, CONTRACT, self.queues, self.dead_letters, self.objects, database, database)

    async def end_run(
        self,
        run: int,
        batches: int = 1,
        *,
        requested_by: UUID | None = None,
        second: int = 0,
        is_full: bool = False,
        hashes: ObjectRef | None = None,
    ) -> Manifest:
        """Write the manifest and checkpoint of a completed run; its last batch has the `hashes`."""
        events = tuple(ingested(run, index, is_last=index == batches - 1, hashes=hashes) for index in range(batches))
        manifest = Manifest(
            source_name=SOURCE,
            run=run,
            requested_by=requested_by or uuid4(),
            snapshot=snapshot(second),
            completed_at=BEGAN,
            is_full=is_full,
            batches=events,
        )
        await self.objects.put(LANDING, SourceKeys(SOURCE).manifest(run), manifest.model_dump_json().encode())
        await self.remember(run, second)
        return manifest

    async def remember(self, run: int, second: int = 0, began: datetime = BEGAN) -> None:
        """Store the state of a source whose last completed run is `run`."""
        state = SourceState(run=run, checkpoint=checkpoint(run, second).model_copy(update={"started_at": began}))
        await self.objects.put(LANDING, SourceKeys(SOURCE).state, state.model_dump_json().encode())


def checkpoint(run: int, second: int = 0) -> Checkpoint:
    identity = SourceIdentity(system_identifier=1, timeline=1, database_oid=1, statistics_reset="never")
    return Checkpoint(
        run=run, started_at=BEGAN, snapshot=snapshot(second), identity=identity, contract=CONTRACT.fingerprint, tables={}
    )


def ingested(run: int, index: int = 0, *, is_last: bool = True, hashes: ObjectRef | None = None) -> BatchIngested:
    data = BatchIngestedData(
        source_name=SOURCE,
        run=run,
        batch_id=SourceKeys(SOURCE).batch(run, index).batch_id,
        index=index,
        is_last=is_last,
        snapshot=snapshot(),
        extracts=(),
        hashes=hashes if is_last else None,
    )
    return BatchIngested(**opening("tests"), data=data)


def remodelled(batch: BatchIngested) -> BatchRemodelled:
    data = BatchRemodelledData(**batch.data.head(), tables=(), answers=batch.data.answers)
    return BatchRemodelled(**caused_by(batch, "tests", subject=uuid4(), name="batch_remodelled"), data=data)
