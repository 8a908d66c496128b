"""The rows of a run: read page by page in one snapshot, each with its partners, written as Parquet, cut into batches."""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import asyncpg
import pandas as pd

from contracts.column_types import ColumnType, Kind
from contracts.contract import Contract
from contracts.messages import MESSAGE_BYTES_MAXIMUM, Extract, Role
from contracts.tables import SourceTable
from services.ingestion.selection import ROW_BYTES_MAXIMUM, Selection
from shared.catalog import SourceTableFacts
from shared.errors import PermanentError
from shared.key_lists import keys_of
from shared.object_store import put_addressed
from shared.parquet import PANDAS_TYPES, encode_parquet
from shared.postgres import copy_out
from shared.source_store import SourceStore

BATCH_ROWS = 250_000  # larger batches gain nothing, and their transactions hold locks for longer
BATCH_BYTES = ROW_BYTES_MAXIMUM  # of CSV; a service with two slots has two batches in memory, in several forms at a time
# Objects that a batch's messages name, each in at most 1,000 bytes, half of what SQS accepts: a dead letter also needs room.
BATCH_OBJECTS = MESSAGE_BYTES_MAXIMUM // 2 // 1_000
NUMBER_BYTES = 8  # of CSV, about, in a column of the kinds whose bytes a page's query doesn't sum up
PARTNER_KEYS = 10_000  # in one IN list


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the extracts of a run go."""

    store: SourceStore
    run: int


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one table; `frame` (in the physical form of shared.parquet) is being parsed while the next page is read.

    `types` are those of its columns; some may be none of the contract's, and are carried. `byte_count` is of its CSV.
    """

    table: SourceTable
    role: Role
    types: Mapping[str, ColumnType]
    row_count: int
    byte_count: int
    frame: asyncio.Task[pd.DataFrame]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads pages over one connection, whose open transaction is the run's snapshot.

    Half of a batch's bytes are for a page, which leaves the rest to the partners of its rows.
    """

    connection: asyncpg.Connection
    selection: Selection
    facts: Mapping[str, SourceTableFacts]
    batch_rows: int = BATCH_ROWS
    batch_bytes: int = BATCH_BYTES
    batch_objects: int = BATCH_OBJECTS

    async def self_contained(self) -> AsyncIterator[list[Page]]:
        """Yield every affected row: one page of a table at a time, together with the partners of its rows.

        They have `batch_bytes` at most together, except a single row and its partners.
        """
        byte_limit = self.batch_bytes // 2
        for table in self.selection.contract.source_tables:
            row_bytes, after = self.facts[table.name].row_bytes, None
            while True:
                row_bytes = max(row_bytes, NUMBER_BYTES * len(table.columns))
                limit = min(self.batch_rows, max(1, byte_limit // row_bytes))
                query = self.selection.page(table, after=after, limit=limit, byte_limit=byte_limit)
                page = await self._page(table, Role.BASE, query)
                if page.row_count:
                    async for pages in self._with_partners(page):
                        yield pages
                if page.row_count < limit and not _may_be_cut(page, byte_limit):
                    break
                row_bytes = 1 + page.byte_count // page.row_count  # the catalog's estimate may be old, or of compressed values
                (after,) = keys_of(table, (await page.frame).tail(1))

    async def _with_partners(self, page: Page) -> AsyncIterator[list[Page]]:
        """The page with the partners of its rows; if these have too many bytes, each half of the page with its own."""
        partners = await self._partners(page)
        if partners is not None:
            yield [page, *partners]
            return
        middle = page.row_count // 2
        for start, stop in ((0, middle), (middle, page.row_count)):
            async for pages in self._with_partners(_part(page, start, stop)):
                yield pages

    async def _partners(self, page: Page) -> list[Page] | None:
        """The partners of the rows of a page; None if they have too many bytes and the page more than one row."""
        contract, pages = self.selection.contract, list[Page]()
        byte_limit = self.batch_bytes - page.byte_count
        for lookup in contract.lookups_of(page.table.name):
            keys = sorted((await page.frame)[lookup.on].dropna().unique().tolist())
            for start in range(0, len(keys), PARTNER_KEYS):
                query = self.selection.partners(lookup, keys[start : start + PARTNER_KEYS], byte_limit=max(1, byte_limit))
                partner = await self._page(contract.source_table(lookup.table), Role.PARTNER, query)
                pages.append(partner)
                if page.row_count > 1 and _may_be_cut(partner, byte_limit):
                    return None
                byte_limit -= partner.byte_count
        return pages

    async def _page(self, table: SourceTable, role: Role, query: str) -> Page:
        null = null_marker()
        with _table_named(table.name):
            csv, row_count = await copy_out(self.connection, query, null=null)
        types = self.selection.types(table)
        return Page(
            table, role, types, row_count, len(csv), asyncio.create_task(asyncio.to_thread(parse_csv, csv, types, null))
        )


async def read_batches(reader: Reader, destination: Destination) -> AsyncIterator[tuple[Extract, ...]]:
    """Yield every affected row with its partners, in batches within the limits of `reader`; none if nothing was affected.

    Holds the rows of one batch and one page in memory.
    """
    index, limits = 0, (reader.batch_rows, reader.batch_bytes, reader.batch_objects)
    counts, writes = [0, 0, 0], list[asyncio.Task[Extract]]()
    try:
        async for pages in reader.self_contained():
            more = [
                sum(page.row_count for page in pages),
                sum(page.byte_count for page in pages),
                sum(object_count(reader.selection.contract, page.table.name, page.role) for page in pages),
            ]
            counts = [count + further for count, further in zip(counts, more, strict=True)]
            if writes and any(count > limit for count, limit in zip(counts, limits, strict=True)):
                yield tuple(await asyncio.gather(*writes))
                index, counts, writes = index + 1, more, []
            writes += [asyncio.create_task(write_page(page, index, destination)) for page in pages]
        if writes:
            yield tuple(await asyncio.gather(*writes))
    finally:
        for write in writes:
            write.cancel()


def object_count(contract: Contract, table: str, role: Role = Role.BASE) -> int:
    """How many objects a source table adds to the longer of a batch's two messages: one for each star table."""
    return max(1, len(contract.remodelled_from(table))) if role is Role.BASE else 1


