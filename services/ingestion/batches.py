"""What a run writes to the landing bucket: the extracts of each batch, and key lists.

Key lists let loading find the rows that are gone (docs/decisions/0006-deletes.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from operator import add, gt

from contracts.contract import Contract
from contracts.messages import Extract, KeyList, Role
from contracts.objects import BatchKeys, ObjectRef
from contracts.tables import SourceTable
from services.ingestion.run import Run
from services.ingestion.source import BatchLimits, OpenSnapshot, Page
from shared.source_keys import packed_keys
from shared.parquet import encode_parquet
from shared.source_store import SourceStore


async def write_extracts(
    run: Run, snapshot: OpenSnapshot, store: SourceStore, limits: BatchLimits
) -> AsyncIterator[tuple[Extract, ...]]:
    """Write every affected row with its partners, and yield the extracts of one batch at a time; none if no row is affected.

    Holds the rows of one batch and one page in memory.
    """
    maxima = (limits.rows, limits.byte_count, limits.objects)
    index, batch_sizes, writes = 0, (0, 0, 0), list[asyncio.Task[Extract]]()
    try:
        async for pages in snapshot.pages(run.plan, limits):
            page_sizes = (
                sum(page.row_count for page in pages),
                sum(page.byte_count for page in pages),
                sum(object_count(run.plan.contract, page.table.name, page.role) for page in pages),
            )
            batch_sizes = tuple(map(add, batch_sizes, page_sizes))
            if writes and any(map(gt, batch_sizes, maxima)):
                yield tuple(await asyncio.gather(*writes))
                index, batch_sizes, writes = index + 1, page_sizes, []
            writes += [
                asyncio.create_task(_write_page(page, run.object_keys.batch(run.number, index), store)) for page in pages
            ]
        if writes:
            yield tuple(await asyncio.gather(*writes))
    finally:
        for write in writes:
            write.cancel()


async def _write_page(page: Page, object_keys: BatchKeys, store: SourceStore) -> Extract:
    carried = [name for name in page.types if name not in page.table.extract_types]
    body = await asyncio.to_thread(encode_parquet, await page.frame, page.types, carried)
    key_of = partial(object_keys.extract, page.table.name, page.role)
    return Extract(
        table=page.table.name, role=page.role, object=await store.put_landing(key_of, body, row_count=page.row_count)
    )


def object_count(contract: Contract, table: str, role: Role = Role.BASE) -> int:
    """How many objects a source table adds to the longer of a batch's two messages: one for each star table."""
    return max(1, len(contract.remodelled_from(table))) if role is Role.BASE else 1


async def write_key_list(
    table: SourceTable, snapshot: OpenSnapshot, object_keys: BatchKeys, store: SourceStore, part_bytes: int
) -> KeyList:
    """Write every key of a table, as objects of about `part_bytes`. A list without objects is that of a table without rows."""
    parts = _Parts(table.name, object_keys, store, part_bytes)
    await snapshot.copy_keys(table, parts.take)
    await parts.end()
    return KeyList(table=table.name, objects=tuple(parts.refs))


@dataclass
class _Parts:
    """Takes the lines of a key list as they come, and writes an object whenever there are enough."""

    table: str
    object_keys: BatchKeys
    store: SourceStore
    part_bytes: int
    refs: list[ObjectRef] = field(default_factory=list)
    waiting: bytearray = field(default_factory=bytearray)

    async def take(self, piece: bytes) -> None:
        self.waiting += piece
        if len(self.waiting) >= self.part_bytes and (end := self.waiting.rfind(b"\n") + 1):
            lines = bytes(self.waiting[:end])
            del self.waiting[:end]
            await self._write(lines)

    async def end(self) -> None:
        if self.waiting:
            await self._write(bytes(self.waiting))

    async def _write(self, lines: bytes) -> None:
        body = await asyncio.to_thread(packed_keys, lines)
        key_of = partial(self.object_keys.key_list, self.table)
        self.refs.append(await self.store.put_landing(key_of, body, row_count=lines.count(b"\n")))


def grouped_lists(
    contract: Contract, lists: Iterable[KeyList], object_limit: int, first: Iterable[Extract]
) -> Iterator[tuple[KeyList, ...]]:
    """Group the key lists into a run's last batches, the first of which also holds the extracts `first`.

    A list is never cut: the keys it lacks would be taken for deleted.
    """
    count, group = sum(object_count(contract, extract.table, extract.role) for extract in first), list[KeyList]()
    for key_list in lists:
        more = len(key_list.objects) * object_count(contract, key_list.table)
        if count and count + more > object_limit:
            yield tuple(group)
            count, group = 0, []
        count += more
        group.append(key_list)
    yield tuple(group)
