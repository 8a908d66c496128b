"""A PostgreSQL source: pages of rows by COPY, in one REPEATABLE READ transaction."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import asyncpg
import pandas as pd

from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.key_hashes import TableHashes
from contracts.messages import KeyRange, Role
from contracts.state import Checkpoint
from contracts.tables import Path, RemodelledTable, SourceTable
from services.ingestion.plan import Plan, Request, plan_run
from services.ingestion.selection import Selection
from services.ingestion.source import BatchLimits, Page, SnapshotLostError, TablePart
from shared.catalog import SourceMismatchError, key_problem, read_source_facts
from shared.codecs import codec_of
from shared.errors import PermanentError
from shared.key_hashes import select_sums, table_hashes
from shared.key_look_up import found_keys
from shared.parquet import empty_frame
from shared.postgres import Database, UnknownSnapshotError, copy_out
from shared.source_facts import SourceFacts
from shared.source_keys import KEYS_IN_LIST, Key, keys_of

NUMBER_BYTES = 8  # of CSV, about, in a column of the kinds whose bytes a page's query does not sum up


@dataclass(frozen=True, slots=True)
class PostgresSource:
    """The source tables of a contract in a PostgreSQL database."""

    database: Database
    contract: Contract

    def open_snapshot(self, request: Request | None = None) -> AbstractAsyncContextManager[PostgresSnapshot]:  # noqa: ARG002 - the port's
        """See Source."""
        return self._opened(None)

    @asynccontextmanager
    async def _opened(self, exported: str | None) -> AsyncIterator[PostgresSnapshot]:
        opening = self.database.transaction(isolation="repeatable_read", readonly=True, snapshot=exported)
        async with opening as connection:
            yield PostgresSnapshot(connection, self.contract, await read_source_facts(connection, self.contract))

    @asynccontextmanager
    async def join_snapshot(self, exported: str) -> AsyncIterator[PostgresSnapshot]:
        """See Source."""
        try:
            async with self._opened(exported) as snapshot:
                yield snapshot
        except UnknownSnapshotError as error:
            raise SnapshotLostError(str(error)) from error


@dataclass(frozen=True, slots=True)
class PostgresSnapshot:
    """A connection whose open transaction is the snapshot."""

    connection: asyncpg.Connection
    contract: Contract
    facts: SourceFacts

    def plan(self, before: Checkpoint | None, request: Request, compare_keys_every: int) -> Plan:
        """See OpenSnapshot."""
        return plan_run(self.contract, self.facts, before, request, compare_keys_every)

    async def pages(self, plan: Plan, limits: BatchLimits, part: TablePart | None = None) -> AsyncGenerator[list[Page], None]:
        """See OpenSnapshot. A page takes half of a batch's bytes, which leaves the rest to the partners of its rows."""
        selection, byte_limit = _selection(plan), max(1, limits.byte_count // 2)
        everything = (TablePart(table, KeyRange()) for table in self.contract.source_tables if table.name not in plan.left_out)
        for table, within in ((one.table, one.rows) for one in (everything if part is None else [part])):
            if (problem := await key_problem(self.connection, self.contract, table)) is not None:
                raise SourceMismatchError(problem)
            row_bytes, after = self.facts.tables[table.name].row_bytes, within.after
            while True:
                row_bytes = max(row_bytes, NUMBER_BYTES * len(table.columns))
                limit = min(limits.rows, max(1, byte_limit // row_bytes))
                rows = KeyRange(after=after, until=within.until)
                page: Page | None = None
                for query in selection.page(table, within=rows, limit=limit, byte_limit=byte_limit):
                    page = page or await self._page(table, Role.BASE, selection, query)
                if page is None:
                    break
                async for pages in self._with_partners(page, selection, limits):
                    yield pages
                if page.row_count < limit and not _may_be_cut(page, byte_limit):
                    break
                row_bytes = 1 + page.byte_count // page.row_count  # the catalog's estimate may be old, or of compressed values
                (after,) = keys_of(table, (await page.frame).tail(1))
                if after == within.until:
                    break

    async def ranges(self, table: SourceTable, within: KeyRange, row_count: int) -> AsyncIterator[KeyRange]:
        """See OpenSnapshot. PostgreSQL counts along the index of the key: a second for some million rows."""
        rest = within
        while (found := await self.connection.fetchval(_every_row(self.contract).key_at(table, rest, row_count))) is not None:
            key = tuple(json.loads(found))
            if key == within.until:
                break
            yield KeyRange(after=rest.after, until=key)
            rest = KeyRange(after=key, until=within.until)
        yield rest

    async def export(self) -> str:
        """See OpenSnapshot."""
        return str(await self.connection.fetchval("SELECT pg_export_snapshot()"))

    async def key_hashes(self, plan: Plan, table: SourceTable, star: RemodelledTable | None = None) -> TableHashes:
        """See OpenSnapshot."""
        found = list[asyncpg.Record]()
        if (query := _selection(plan).unread_hashes(table, star)) is not None:
            with _naming_undecodable(table.name):
                found = await self.connection.fetch(select_sums(query))
        sums = ((row["bucket"], row["count"], int(row["sum"])) for row in found)
        return table_hashes(table.name, sums, star_table=star.name if star else None, believe_empty=plan.believe_empty)

    async def is_empty(self, table: SourceTable) -> bool:
        """See OpenSnapshot."""
        return bool(await self.connection.fetchval(_every_row(self.contract).has_no_row(table)))

    async def missing_keys(self, table: SourceTable, keys: Sequence[Key]) -> tuple[Key, ...]:
        """See OpenSnapshot."""
        found = await found_keys(self.connection, self.contract, table, keys)
        return tuple(key for key in keys if key not in found)

    async def completed(self, plan: Plan) -> None:
        """See OpenSnapshot."""

    async def _with_partners(self, page: Page, selection: Selection, limits: BatchLimits) -> AsyncIterator[list[Page]]:
        """The page with the partners of its rows; if these have too many bytes, each half of the page with its own."""
        partners = await self._partners(page, selection, limits)
        if partners is not None:
            yield [page, *partners]
            return
        middle = page.row_count // 2
        for start, stop in ((0, middle), (middle, page.row_count)):
            async for pages in self._with_partners(_part(page, start, stop), selection, limits):
                yield pages

    async def _partners(self, page: Page, selection: Selection, limits: BatchLimits) -> list[Page] | None:
        """The partners of the rows of a page, a page for each table; None if they have too many bytes for more than one row.

        A row to which several paths lead is read once.
        """
        byte_limit, paths = limits.byte_count - page.byte_count, self.contract.paths_of(page.table.name)
        at_end: dict[Path, pd.DataFrame] = {(): await page.frame}  # the rows from which other paths go on
        read: dict[str, list[Page]] = {}
        for path in paths:
            table = self.contract.source_table(path[-1].table)
            wanted, pages = references(at_end[path[:-1]], path[-1].on), read.setdefault(table.name, [])
            missing = sorted(wanted - references(await _rows(pages), table.key) if pages else wanted)
            for start in range(0, len(missing), KEYS_IN_LIST):
                query = selection.partners(table, missing[start : start + KEYS_IN_LIST], byte_limit=max(1, byte_limit))
                partners = await self._page(table, Role.PARTNER, selection, query)
                if partners is None:
                    continue
                if page.row_count > 1 and _may_be_cut(partners, byte_limit):
                    return None
                byte_limit -= partners.byte_count
                pages.append(partners)
            if any(other[:-1] == path for other in paths):
                at_end[path] = _with_keys(await _rows(pages), table, wanted) if pages else empty_frame(selection.types(table))
        return [_merged(pages) for pages in read.values() if pages]

    async def _page(self, table: SourceTable, role: Role, selection: Selection, query: str) -> Page | None:
        """The rows of a query; None if it has none, as in most tables of most runs: parsing nothing takes as long as a row."""
        null = null_marker()
        with _naming_undecodable(table.name):
            csv, row_count = await copy_out(self.connection, query, null=null)
        if not row_count:
            return None
        types = selection.types(table)
        frame = asyncio.create_task(asyncio.to_thread(parse_csv, csv, types, null))
        return Page(table, role, types, row_count, len(csv), frame)


def _every_row(contract: Contract) -> Selection:
    return Selection(contract, frozenset(), None)


def _selection(plan: Plan) -> Selection:
    horizon = None if plan.since is None else plan.since.horizon
    return Selection(
        plan.contract,
        plan.full_tables,
        horizon,
        orphans=plan.reads_orphans,
        reread=plan.reread,
        carried=plan.carried,
        missing=plan.missing,
    )


@contextmanager
def _naming_undecodable(table: str) -> Iterator[None]:
    """Raises: PermanentError for a text without an equivalent in UTF-8, which PostgreSQL reports without its place."""
    try:
        yield
    except (asyncpg.UntranslatableCharacterError, asyncpg.CharacterNotInRepertoireError) as error:
        raise PermanentError(
            f"a text of table '{table}' has no equivalent in UTF-8 ({type(error).__name__}; the text is withheld); correct it "
            "at the source, then replay the dead letters"
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


async def _rows(pages: Sequence[Page]) -> pd.DataFrame:
    return pd.concat([await page.frame for page in pages], ignore_index=True)


def _merged(pages: Sequence[Page]) -> Page:
    """Pages of one table as one page: a batch's messages name each page's object."""
    row_count, byte_count = sum(page.row_count for page in pages), sum(page.byte_count for page in pages)
    return replace(pages[0], row_count=row_count, byte_count=byte_count, frame=asyncio.create_task(_rows(pages)))


def references(rows: pd.DataFrame, columns: Sequence[str]) -> set[Key]:
    """The different values of some columns, without those of which one is NULL."""
    known = rows.dropna(subset=list(columns))
    return set(zip(*(known[name].tolist() for name in columns), strict=True))


def _with_keys(rows: pd.DataFrame, table: SourceTable, keys: AbstractSet[Key]) -> pd.DataFrame:
    return rows[[key in keys for key in zip(*(rows[name].tolist() for name in table.key), strict=True)]]


def null_marker(token: Callable[[int], str] = secrets.token_hex) -> str:
    """What stands for NULL in one CSV. pandas can't tell a quoted empty text from an unquoted one, so no value may equal it.

    It must not read as a number either, as some twelve hexadecimal digits do: pandas takes every spelling of it for NULL.
    """
    return "N" + token(6)


def parse_csv(csv: bytes, types: Mapping[str, ColumnType], null: str) -> pd.DataFrame:
    """The rows of a CSV without a header, in the form of shared.codecs."""
    return pd.read_csv(
        io.BytesIO(csv),
        header=None,
        names=list(types),
        dtype={name: codec_of(kind).frame for name, kind in types.items()},
        na_values=[null],
        keep_default_na=False,
        lineterminator="\n",
        low_memory=False,
    )