async def write_page(page: Page, index: int, destination: Destination) -> Extract:
    """Write a page to the landing bucket, as part of the batch `index`."""
    body = await asyncio.to_thread(_encoded, await page.frame, page)
    store = destination.store
    key_of = partial(store.keys.batch(destination.run, index).extract, page.table.name, page.role)
    ref = await put_addressed(store.objects, store.landing_bucket, key_of, body, row_count=page.row_count)
    return Extract(table=page.table.name, role=page.role, object=ref)


@contextmanager
def _table_named(table: str) -> Iterator[None]:
    """Raises: PermanentError for a text without an equivalent in UTF-8, which PostgreSQL reports without its place."""
    try:
        yield
    except (asyncpg.UntranslatableCharacterError, asyncpg.CharacterNotInRepertoireError) as error:
        raise PermanentError(
            f"a text of table '{table}' has no equivalent in UTF-8 ({type(error).__name__}; it is withheld); correct it at the "
            "source, then replay the dead letters"
        ) from error


def _may_be_cut(page: Page, byte_limit: int) -> bool:
    """Whether a page may have been cut by its bytes.

    A query sums up bytes in the encoding of the source; as CSV in UTF-8 there may be fewer (three quarters of MULE_INTERNAL's).
    """
    return page.byte_count * 2 >= byte_limit


def _part(page: Page, start: int, stop: int) -> Page:
    """Some rows of a page."""

    async def rows() -> pd.DataFrame:
        return (await page.frame).iloc[start:stop].reset_index(drop=True)

    row_count = stop - start
    byte_count = page.byte_count * row_count // page.row_count
    return replace(page, row_count=row_count, byte_count=byte_count, frame=asyncio.create_task(rows()))


def null_marker() -> str:
    """What stands for NULL in one CSV: pandas can't tell a quoted empty text from an unquoted one, so it has to be a surprise.

    And no number, as some twelve hexadecimal digits are: pandas takes every other spelling of it for NULL, too.
    """
    return "N" + secrets.token_hex(6)


def parse_csv(csv: bytes, types: Mapping[str, ColumnType], null: str) -> pd.DataFrame:
    """The rows of a CSV without a header, in the physical form of shared.parquet."""
    frame = pd.read_csv(
        io.BytesIO(csv),
        header=None,
        names=list(types),
        dtype={name: "Int64" if kind.kind is Kind.BOOLEAN else PANDAS_TYPES[kind.kind] for name, kind in types.items()},
        na_values=[null],
        keep_default_na=False,
        lineterminator="\n",
        low_memory=False,
    )
    return frame.astype({name: "boolean" for name, kind in types.items() if kind.kind is Kind.BOOLEAN})


def _encoded(frame: pd.DataFrame, page: Page) -> bytes:
    carried = [name for name in page.types if name not in page.table.extract_types]
    return encode_parquet(frame, page.types, carried)
