"""The proof, run: both databases in one snapshot each, table by table.

The warehouse's snapshot is opened first and says how far it has come (N), the source's after it. A row that differs is
*in flight* when it was written after the horizon of run N: a later run brings it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import asyncpg

from contracts.tables import Contract, TableKind, WarehouseTable
from services.operator.progress import Progress, read_progress
from services.operator.proof.comparison import Difference, Kind, Row, TableVerdict, compare
from services.operator.proof.quarantine import open_quarantine
from services.operator.proof.statements import actual_rows, expected_dates, expected_rows, relation, wrong_dates
from services.operator.system import System
from shared.errors import PermanentError
from shared.object_store import ObjectStore
from shared.postgres import Database

PREFETCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proof found: as of which run, at which time of the source, table by table."""

    progress: Progress
    taken_at: dt.datetime
    tables: tuple[TableVerdict, ...]

    @property
    def is_equal(self) -> bool:
        """Whether the warehouse holds what it should, rows in flight and in quarantine aside.

        Not while batches are overdue: rows would be in flight for ever.
        """
        return not self.progress.overdue and all(table.is_equal for table in self.tables)

    @property
    def in_flight(self) -> int:
        """Rows that differ because no loaded run could see them yet."""
        return sum(table.in_flight for table in self.tables)

    @property
    def quarantined(self) -> int:
        """Rows that differ because the warehouse can't hold them."""
        return sum(table.quarantined for table in self.tables)


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """For scripts: names are stable, times ISO 8601, keys and values in their canonical text."""
    through = verdict.progress.consistent_through
    return {
        "equal": verdict.is_equal,
        "as_of_run": through.run if through else None,
        "taken_at": verdict.taken_at.isoformat(),
        "overdue_batches": verdict.progress.overdue,
        "in_flight": verdict.in_flight,
        "quarantined": verdict.quarantined,
        "tables": {
            table.table: {
                "expected": table.expected,
                "actual": table.actual,
                "in_flight": table.in_flight,
                "quarantined": table.quarantined,
                "differences": [
                    {
                        "kind": difference.kind.value,
                        "key": list(difference.key),
                        "columns": {
                            name: {"expected": expected, "actual": actual}
                            for name, (expected, actual) in difference.columns.items()
                        },
                    }
                    for difference in table.differences
                ],
            }
            for table in verdict.tables
        },
    }


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof works with. `on_table` is told of each table before it is compared."""

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

    async def run(self, on_table: Callable[[str], None] = lambda _: None) -> Verdict:
        """Compare every table of the star. Raises: DependencyDownError, PermanentError, TransientError."""
        async with _snapshot(self.warehouse) as warehouse:
            await warehouse.fetchval("SELECT pg_current_snapshot()")  # the snapshot is taken by the first statement
            await self._require_star(warehouse)
            progress = await read_progress(self.objects, self.landing_bucket, self.source_name, warehouse)
            async with _snapshot(self.source) as source:
                taken_at = await source.fetchval("SELECT clock_timestamp()")
                horizon = progress.consistent_through.snapshot.horizon if progress.consistent_through else None
                quarantined = await open_quarantine(
                    self.objects, self.processed_bucket, self.source_name, self.contract, warehouse
                )
                verdicts = []
                for table in self.contract.warehouse_tables:
                    on_table(table.name)
                    if table.kind is TableKind.CALENDAR:
                        statement = expected_dates(self.contract, table, horizon, quarantined)
                        verdicts.append(await self._compare_calendar(table, await source.fetch(statement), warehouse))
                        continue
                    keys = quarantined.get(table.name, frozenset())
                    expected = _rows(source, expected_rows(self.contract, table, horizon), len(table.key))
                    actual = _rows(warehouse, actual_rows(self.contract, table), len(table.key))
                    verdicts.append(await compare(TableVerdict(table.name), expected, actual, tuple(table.star_types), keys))
        return Verdict(progress, taken_at, tuple(verdicts))

    async def _require_star(self, warehouse: asyncpg.Connection) -> None:
        for table in self.contract.warehouse_tables:
            if await warehouse.fetchval("SELECT to_regclass($1) IS NULL", relation(self.contract, table)):
                raise PermanentError(f"the warehouse has no table '{table.name}' yet; load it first: `starlift ingest --wait`")

    async def _compare_calendar(
        self, calendar: WarehouseTable, expected: Iterable[asyncpg.Record], warehouse: asyncpg.Connection
    ) -> TableVerdict:
        """Dates of older versions stay in the calendar, so none is extra."""
        dates = {row["date"]: row["in_flight"] for row in expected if _is_date(row["date"])}
        verdict = TableVerdict(calendar.name, expected=len(dates), actual=len(dates))
        for row in await warehouse.fetch(wrong_dates(self.contract, calendar), list(dates)):
            verdict.actual -= row["is_missing"]
            if row["is_missing"] and dates[row["date"]]:
                verdict.in_flight += 1
            else:
                kind = Kind.MISSING if row["is_missing"] else Kind.DIFFERENT
                verdict.differences.append(Difference(kind, (row["date"],)))
        return verdict


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[asyncpg.Connection]:
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


async def _rows(connection: asyncpg.Connection, statement: str, key_length: int) -> AsyncIterator[Row]:
    async for record in connection.cursor(statement, prefetch=PREFETCH_ROWS):
        *key, values, in_flight = record
        yield Row(tuple(key[:key_length]), tuple(values), in_flight)


def _is_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
