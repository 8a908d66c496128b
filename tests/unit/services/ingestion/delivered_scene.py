"""A source of two data sets that come as files, on fakes; with what its runs announce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.files import FileRecord, records_of
from contracts.messages import (
    BatchIngested,
    IngestSource,
    IngestSourceData,
    LookUpKeys,
    LookUpKeysData,
    RowsOf,
    Trigger,
    decode,
)
from contracts.state import Checkpoint
from services.ingestion.delivered_source import DeliveredSource
from services.ingestion.dropzone import DropZone
from services.ingestion.handler import Dependencies, handle
from services.ingestion.source import BatchLimits
from shared.envelope import opening
from shared.landed import truth_of
from shared.outcome import Done
from shared.source_keys import keys_of
from shared.source_store import SourceStore
from shared.testing import EPOCH, FakeObjectStore, FakeQueue
from tests.fixtures.delivered_contract import PLANS

LANDING, SOURCE = "landing", "plans"
HEADER = "product_id;month;amount\n"


def budget(*rows: str) -> bytes:
    """A file of budgets, such as `1;2026-01-01;10.50`."""
    return (HEADER + "".join(f"{row}\n" for row in rows)).encode()


@dataclass
class DeliveredScene:
    """The drop zone, and an ingestion of it."""

    objects: FakeObjectStore = field(default_factory=lambda: FakeObjectStore(LANDING, "processed"))
    queue: FakeQueue = field(default_factory=lambda: FakeQueue("remodelling"))
    limits: BatchLimits = field(default_factory=BatchLimits)
    contract: Any = PLANS
    tokens: int = 0

    @property
    def store(self) -> SourceStore:
        return SourceStore(self.objects, SOURCE, LANDING, "processed")

    @property
    def deps(self) -> Dependencies:
        zone = DropZone(self.objects, LANDING, self.contract.source_tables, self._now)
        source = DeliveredSource(self.contract, zone, self.store, self._now)
        return Dependencies(source, self.store, self.queue, self.limits, now=self._now, new_token=self._token)

    def _now(self) -> datetime:
        self.tokens += 1
        return EPOCH + timedelta(hours=self.tokens)  # whatever a killed run has left of its lease is over

    def _token(self) -> UUID:
        self.tokens += 1
        return UUID(int=self.tokens)

    async def put(self, name: str, body: bytes) -> None:
        """Put a file into the drop zone, such as `budget/a.csv`."""
        await self.objects.put(LANDING, f"dropzone/{name}", body)

    async def ingest(self, trigger: Trigger = Trigger.OPERATOR, **wish: Any) -> list[BatchIngested]:
        """Handle a command; return what it announced."""
        before = len(self.queue.sent)
        data = IngestSourceData(source_name=SOURCE, trigger=trigger, **wish)
        assert await handle(IngestSource(**opening("tests"), data=data), self.deps) == Done()
        return self.announced[before:]

    async def look_up(self, table: str, *keys: tuple[int | str, ...]) -> list[tuple[int | str, ...]]:
        """Handle a question of loading; return which rows are gone."""
        before = len(self.queue.sent)
        data = LookUpKeysData(source_name=SOURCE, rows=(RowsOf(table=table, keys=keys),))
        assert await handle(LookUpKeys(**opening("tests"), data=data), self.deps) == Done()
        return [key for batch in self.announced[before:] for rows in batch.data.gone for key in rows.keys]

    @property
    def announced(self) -> list[BatchIngested]:
        return [batch for body in self.queue.sent if isinstance(batch := decode(body.body), BatchIngested)]

    async def records(self, dataset: str = "budget") -> list[FileRecord]:
        """What became of files, in the order of recording."""
        keys = await self.objects.keys(LANDING, records_of(dataset))
        found = [FileRecord.model_validate_json(self.objects.buckets[LANDING][key]) for key in keys]
        return sorted(found, key=lambda record: record.recorded_at)

    async def checkpoint(self) -> Checkpoint:
        found = await self.store.find_checkpoint()
        assert found is not None
        return found

    async def truth(self, dataset: str = "budget") -> Mapping[tuple[Any, ...], Any]:
        """The rows that the star must have: the value of the last column of each key."""
        table = self.contract.source_table(dataset)
        column = "amount" if dataset == "budget" else "product_name"
        truth = truth_of(self.store, self.contract, table, await self.checkpoint())
        frames = [frame async for frame in truth.current_rows()]
        return {
            key: value for frame in frames for key, value in zip(keys_of(table, frame), frame[column].tolist(), strict=True)
        }
