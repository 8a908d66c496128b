"""A source of two data sets that come as files, on fakes; with what its runs announce."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID

from contracts.contract import Contract
from contracts.files import FileRecord, records_of
from contracts.key_hashes import KeyHashes, TableHashes
from contracts.messages import (
    BatchIngested,
    IngestSource,
    IngestSourceData,
    LookUpKeys,
    LookUpKeysData,
    Message,
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
from shared.key_hashes import unpacked
from shared.landed import truth_of
from shared.object_store import ListedVersion
from shared.outcome import Done
from shared.source_keys import keys_of
from shared.source_store import SourceStore
from shared.testing import EPOCH, FakeObjectStore, FakeQueue
from tests.fixtures.delivered_contract import PLANS

LANDING, SOURCE = "landing", "plans"
SECOND = timedelta(seconds=1)
A, B, C = "1;2026-01-01;10.50", "2;2026-02-01;7", "3;2026-03-01;1"
KEY_A, KEY_B, KEY_C = (1, "2026-01-01"), (2, "2026-02-01"), (3, "2026-03-01")
HEADER = "product_id;month;amount\n"


def budget(*rows: str) -> bytes:
    """A file of budgets, such as `1;2026-01-01;10.50`."""
    return (HEADER + "".join(f"{row}\n" for row in rows)).encode()


def product(number: int, name: str, day: int) -> bytes:
    updated_at = f"2026-01-{day:02}T00:00:00Z"
    return json.dumps({"product_id": number, "product_name": name, "price": 1, "updated_at": updated_at}).encode() + b"\n"


class Bucket(FakeObjectStore):
    """Objects that a test writes at a time of its choice, and some of which vanish after they were listed."""

    def __init__(self) -> None:
        super().__init__(LANDING, "processed")
        self.written_at = EPOCH
        self.now = lambda: self.written_at
        self.vanishing = set[str]()
        self.listings = 0

    async def versions(self, bucket: str, prefix: str) -> list[ListedVersion]:
        self.listings += 1
        return await super().versions(bucket, prefix)

    async def download(self, bucket: str, key: str, version_id: str, file: BinaryIO) -> bool:
        return key not in self.vanishing and await super().download(bucket, key, version_id, file)


@dataclass
class DeliveredScene:
    """The drop zone, and an ingestion of it. Whatever a killed run has left of its lease is over when the next one begins."""

    objects: Bucket = field(default_factory=Bucket)
    queue: FakeQueue = field(default_factory=lambda: FakeQueue("remodelling"))
    limits: BatchLimits = field(default_factory=BatchLimits)
    contract: Contract = PLANS
    _count: int = 0

    @property
    def store(self) -> SourceStore:
        return SourceStore(self.objects, SOURCE, LANDING, "processed")

    @property
    def deps(self) -> Dependencies:
        zone = DropZone(self.objects, LANDING, self.contract.source_tables, self._now)
        source = DeliveredSource(self.contract, zone, self.store, self._now)
        return Dependencies(source, self.store, self.queue, self.limits, now=self._now, new_token=self._token)

    def _now(self) -> datetime:
        self._count += 1
        return EPOCH + self._count * timedelta(minutes=10)

    def _token(self) -> UUID:
        self._count += 1
        return UUID(int=self._count)

    async def put(self, name: str, body: bytes) -> None:
        """Put a file into the drop zone, such as `budget/a.csv`."""
        await self.objects.put(LANDING, f"dropzone/{name}", body)

    def command(self, trigger: Trigger, **wish: Any) -> IngestSource:
        data = IngestSourceData(source_name=SOURCE, trigger=trigger, **wish)
        return IngestSource(**{**opening("tests"), "time": self._now()}, data=data)

    async def handle(self, message: Message) -> list[BatchIngested]:
        """Handle a message; return what it announced."""
        before = len(self.announced)
        assert await handle(message, self.deps) == Done()
        return self.announced[before:]

    async def ingest(self, trigger: Trigger = Trigger.OPERATOR, **wish: Any) -> list[BatchIngested]:
        """Handle a new command; return what it announced."""
        return await self.handle(self.command(trigger, **wish))

    async def look_up(
        self, table: str, *keys: tuple[int | str, ...], believe_empty: bool = False
    ) -> list[tuple[int | str, ...]]:
        """Handle a question of loading; return which rows are gone."""
        rows = (RowsOf(table=table, keys=keys),)
        data = LookUpKeysData(source_name=SOURCE, rows=rows, believe_empty=believe_empty)
        batches = await self.handle(LookUpKeys(**opening("tests"), data=data))
        return [key for batch in batches for gone in batch.data.gone for key in gone.keys]

    async def hashes(self, batch: BatchIngested) -> tuple[TableHashes, ...]:
        """The hashes of keys that a batch carries."""
        assert batch.data.hashes is not None
        return unpacked(KeyHashes, await self.objects.get(batch.data.hashes)).tables

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
