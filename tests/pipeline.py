"""The three services in one process: their real handlers and a real PostgreSQL, queue and object store in memory.

A test decides itself when which message is worked on, how often, and in which order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import asyncpg
from pydantic import SecretStr

from contracts.messages import BatchIngested, BatchRemodelled, IngestSource, IngestSourceData, Message, Mode, Trigger, decode
from contracts.objects import SourceKeys
from contracts.state import Checkpoint, SourceState
from contracts.tables import Contract
from contracts.totesys import CONTRACT
from services.ingestion import handler as ingestion
from services.ingestion.extraction import BATCH_BYTES, BATCH_OBJECTS, BATCH_ROWS
from services.loading import handler as loading
from services.loading.warehouse import Warehouse
from services.operator.progress import Progress, read_progress
from services.operator.proof.causes import DeadBatch
from services.operator.proof.dead_batches import none_dead
from services.operator.proof.verdict import Verdict
from services.operator.proof.verify import Proof
from services.remodelling import handler as remodelling
from shared.envelope import opening
from shared.outcome import Done
from shared.postgres import Database
from shared.source_store import SourceStore
from shared.sql import quoted
from shared.testing import FakeObjectStore, FakeQueue

LANDING, PROCESSED = "landing", "processed"
SOURCE = "totesys"
CONNECTIONS = 4
Rows = list[tuple[Any, ...]]
Dump = dict[str, Rows]


@dataclass(frozen=True)
class Pipeline:
    """Two databases, the buckets between them, and the contract. A load is cut at `batch_rows` and at `batch_bytes`.

    Keys are compared when a test asks for it, and by full runs.
    """

    source: Database
    warehouse: Database
    contract: Contract = CONTRACT
    batch_rows: int = BATCH_ROWS
    batch_bytes: int = BATCH_BYTES
    batch_objects: int = BATCH_OBJECTS
    compare_keys_every: int = 0
    objects: FakeObjectStore = field(default_factory=lambda: FakeObjectStore(LANDING, PROCESSED))
    dead: Callable[[Collection[UUID]], Awaitable[Mapping[UUID, DeadBatch]]] = none_dead

    async def ingest(self, mode: Mode = Mode.CHANGES, trigger: Trigger = Trigger.OPERATOR, **wish: Any) -> list[BatchIngested]:
        """One run; what it announced."""
        queue = FakeQueue("remodelling")
        deps = ingestion.Dependencies(
            self.source,
            self.store,
            queue,
            self.contract,
            batch_rows=self.batch_rows,
            batch_bytes=self.batch_bytes,
            batch_objects=self.batch_objects,
            compare_keys_every=self.compare_keys_every,
        )
        data = IngestSourceData(source_name=SOURCE, mode=mode, trigger=trigger, **wish)
        assert await ingestion.handle(IngestSource(**opening("tests"), data=data), deps) == Done()
        return [message for message in sent(queue) if isinstance(message, BatchIngested)]

    async def remodel(self, message: BatchIngested) -> BatchRemodelled:
        """The star rows of one batch."""
        queue = FakeQueue("loading")
        deps = remodelling.Dependencies(self.objects, queue, self.contract, PROCESSED)
        assert await remodelling.handle(message, deps) == Done()
        (found,) = sent(queue)
        assert isinstance(found, BatchRemodelled)
        return found

    async def load(self, *messages: BatchRemodelled) -> None:
        """Batches into the warehouse, by a loader that has just started."""
        deps = loading.Dependencies(self.objects, Warehouse(self.warehouse, self.contract), self.contract)
        for message in messages:
            assert await loading.handle(message, deps) == Done()

    async def read(self, mode: Mode = Mode.CHANGES, **wish: Any) -> list[BatchRemodelled]:
        """One run, remodelled and not loaded."""
        return [await self.remodel(message) for message in await self.ingest(mode, Trigger.OPERATOR, **wish)]

    async def run(self, mode: Mode = Mode.CHANGES, **wish: Any) -> list[BatchRemodelled]:
        """One run from the source into the warehouse."""
        messages = await self.read(mode, **wish)
        await self.load(*messages)
        return messages

    @property
    def store(self) -> SourceStore:
        """What is kept of the source in the buckets."""
        return SourceStore(self.objects, SOURCE, LANDING, PROCESSED)

    @property
    def proof(self) -> Proof:
        """What compares the two databases."""
        return Proof(self.contract, self.source, self.warehouse, self.store, self.dead)

    async def verify(self) -> Verdict:
        """What the proof finds."""
        return await self.proof.run()

    async def progress(self) -> Progress:
        """How far the warehouse has come."""
        async with self.warehouse.connection() as connection:
            return await read_progress(self.store, connection)

    async def dump(self, *, with_runs: bool = True) -> Dump:
        """Every row of every table of the star, without what may differ between equal warehouses."""
        async with self.warehouse.connection() as connection:
            return {table.name: await self._rows(connection, table.name, with_runs) for table in self.contract.warehouse_tables}

    async def _rows(self, connection: asyncpg.Connection, name: str, with_runs: bool) -> Rows:  # noqa: FBT001
        table = self.contract.warehouse_table(name)
        # Which of several comparisons found a row gone, and so the moment, depends on the order in which they came.
        columns = [*map(quoted, table.star_types), *(["_run", "_deleted_at IS NOT NULL AS is_dead"] if with_runs else [])]
        relation = quoted(self.contract.warehouse_schema, name)
        order = ", ".join(quoted(column) for column in table.identity)
        found = await connection.fetch(f"SELECT {', '.join(columns)} FROM {relation} ORDER BY {order}")
        return [tuple(row) for row in found]

    async def select(self, query: str, *arguments: object) -> Rows:
        """What the warehouse answers."""
        async with self.warehouse.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]

    async def empty_warehouse(self) -> None:
        """Remove every row, the ledger and what is known of deletes, keep the tables."""
        names = [quoted(self.contract.warehouse_schema, table.name) for table in self.contract.warehouse_tables]
        async with self.warehouse.connection() as connection:
            await connection.execute(f"TRUNCATE {', '.join(names)}, starlift.ledger, starlift.tombstone, starlift.comparison")

    def checkpoint(self) -> Checkpoint:
        """What the last run left."""
        found = SourceState.model_validate_json(self.objects.buckets[LANDING][SourceKeys(SOURCE).state]).checkpoint
        assert found is not None
        return found

    def reading(self, contract: Contract) -> Pipeline:
        """The same databases and buckets under another contract."""
        return replace(self, contract=contract)

    def comparing(self, every: int) -> Pipeline:
        """The same, comparing keys in every so manieth run."""
        return replace(self, compare_keys_every=every)

    def cut(self, batch_rows: int) -> Pipeline:
        """The same, cutting loads at `batch_rows`."""
        return replace(self, batch_rows=batch_rows)


def sent(queue: FakeQueue) -> list[Message]:
    """Everything that was ever sent."""
    return [decode(message.body) for message in queue.sent]


def row_count(messages: Sequence[BatchIngested]) -> int:
    """How many rows of all tables, partners included, a run read."""
    return sum(extract.object.row_count for message in messages for extract in message.data.extracts)


def tables_read(messages: Sequence[BatchIngested]) -> dict[str, int]:
    """How many rows of each table a run read, partners not counted."""
    counts: dict[str, int] = {}
    for message in messages:
        for extract in message.data.extracts:
            if extract.role == "base":
                counts[extract.table] = counts.get(extract.table, 0) + extract.object.row_count
    return counts


@asynccontextmanager
async def open_pipeline(source_url: str, warehouse_url: str, **options: Any) -> AsyncIterator[Pipeline]:
    """A pipeline between two databases, on this event loop."""
    source = Database("source", SecretStr(source_url), connections=CONNECTIONS)
    warehouse = Database("warehouse", SecretStr(warehouse_url), connections=CONNECTIONS)
    try:
        yield Pipeline(source, warehouse, **options)
    finally:
        await source.aclose()
        await warehouse.aclose()
