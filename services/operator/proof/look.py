"""Both databases in one snapshot each, and what is known of them at that moment."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

import asyncpg

from contracts.contract import Contract
from contracts.tables import RemodelledTable, WarehouseTable
from services.operator.progress import Progress
from services.operator.proof.causes import Cause, DeadBatch, Unseen, sources_of
from services.operator.proof.comparison import Key, Refusal, Row
from services.operator.proof.cursor import read_in_parts
from services.operator.proof.deleted import Comparisons
from services.operator.proof.waiting import (
    of_comparison,
    of_empty_table,
    of_gap,
    of_lost_key,
    of_next_run,
    of_versionless,
    steps_of,
)
from shared.postgres import Database, classed_errors
from shared.source_snapshot import SourceSnapshot, distrust, redefined
from shared.sql import quoted

PREFETCH_ROWS = 10_000
HAS_KEY = """
SELECT EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    AND $2::text[] = ARRAY(
        SELECT a.attname::text
        FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) AS part (attnum)
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = part.attnum
        ORDER BY a.attname
    )
)
"""

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

    async def rows(
        self, statement: str, table: WarehouseTable, causes: Sequence[Cause], *arguments: object
    ) -> AsyncIterator[Row]:
        """Yield the star rows of one of the proof's queries; `causes` are what they may wait for. Raises: as `fetch`."""
        with classed_errors(self.name):
            async for record in read_in_parts(self.connection, statement, *arguments, rows=PREFETCH_ROWS):
                *key, values, waits, version = record
                cause = None if waits is None else causes[waits]
                yield Row(tuple(key[: len(table.key)]), tuple(values), cause, version)


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Side]:
    """A transaction that sees the database as it was at its first statement."""
    async with database.transaction(isolation="repeatable_read", readonly=True) as connection:
        yield Side(database.name, connection)


@dataclass(frozen=True, slots=True)
class Look:
    """Both databases at one instant each, the warehouse's first. `begun` is the highest run that had begun a moment later.

    A run above it opened its snapshot after ours, whatever the clocks of the source and of ingestion said. `redefined` source
    tables may have changed since the last run without a transaction id, `versionless` ones have none that the role may read,
    `emptied` ones had no row when their keys should have been compared, and have none now. `dead` are the batches that
    are dead letters, `lost_keys` the causes for star tables whose unique key was dropped.
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
    emptied: frozenset[str] = frozenset()
    dead: Mapping[UUID, DeadBatch] = field(default_factory=dict)
    lost_keys: tuple[Cause, ...] = ()

    @property
    def newest(self) -> int:
        """No row was loaded by a run above it. A lost state begins again at the milliseconds since 1970."""
        return max(self.begun, int(self.taken_at.timestamp() * 1000))

    @property
    def through(self) -> int:
        """The run N through which the warehouse holds all; 0 before the first."""
        return self.progress.consistent_through.run if self.progress.consistent_through else 0

    def causes(self, table: RemodelledTable) -> tuple[Cause, ...]:
        """Everything that rows of `table` may wait for: the next run, missing batches, a comparison, a grant."""
        hidden = of_versionless(sources_of(table) & self.versionless)
        return (of_next_run(self.progress, self.taken_at), *self.gaps, self.deleted(table), hidden)

    @property
    def gaps(self) -> tuple[Cause, ...]:
        """The cause for rows of missing batches, gap by gap."""
        is_first = self.progress.consistent_through is None
        return tuple(of_gap(gap, self.dead, is_first=is_first and not place) for place, gap in enumerate(self.progress.gaps))

    @property
    def standing(self) -> tuple[Cause, ...]:
        """The causes that hold whether or not a row is seen to wait for them."""
        return (*self.gaps, *self.lost_keys)

    def deleted(self, table: RemodelledTable) -> Cause:
        """The cause for a row of `table` that was deleted at the source since keys were compared."""
        if table.source in self.emptied:
            return of_empty_table(table.source)
        return of_comparison(self.comparisons.at.get(table.name), self.taken_at)

    def unseen(self, table: RemodelledTable) -> Unseen:
        """What the rows of `table` wait for, as places in the list of causes."""
        sources, deleted = sources_of(table), len(self.progress.gaps) + 1
        if sources & self.redefined:
            unseen = Unseen(beyond=0)
        elif sources & self.versionless:
            unseen = Unseen(beyond=deleted + 1)
        else:
            unseen = steps_of(self.progress, sources, run=0, gaps=range(1, deleted))
        orphans = None if self.comparisons.run(table) is None else deleted
        return replace(unseen, orphans=orphans, versionless=self.versionless)


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


async def emptied_tables(source: Side, contract: Contract, progress: Progress) -> frozenset[str]:
    """The source tables that had no row when their keys should have been compared, and have none now."""
    known = progress.checkpoint.empty_tables if progress.checkpoint is not None else frozenset[str]()
    found = set[str]()
    for table in contract.source_tables:
        if table.name in known:
            name = quoted(contract.source_schema, table.name)
            found.update(table.name for row in await source.fetch(f"SELECT NOT EXISTS (SELECT FROM {name})") if row[0])
    return frozenset(found)


async def lost_keys(warehouse: Side, contract: Contract) -> tuple[Cause, ...]:
    """The causes for star tables that have lost the unique key that tells their rows apart."""
    causes = list[Cause]()
    for table in contract.warehouse_tables:
        name = quoted(contract.warehouse_schema, table.name)
        ((has_key,),) = await warehouse.fetch(HAS_KEY, name, sorted(table.identity))
        if not has_key:
            causes.append(of_lost_key(table.name, table.identity))
    return tuple(causes)


def redefined_tables(now: SourceSnapshot, progress: Progress) -> frozenset[str]:
    """The source tables that the next run reads in full, because any of their rows may have changed without a trace."""
    before = progress.checkpoint
    if before is None:
        return frozenset()
    return frozenset(now.tables) if distrust(now, before) else redefined(now, before)
