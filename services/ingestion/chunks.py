"""Reading the large tables of a full read in parts, by any task of ingestion, in the snapshot of one run.

The run exports its snapshot, cuts each large table into ranges of keys, and sends a command for each. A task that receives
one joins the snapshot, extracts the range, records that in S3, and announces the batch. Meanwhile the run reads the small
tables; then it waits until every command is recorded, and ends as any run does. The reasons, at length, are in
docs/decisions/0020-a-first-load-by-many-tasks.md:

- *One extraction counts.* A command may be delivered twice, and two tasks may cut a range differently, if their versions differ
  or their limits do. The record is written only if there is none, and what is announced is what is recorded: so the run goes on
  where the recorded batch ends. A task that dies before it announces gets the command again, finds the record and announces it.
- *A range is a batch, or more.* What does not fit into a batch is left, and the record says so; the run sends the rest as a
  command of its own. So only the run assigns indexes, without a gap, and its last batch has the highest.
- *No other task is needed.* The run itself extracts a chunk that no task records. So a lost command costs time, and a row
  that can't be read fails the run, with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from operator import add

import structlog

from contracts.messages import BatchIngested, BatchIngestedData, Extract, ExtractChunk, ExtractChunkData, KeyRange, encode
from contracts.state import Chunk
from services.ingestion.batches import NO_SIZES, exceed, sizes_of, write_page
from services.ingestion.plan import Plan
from services.ingestion.reports import report_batch
from services.ingestion.run import EVENT_SOURCE, Run
from services.ingestion.source import BatchLimits, OpenSnapshot, TablePart
from shared.envelope import caused_by
from shared.errors import decisive
from shared.queue import Queue
from shared.source_facts import SourceFacts
from shared.source_keys import keys_of
from shared.source_store import SourceStore

LARGE = 20  # batches: the run itself reads a smaller table in some seconds, and sharing it would cost more than that saves
WAITING = 100  # commands at most: they wait for minutes, not for hours, and no queue's alarm goes off
LOOK = timedelta(milliseconds=500)  # between two checks for records
PATIENCE = timedelta(seconds=20)  # without a new record: then the run extracts a chunk itself
LEAST = 10  # a chunk has at least a tenth of a batch's rows, whatever size the catalog estimates for them

_log = structlog.stdlib.get_logger()


def large_tables(plan: Plan, facts: SourceFacts, limits: BatchLimits) -> frozenset[str]:
    """The tables that a full read shares out, if any. One without a unique index can't be cut into ranges.

    Of an unfinished load, also those of which it has recorded a chunk, however little is missing.
    """
    tables = {table.name: facts.tables[table.name].row_count for table in plan.contract.source_tables if not table.full}
    if plan.is_full:
        return frozenset(name for name, row_count in tables.items() if row_count > LARGE * limits.rows)
    is_large = {name: rows != (KeyRange(),) or tables.get(name, 0) > LARGE * limits.rows for name, rows in plan.missing.items()}
    return frozenset(name for name, is_one in is_large.items() if is_one)


@dataclass
class Chunks:
    """The chunks of a run: the commands that are not recorded yet, and the batches of those that are."""

    run: Run
    snapshot: OpenSnapshot
    store: SourceStore
    limits: BatchLimits
    queue: Queue  # of the commands
    remodelling: Queue
    indexes: Iterator[int]  # of the run's batches
    exported: str
    commands: dict[int, ExtractChunk] = field(default_factory=dict)
    batches: dict[int, BatchIngested] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with the first large table."""
        self._parts = self._ranges()

    async def send(self) -> None:
        """Send commands until as many wait as ever should, or there are no more."""
        while len(self.commands) < WAITING and (part := await anext(self._parts, None)) is not None:
            await self._send(*part)

    async def _ranges(self) -> AsyncIterator[tuple[TablePart, KeyRange]]:
        """Every part of the large tables, with the range that it is cut from."""
        for table in self.run.plan.contract.source_tables:
            if table.name in self.run.plan.shared:
                fitting = self.limits.byte_count // 2 // self.run.facts.tables[table.name].row_bytes
                row_count = max(1, self.limits.rows // LEAST, min(self.limits.rows, fitting))
                for within in self.run.plan.missing.get(table.name, (KeyRange(),)):
                    async for rows in self.snapshot.ranges(table, within, row_count):
                        yield TablePart(table, rows), within

    async def _send(self, part: TablePart, within: KeyRange) -> None:
        index, run = next(self.indexes), self.run
        data = ExtractChunkData(
            source_name=self.store.source,
            run=run.number,
            index=index,
            contract=run.plan.contract.fingerprint,
            snapshot=run.facts.snapshot,
            next_xid=run.facts.next_xid,
            exported=self.exported,
            table=part.table.name,
            rows=part.rows,
            within=within,
        )
        subject = self.store.keys.batch(run.number, index).batch_id
        command = ExtractChunk(**caused_by(run.command, EVENT_SOURCE, subject=subject, name="extract_chunk"), data=data)
        self.commands[index] = command
        await self.queue.send(encode(command))

    async def finish(self) -> list[BatchIngested]:
        """Wait until every chunk is recorded, and return their batches. A chunk that no task records is extracted here."""
        loop = asyncio.get_running_loop()
        own, heard_at = set[int](), loop.time()
        while self.commands:
            found = await self._recorded()
            await self.send()
            if found - own:
                heard_at = loop.time()
            elif loop.time() - heard_at < PATIENCE.total_seconds():
                await asyncio.sleep(LOOK.total_seconds())
            elif self.commands:
                index, command = next(iter(self.commands.items()))
                own.add(index)
                chunk = await extract(command, self.snapshot, self.run.plan.every_row, self.store, self.limits)
                await announce_chunk(chunk, self.remodelling)
        return list(self.batches.values())

    async def _recorded(self) -> set[int]:
        """Take over what was recorded since the last check, and send commands for what did not fit; return the indexes."""
        found = set[int]()
        for chunk in await self.store.chunks_of(self.run.number, after=min(self.commands) - 1, known=self.batches):
            index = chunk.batch.data.index
            command = self.commands.pop(index)
            self.batches[index] = chunk.batch
            found.add(index)
            if not chunk.is_whole:
                rest = KeyRange(after=chunk.rows.until, until=command.data.rows.until)
                await self._send(TablePart(self.run.plan.contract.source_table(chunk.table), rest), chunk.within)
        return found


async def extract(command: ExtractChunk, snapshot: OpenSnapshot, plan: Plan, store: SourceStore, limits: BatchLimits) -> Chunk:
    """Write the rows of a chunk, as many as a batch holds, and record them; return what is recorded of it."""
    data, table = command.data, plan.contract.source_table(command.data.table)
    keys, part = store.keys.batch(data.run, data.index), TablePart(table, data.rows)
    writes, sizes, last, is_whole = list[asyncio.Task[list[Extract]]](), NO_SIZES, data.rows.after, True
    try:
        async with asyncio.TaskGroup() as group, aclosing(snapshot.pages(plan, limits, part)) as found:
            async for pages in found:
                sizes = tuple(map(add, sizes, sizes_of(pages, plan.contract)))
                if writes and exceed(sizes, limits):
                    is_whole = False
                    break
                writes += [group.create_task(write_page(page, keys, store)) for page in pages]
                (last,) = keys_of(table, (await pages[0].frame).tail(1))
    except ExceptionGroup as errors:
        raise decisive(errors) from errors
    batch = BatchIngested(
        **caused_by(command, EVENT_SOURCE, subject=keys.batch_id, name="batch_ingested"),
        data=BatchIngestedData(
            source_name=data.source_name,
            run=data.run,
            batch_id=keys.batch_id,
            index=data.index,
            is_last=False,
            snapshot=data.snapshot,
            extracts=tuple(extract for task in writes for extract in task.result()),
        ),
    )
    rows = KeyRange(after=data.rows.after, until=data.rows.until if is_whole else last)
    return await store.record_chunk(Chunk(table=data.table, rows=rows, within=data.within, is_whole=is_whole, batch=batch))


async def announce_chunk(chunk: Chunk, remodelling: Queue) -> None:
    """Announce the batch of a recorded chunk; it may have been announced before."""
    await remodelling.send(encode(chunk.batch))
    report_batch(chunk.batch)
