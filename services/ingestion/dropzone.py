"""The drop zone: files in the landing bucket as deliveries.

Nothing in it is moved, changed or deleted. What became of a version of a file is recorded under another prefix
(contracts/files.py), and a version without a record waits.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from tempfile import TemporaryFile

from contracts.datasets import SNAPSHOT_FOLDER, Contents
from contracts.files import FileRecord, drop_zone_of, record_key
from contracts.state import DatasetState
from contracts.tables import SourceTable
from services.ingestion.delivery import BadRecord, Delivery, Record, Taken, UnreadableDeliveryError
from services.ingestion.records import read_records
from shared.clock import utc_now
from shared.dropzone import waiting_files
from shared.object_store import ListedVersion, ObjectStore


@dataclass(slots=True)
class File:
    """One version of a file, as a delivery."""

    table: SourceTable
    version: ListedVersion
    known: DatasetState  # what the last run left of the data set
    objects: ObjectStore
    bucket: str
    sha256: str | None = None  # once its bytes have been read

    @property
    def name(self) -> str:
        """See Delivery."""
        return self.version.key

    @property
    def contents(self) -> Contents:
        """See Delivery."""
        is_snapshot = self.name.startswith(f"{drop_zone_of(self.table.name)}{SNAPSHOT_FOLDER}")
        return Contents.SNAPSHOT if is_snapshot or self.table.dataset is None else self.table.dataset.contents

    async def records(self) -> AsyncGenerator[list[Record | BadRecord], None]:
        """See Delivery. The file is copied to the local disk first: a reader may need its end before its beginning."""
        if self.version.is_deleted:
            raise UnreadableDeliveryError("it was deleted before it was taken; put it into the drop zone again if it is needed")
        if not self.version.byte_count:
            raise UnreadableDeliveryError("it has no bytes; put it into the drop zone again, complete")
        with TemporaryFile() as file:
            if not await self.objects.download(self.bucket, self.name, self.version.version_id, file):
                raise UnreadableDeliveryError(
                    "it was deleted before it was read; put it into the drop zone again if it is needed"
                )
            file.seek(0)
            digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
            file.seek(0)
            async with aclosing(read_records(file, self.table)) as pages:
                async for page in pages:
                    yield page
        self.sha256 = digest.hexdigest()

    def state(self) -> DatasetState:
        """See Delivery."""
        return self.known.model_copy(update={"sha256": self.sha256})


@dataclass(frozen=True, slots=True)
class DropZone:
    """The files of some data sets."""

    objects: ObjectStore
    bucket: str  # the landing bucket
    tables: Sequence[SourceTable]
    now: Callable[[], datetime] = field(default=utc_now)

    async def next(self, known: Mapping[str, DatasetState]) -> File | None:
        """See Deliveries. Of one second, S3's unit, the order is that of keys, and of one key that of its versions."""
        waiting = list[tuple[datetime, str, int, SourceTable, ListedVersion]]()
        for table in self.tables:
            for place, version in enumerate(await waiting_files(self.objects, self.bucket, table.name)):
                waiting.append((version.written_at, version.key, place, table, version))
        if not waiting:
            return None
        *_, table, version = min(waiting, key=lambda one: one[:3])
        return File(table, version, known.get(table.name, DatasetState()), self.objects, self.bucket)

    async def settle(self, delivery: Delivery, taken: Taken) -> None:
        """See Deliveries."""
        if not isinstance(delivery, File):
            raise TypeError(f"'{delivery.name}' is not a file of the drop zone")
        version, dataset = delivery.version, delivery.table.name
        record = FileRecord(
            dataset=dataset,
            key=version.key,
            version_id=version.version_id,
            byte_count=version.byte_count,
            written_at=version.written_at,
            outcome=taken.outcome,
            reason=taken.reason,
            run=taken.run,
            records=taken.records,
            bad=taken.bad,
            sha256=delivery.sha256,
            recorded_at=self.now(),
        )
        key = record_key(dataset, version.key, version.version_id, version.written_at)
        await self.objects.put(self.bucket, key, record.model_dump_json().encode())
