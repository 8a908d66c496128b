"""The proof, run: both databases in one snapshot each, table by table.

The warehouse's snapshot is opened first and says how far it has come (N), the source's after it. Each side hashes its rows by
bucket, and only buckets that differ are looked at row by row. A row that differs is *in flight* when it was written after the
horizon of run N: a later run brings it, and when that is loaded the row is compared again. What then still differs, differs.
A row that the source has no longer is in flight until keys are compared again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Self

import asyncpg

from contracts.tables import Contract, TableKind, WarehouseTable
from services.operator.progress import Progress, highest_run, read_progress
from services.operator.proof.comparison import Difference, Key, Kind, Row, TableVerdict, compare, differing
from services.operator.proof.deleted import Comparisons, last_comparisons
from services.operator.proof.quarantine import open_quarantine
from services.operator.proof.statements import (
    actual_rows,
    digests,
    expected_dates,
    expected_rows,
    relation,
    rows,
    rows_of,
    wrong_dates,
)
from services.operator.proof.verdict import EVERYTHING, Scope, Verdict
from services.operator.system import System
from shared.errors import PermanentError
from shared.object_store import ObjectStore
from shared.postgres import Database

PREFETCH_ROWS = 10_000
SETTLE_POLL = timedelta(milliseconds=500)
SETTLE_KEYS = 1_000  # in one statement


@dataclass(frozen=True, slots=True)
class Look:
    """Both databases at one instant each, the warehouse's first. `begun` is the highest run that had begun a bit later.

    A run above it opened its snapshot after ours, whatever the clocks of the source and of ingestion said.
    """

    source: asyncpg.Connection
    warehouse: asyncpg.Connection
    progress: Progress
    taken_at: dt.datetime
    begun: int
    quarantined: Mapping[str, frozenset[Key]]
    comparisons: Comparisons

    @property
    def horizon(self) -> int | None:
        """Of the last run that the warehouse holds whole."""
        return self.progress.consistent_through.snapshot.horizon if self.progress.consistent_through else None


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof works with."""

    contract: Contract
    source: Database
    warehouse: Database
    objects: ObjectStore
    landing_bucket: str
    processed_bucket: str
    source_name: str

    @classmethod
    def of(cls, system: System) -> Self:
        """The proof of a running system."""
        settings = system.settings
        return cls(
            contract=system.contract,
            source=system.source,
            warehouse=system.warehouse,
            objects=system.objects,
            landing_bucket=settings.landing_bucket,
            processed_bucket=settings.processed_bucket,
            source_name=settings.source_name,
        )

    async def run(self, scope: Scope = EVERYTHING, on_table: Callable[[str], None] = lambda _: None) -> Verdict:
        """Compare the star with the source. `on_table` is told of each table before it is compared.

        Raises: DependencyDownError, PermanentError, TransientError.
        """
        async with self.look() as look:
            verdicts = []
            for table in self.chosen(scope):
                on_table(table.name)
                verdicts.append(await self._compare(look, table, scope.buckets))
        verdict = Verdict(look.progress, look.taken_at, tuple(verdicts), scope.sample)
        if verdict.in_flight and await self._is_passed(look, scope.settle):
            return await self._compare_again(verdict)
        return verdict

    def chosen(self, scope: Scope) -> list[WarehouseTable]:
        """The tables to compare. Raises: PermanentError for a name that the contract does not have."""
        known = [table.name for table in self.contract.warehouse_tables]
        for name in scope.tables:
            if name not in known:
                raise PermanentError(f"the contract '{self.contract.name}' has no warehouse table '{name}', only {known}")
        return [table for table in self.contract.warehouse_tables if not scope.tables or table.name in scope.tables]

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Look]:
        """A snapshot of each database."""
        async with _snapshot(self.warehouse) as warehouse:
            await warehouse.fetchval("SELECT pg_current_snapshot()")  # the snapshot is taken by the first statement
            await self._require_star(warehouse)
            progress = await read_progress(self.objects, self.landing_bucket, self.source_name, warehouse)
            async with _snapshot(self.source) as source:
                taken_at = await source.fetchval("SELECT clock_timestamp()")
                begun = await highest_run(self.objects, self.landing_bucket, self.source_name)  # after the snapshot
                quarantined = await open_quarantine(
                    self.objects, self.processed_bucket, self.source_name, self.contract, warehouse
                )
                comparisons = await last_comparisons(self.objects, warehouse)
                yield Look(source, warehouse, progress, taken_at, begun, quarantined, comparisons)

    async def _require_star(self, warehouse: asyncpg.Connection) -> None:
        for table in self.contract.warehouse_tables:
            if await warehouse.fetchval("SELECT to_regclass($1) IS NULL", relation(self.contract, table)):
                raise PermanentError(f"the warehouse has no table '{table.name}' yet; load it first: `starlift ingest --wait`")

    async def _compare(self, look: Look, table: WarehouseTable, buckets: int) -> TableVerdict:
        if table.kind is TableKind.CALENDAR:
            return await self._compare_calendar(look, table)
        expected, actual = self._queries(look, table)
        left, right = await asyncio.gather(
            look.source.fetch(digests(expected, table), buckets), look.warehouse.fetch(digests(actual, table), buckets)
        )
        equal = set(left) & set(right)
        differing = sorted({record["bucket"] for record in (set(left) ^ set(right))})
        row_count = sum(record["row_count"] for record in equal)
        verdict = TableVerdict(table.name, expected=row_count, actual=row_count, digest=_digest(left))
        if not differing:
            return verdict
        return await self._walk(look, table, verdict, (rows(expected, table), rows(actual, table)), differing)

    def _queries(self, look: Look, table: WarehouseTable) -> tuple[str, str]:
        """On the source, and on the warehouse."""
        compared = look.comparisons.run(table)
        return expected_rows(self.contract, table, look.horizon), actual_rows(self.contract, table, compared)

    async def _walk(
        self, look: Look, table: WarehouseTable, verdict: TableVerdict, sides: tuple[str, str], *arguments: object
    ) -> TableVerdict:
        return await compare(
            verdict,
            _rows(look.source, sides[0], len(table.key), *arguments),
            _rows(look.warehouse, sides[1], len(table.key), *arguments),
            tuple(table.star_types),
            look.quarantined.get(table.name, frozenset()),
            partial(look.comparisons.listed, table),
        )

    async def _compare_calendar(self, look: Look, calendar: WarehouseTable) -> TableVerdict:
        """Dates of older versions stay in the calendar, so none is extra."""
        expected = await look.source.fetch(expected_dates(self.contract, calendar, look.horizon, look.quarantined))
        dates = {row["date"]: row["in_flight"] for row in expected if _is_date(row["date"])}
        verdict = TableVerdict(calendar.name, expected=len(dates), actual=len(dates))
        for row in await look.warehouse.fetch(wrong_dates(self.contract, calendar), list(dates)):
            verdict.actual -= row["is_missing"]
            if row["is_missing"] and dates[row["date"]]:
                verdict.in_flight += 1
            else:
                verdict.differs(Difference(Kind.MISSING if row["is_missing"] else Kind.DIFFERENT, (row["date"],)))
        return verdict

    async def _is_passed(self, look: Look, limit: timedelta) -> bool:
        """Whether, within `limit`, a run that began after `look` is in the warehouse, and all before it."""
        through = look.progress.consistent_through
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while True:
                    async with self.warehouse.connection() as warehouse:
                        progress = await read_progress(
                            self.objects, self.landing_bucket, self.source_name, warehouse, since=through.run if through else 1
                        )
                    if progress.whole_through > look.begun:
                        return True
                    await asyncio.sleep(SETTLE_POLL.total_seconds())
        except TimeoutError:
            return False

    async def _compare_again(self, verdict: Verdict) -> Verdict:
        """The rows that were in flight, now that a later run has brought them, or has not."""
        async with self.look() as look:
            for found in verdict.tables:
                table = self.contract.warehouse_table(found.table)
                if table.kind is TableKind.CALENDAR and found.in_flight:
                    again = await self._compare_calendar(look, table)
                    found.in_flight, found.differences = again.in_flight, again.differences
                elif found.awaited or found.deleted:
                    await self._settle_deleted(look, table, found)
                    await self._settle(look, table, found)
        return replace(verdict, settled_at=look.taken_at)

    async def _settle_deleted(self, look: Look, table: WarehouseTable, found: TableVerdict) -> None:
        """A row that keys were compared for since, and that is still there, differs."""
        deleted, found.deleted = found.deleted, set()
        found.in_flight -= len(deleted)
        expected, actual = self._queries(look, table)
        for keys in _chunks(list(deleted), SETTLE_KEYS):
            sides = rows_of(expected, table, keys), rows_of(actual, table, keys)
            again = await self._walk(look, table, TableVerdict(table.name), sides)
            found.in_flight += again.in_flight
            found.quarantined += again.quarantined
            found.deleted |= again.deleted
            for difference in again.differences:
                found.differs(difference)

    async def _settle(self, look: Look, table: WarehouseTable, found: TableVerdict) -> None:
        """A row that was not written again, and that the warehouse has not got, differs; another is in flight again."""
        awaited, found.awaited = found.awaited, {}
        found.in_flight -= len(awaited)
        for keys in _chunks(list(awaited), SETTLE_KEYS):
            expected, actual = self._queries(look, table)
            wanted = {row.key: row async for row in _rows(look.source, rows_of(expected, table, keys), len(table.key))}
            held = {row.key: row async for row in _rows(look.warehouse, rows_of(actual, table, keys), len(table.key))}
            for key, row in wanted.items():
                found.actual += awaited[key].is_missing and key in held
                if key in held and held[key].values == row.values:
                    continue
                if row.version != awaited[key].version:
                    found.is_awaited(row, is_missing=key not in held)
                elif key in look.quarantined.get(table.name, ()):
                    found.quarantined += 1
                elif key not in held:
                    found.differs(Difference(Kind.MISSING, key))
                else:
                    columns = differing(row.values, held[key].values, tuple(table.star_types))
                    found.differs(Difference(Kind.DIFFERENT, key, columns))


def _digest(buckets: Iterable[asyncpg.Record]) -> str:
    """One hash of a table's buckets, short enough to be read out."""
    lines = sorted(f"{record['bucket']}:{record['row_count']}:{record['digest']}" for record in buckets)
    return sha256("\n".join(lines).encode()).hexdigest()[:16]


def _chunks(keys: list[Key], size: int) -> Iterator[list[Key]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[asyncpg.Connection]:
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


async def _rows(connection: asyncpg.Connection, statement: str, key_length: int, *arguments: object) -> AsyncIterator[Row]:
    async for record in connection.cursor(statement, *arguments, prefetch=PREFETCH_ROWS):
        *key, values, in_flight, version = record
        yield Row(tuple(key[:key_length]), tuple(values), in_flight, version)


def _is_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
