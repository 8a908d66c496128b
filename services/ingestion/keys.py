"""The complete key lists of a run: what lets loading find the rows that are gone (docs/decisions/0006-deletes.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.messages import Extract, KeyList
from contracts.objects import ObjectRef
from contracts.tables import SourceTable
from services.ingestion.extraction import Destination, object_count
from services.ingestion.selection import Selection
from shared.key_lists import packed
from shared.object_store import put_addressed

PART_BYTES = 4 * 1024 * 1024  # of JSON lines in one object: some 400,000 keys, which a reader holds in memory
# Two characters that JSON has escaped: PostgreSQL then writes each line as it is.
QUOTE, DELIMITER = "\x01", "\x02"

log = structlog.get_logger()


async def write_key_lists(
    connection: asyncpg.Connection,
    selection: Selection,
    tables: Iterable[SourceTable],
    destination: Destination,
    *,
    index: int,
    believe_empty: bool,
    known_empty: Collection[str],
) -> tuple[KeyList, ...]:
    """Every key of each of the tables, in the landing bucket, as part of the batch `index`.

    No list for a table without rows, unless `believe_empty`: a list without a key says that all rows were deleted. It is told
    once, not of those that are `known_empty`.
    """
    lists = []
    for table in tables:
        parts = _Parts(destination, table.name, index)
        await connection.copy_from_query(
            selection.keys(table), output=parts.take, format="csv", quote=QUOTE, delimiter=DELIMITER
        )
        await parts.end()
        if parts.refs or believe_empty:
            lists.append(KeyList(table=table.name, objects=tuple(parts.refs)))
        elif table.name not in known_empty:
            advice = "if its rows were deleted: `starlift ingest --compare-keys --believe-empty`"
            log.warning("empty_table_not_compared", run=destination.run, table=table.name, advice=advice)
    return tuple(lists)


def grouped_lists(
    contract: Contract, lists: Iterable[KeyList], object_limit: int, first: Iterable[Extract]
) -> Iterator[tuple[KeyList, ...]]:
    """The lists of each of a run's last batches, the first of which also has the extracts `first`.

    A list is never cut: the keys that it lacks would be taken for deleted.
    """
    count, group = sum(object_count(contract, extract.table, extract.role) for extract in first), list[KeyList]()
    for keys in lists:
        more = len(keys.objects) * object_count(contract, keys.table)
        if count and count + more > object_limit:
            yield tuple(group)
            count, group = 0, []
        count += more
        group.append(keys)
    yield tuple(group)


@dataclass
class _Parts:
    """Takes the lines of a list as they come, and writes an object whenever there are enough."""

    destination: Destination
    table: str
    index: int
    refs: list[ObjectRef] = field(default_factory=list)
    waiting: bytearray = field(default_factory=bytearray)

    async def take(self, piece: bytes) -> None:
        self.waiting += piece
        if len(self.waiting) >= PART_BYTES and (end := self.waiting.rfind(b"\n") + 1):
            lines = bytes(self.waiting[:end])
            del self.waiting[:end]
            await self._write(lines)

    async def end(self) -> None:
        if self.waiting:
            await self._write(bytes(self.waiting))

    async def _write(self, lines: bytes) -> None:
        store = self.destination.store
        body = await asyncio.to_thread(packed, lines)
        key_of = partial(store.keys.batch(self.destination.run, self.index).key_list, self.table)
        ref = await put_addressed(store.objects, store.landing_bucket, key_of, body, row_count=lines.count(b"\n"))
        self.refs.append(ref)
