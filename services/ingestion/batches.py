"""What a run's batches contain: the extracts of its rows, the hashes of other keys, and which rows are gone.

Hashes let loading ask which rows are gone (docs/decisions/0015-deletes-by-look-up.md).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import add, gt

from contracts.contract import Contract
from contracts.key_hashes import KeyHashes, TableHashes
from contracts.messages import Extract, Role, RowsOf
from contracts.objects import BatchKeys, ObjectRef, extract_name
from services.ingestion.plan import Plan
from services.ingestion.reports import report_empty_table
from services.ingestion.run import Run
from services.ingestion.source import BatchLimits, OpenSnapshot, Page, TablePart
from shared.bundles import encode_bundle
from shared.key_hashes import packed
from shared.parquet import encode_parquet
from shared.source_keys import Key
from shared.source_store import SourceStore

NO_SIZES: tuple[int, ...] = (0, 0, 0)  # of a batch: rows, bytes, objects


@dataclass(frozen=True, slots=True)
class Compared:
    """The source tables whose keys a run compares, and the object with their hashes."""

    tables: frozenset[str]
    hashes: ObjectRef


@dataclass(frozen=True, slots=True)
class Content:
    """What one batch contains. Its rows may still be on their way to the landing bucket."""

    index: int
    writes: Sequence[asyncio.Task[list[Extract]]] = ()
    gone: tuple[RowsOf, ...] = ()  # rows that an answer did not find
    is_answer: bool = False  # whether the batch ends an answer


async def write_extracts(
    run: Run,
    snapshot: OpenSnapshot,
    store: SourceStore,
    limits: BatchLimits,
    group: asyncio.TaskGroup,
    indexes: Iterator[int],
    announce: Callable[[Content], Awaitable[None]],
) -> Content | None:
    """Write every affected row with its partners, by tasks of `group`, and announce each batch that another one follows.

    Pages are read while those before them are parsed, encoded and written. Returns the last batch; None if no row is affected.
    """
    index, batch_sizes, writes, small = 0, NO_SIZES, list[asyncio.Task[list[Extract]]](), list[Page]()

    def all_writes() -> Content:
        keys = run.object_keys.batch(run.number, index)
        return Content(index, [*writes, *([group.create_task(_write_bundle(small, keys, store))] if small else [])])

    async for pages in _own_pages(run.plan, snapshot, limits):
        page_sizes = sizes_of(pages, run.plan.contract)
        batch_sizes = tuple(map(add, batch_sizes, page_sizes))
        if (writes or small) and exceed(batch_sizes, limits):
            await announce(all_writes())
            batch_sizes, writes, small = page_sizes, [], []
        index = index if writes or small else next(indexes)
        small = [*small, *pages]
        if batch_sizes[0] > limits.bundle_rows or batch_sizes[1] > limits.bundle_bytes:
            keys = run.object_keys.batch(run.number, index)
            writes += [group.create_task(write_page(page, keys, store)) for page in small]
            small = []
    return all_writes() if writes or small else None


async def _own_pages(plan: Plan, snapshot: OpenSnapshot, limits: BatchLimits) -> AsyncIterator[list[Page]]:
    """What the run reads itself: all but the parts of large tables."""
    for table in plan.contract.source_tables:
        for rows in plan.missing.get(table.name, ()) if table.name not in plan.shared else ():
            async for pages in snapshot.pages(plan.every_row, limits, TablePart(table, rows)):
                yield pages
    async for pages in snapshot.pages(plan, limits):
        yield pages


def sizes_of(pages: Sequence[Page], contract: Contract) -> tuple[int, ...]:
    """What pages add to each of the sizes of a batch that have a limit."""
    return (
        sum(page.row_count for page in pages),
        sum(page.byte_count for page in pages),
        sum(object_count(contract, page.table.name, page.role) for page in pages),
    )


def exceed(batch_sizes: tuple[int, ...], limits: BatchLimits) -> bool:
    """Whether one of the sizes of a batch is above its limit."""
    return any(map(gt, batch_sizes, (limits.rows, limits.byte_count, limits.objects)))


async def write_page(page: Page, object_keys: BatchKeys, store: SourceStore) -> list[Extract]:
    """Write a page to the landing bucket, as a separate object."""
    body = await asyncio.to_thread(encode_parquet, await page.frame, page.types, page.carried)
    key_of = partial(object_keys.extract, page.table.name, page.role)
    ref = await store.put_landing(key_of, body, row_count=page.row_count)
    return [Extract(table=page.table.name, role=page.role, object=ref, whole_run=page.whole_run)]


async def _write_bundle(pages: Sequence[Page], object_keys: BatchKeys, store: SourceStore) -> list[Extract]:
    parts = [(extract_name(page.table.name, page.role), await page.frame, page.types, page.carried) for page in pages]
    body = await asyncio.to_thread(encode_bundle, parts)
    rows = Counter[tuple[str, Role, int | None]]()
    for page in pages:
        rows[page.table.name, page.role, page.whole_run] += page.row_count
    ref = await store.put_landing(object_keys.bundle, body, row_count=rows.total())
    return [
        Extract(table=table, role=role, object=ref.model_copy(update={"row_count": count}), whole_run=whole_run)
        for (table, role, whole_run), count in rows.items()
    ]


def object_count(contract: Contract, table: str, role: Role = Role.BASE) -> int:
    """How many objects a source table adds to the longer of a batch's two messages: one for each star table."""
    return max(1, len(contract.remodelled_from(table))) if role is Role.BASE else 1


