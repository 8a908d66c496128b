"""Both databases in one snapshot each, and what is known of them at that moment."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from contracts.tables import WarehouseTable
from services.operator.progress import Progress
from services.operator.proof.comparison import Key, Refusal, Row
from services.operator.proof.deleted import Comparisons
from services.operator.proof.statements import Unseen
from shared.postgres import Database, classed_errors
from shared.source_snapshot import SourceSnapshot, distrust, redefined

PREFETCH_ROWS = 10_000

Left = TypeVar("Left")
Right = TypeVar("Right")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two databases, in a snapshot. Errors say which: the two are open at once, one inside the other."""

    name: str
    connection: asyncpg.Connection

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Every row. Raises: DependencyDownError, PermanentError, TransientError."""
        with classed_errors(self.name):
            return await self.connection.fetch(statement, *arguments)

    async def rows(self, statement: str, key_length: int, *arguments: object) -> AsyncIterator[Row]:
        """The star rows of a query of the proof, a few at a time. Raises: as `fetch`."""
        with classed_errors(self.name):
            async for record in self.connection.cursor(statement, *arguments, prefetch=PREFETCH_ROWS):
                *key, values, in_flight, version = record
                yield Row(tuple(key[:key_length]), tuple(values), in_flight, version)


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Side]:
    """A transaction that sees the database as it was at its first statement."""
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield Side(database.name, connection)


@dataclass(frozen=True, slots=True)
class Look:
    """Both databases at one instant each, the warehouse's first. `begun` is the highest run that had begun a bit later.

    Source tables are `redefined` if the warehouse can't have all their rows anew: see `unread_tables`; `versionless` ones have
    no transaction ids that the role may read.
    A run above it opened its snapshot after ours, whatever the clocks of the source and of ingestion said.
    """

    source: Side
    warehouse: Side
    progress: Progress
    taken_at: dt.datetime
    begun: int
    refused: Mapping[str, Mapping[Key, Refusal]]
    comparisons: Comparisons
    redefined: frozenset[str]
    versionless: frozenset[str]

    @property
    def newest(self) -> int:
        """No row was loaded by a run above it. A lost state begins again at the milliseconds since 1970."""
        return max(self.begun, int(self.taken_at.timestamp() * 1000))

    @property
    def through(self) -> int:
        """The run N through which the warehouse holds all; 0 before the first."""
        return self.progress.consistent_through.run if self.progress.consistent_through else 0

    def unseen(self, table: WarehouseTable) -> Unseen:
        """What of the rows of `table` no loaded run can have seen."""
        last = self.progress.consistent_through
        orphans = self.comparisons.run(table) is not None
        return Unseen(last.snapshot.horizon if last else None, orphans, self.redefined, self.versionless)


async def both(left: Awaitable[Left], right: Awaitable[Right]) -> tuple[Left, Right]:
    """What both sides answer, asked at once.

    If one fails the other is waited for: a connection that is left while it works would tell of that, and not of the failure.
    """
    first, second = await asyncio.gather(left, right, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


def unread_tables(now: SourceSnapshot, progress: Progress) -> frozenset[str]:
    """The source tables that are to be read in full, or have been, and their batches are on their way.

    Because their definition moved, or the source's identity: neither leaves a trace in the rows. A batch that brings a list of
    the keys of a table may be one that brings all its rows.
    """
    before = progress.checkpoint
    on_the_way = frozenset(keys.table for batch in progress.missing for keys in batch.data.keys)
    if before is None:
        return on_the_way
    return on_the_way | (frozenset(now.tables) if distrust(now, before) else redefined(now, before))