async def write_key_hashes(run: Run, snapshot: OpenSnapshot, index: int, store: SourceStore) -> Compared | None:
    """Write the hashes of the keys of every table that the run compares, as part of batch `index`; None if it compares none.

    A table of the star with a filter has hashes of its own. A table without rows is left out, unless the command believes that
    it is really empty: every row of the star would be in question.
    """
    tables = list[TableHashes]()
    for table in run.plan.compared_tables:
        if run.plan.believe_empty or not await snapshot.is_empty(table):
            stars = (star if star.where is not None else None for star in run.plan.contract.remodelled_from(table.name))
            tables += [await snapshot.key_hashes(run.plan, table, star) for star in dict.fromkeys(stars)]
        else:
            report_empty_table(run, table.name)
    if not tables:
        return None
    hashes = KeyHashes(
        run=run.number,
        previous=run.before.run if run.before else None,
        taken_at=run.facts.snapshot.taken_at,
        tables=tuple(tables),
    )
    body = await asyncio.to_thread(packed, hashes)
    key_of = run.object_keys.batch(run.number, index).key_hashes
    row_count = sum(sum(table.counts) for table in tables)
    return Compared(frozenset(table.table for table in tables), await store.put_landing(key_of, body, row_count=row_count))


async def with_rows_in_question(plan: Plan, snapshot: OpenSnapshot) -> Plan:
    """The plan, which also reads the rows in question that exist, if a filter may leave them out: only their images tell."""
    reread = dict(plan.reread)
    for table in plan.contract.source_tables:
        if (keys := plan.looked_up.get(table.name)) and plan.contract.has_filter(table.name):
            missing = set(await snapshot.missing_keys(table, keys))
            reread[table.name] = tuple(key for key in keys if key not in missing)
    return replace(plan, reread=reread)


async def missing_rows(run: Run, snapshot: OpenSnapshot, limits: BatchLimits) -> AsyncIterator[RowsOf]:
    """Look up the keys that the plan asks for, and yield those that the source lacks, as many as one batch may name.

    Nothing is missing from a table without rows, unless the command believes that it is really empty.
    """
    for table in run.plan.contract.source_tables:
        keys = run.plan.looked_up.get(table.name, ())
        if not keys or not (run.plan.believe_empty or not await snapshot.is_empty(table)):
            continue
        part, size = list[Key](), 0
        for key in await snapshot.missing_keys(table, keys):
            more = len(json.dumps(key)) + 1  # escaped: never fewer bytes than the same text in UTF-8
            if part and (len(part) == limits.gone_keys or size + more > limits.gone_bytes):
                yield RowsOf(table=table.name, keys=tuple(part))
                part, size = [], 0
            part.append(key)
            size += more
        if part:
            yield RowsOf(table=table.name, keys=tuple(part))
