"""One look: both databases in a snapshot each, and what was known of the star's progress at that moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from contracts.contract import Contract
from contracts.tables import RemodelledTable, WarehouseTable
from services.operator.errors import NotLoadedError
from services.operator.progress import DeadMessage, DeadMessages, Progress, dead_questions, read_progress
from services.operator.proof.actual import current_relation
from services.operator.proof.causes import (
    causes_by_age,
    comparison_cause,
    empty_table_cause,
    gap_cause,
    lost_key_cause,
    missing_keys_cause,
    next_run_cause,
    versionless_cause,
)
from services.operator.proof.delivered import Delivered, open_delivered, unproved_runs
from services.operator.proof.expected import CausesByAge, sources_of
from services.operator.proof.row_comparison import Cause, LastRefusal, Row, Wait
from services.operator.quarantine import open_batches, open_records
from services.operator.system import System
from shared import ledger
from shared.catalog import read_source_facts
from shared.errors import PermanentError
from shared.postgres import Database, read_in_parts
from shared.postgres_errors import classed_errors
from shared.source_facts import SourceFacts, distrust, redefined, versionless
from shared.source_keys import Key
from shared.source_store import SourceStore
from shared.sql import quoted
from shared.star_schema.star import is_bulk_loading

PREFETCH_ROWS = 10_000
LETTERS_MAXIMUM = 1_000  # per service: naming a missing batch is not worth receiving a million
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
        """Yield the star rows of a statement, whose causes are places in `causes`. Raises: as `fetch`."""
        with classed_errors(self.name):
            async for record in read_in_parts(self.connection, statement, *arguments, rows=PREFETCH_ROWS):
                *key, values, place, stamp = record
                cause = None if place is None else causes[place]
                yield Row(tuple(key[: len(table.key)]), tuple(values), cause, stamp)


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[Side]:
    """A transaction that sees the database as it was at its first statement."""
    async with database.transaction(isolation="repeatable_read", readonly=True) as connection:
        yield Side(database.name, connection)


@dataclass(frozen=True, slots=True)
class Look:
    """Both databases at one instant each, the warehouse's first."""

    contract: Contract
    store: SourceStore
    source: Side
    warehouse: Side
    progress: Progress  # of the warehouse's snapshot
    taken_at: datetime  # of the source's snapshot, on its clock
    begun: int  # the highest run that had begun a moment after; one above it opened its snapshot later, whatever clocks said
    refused: Mapping[str, Mapping[Key, LastRefusal]]  # rows in quarantine, by warehouse table
    comparisons: Mapping[str, ledger.KeyComparison]  # the last comparison of keys, by warehouse table
    redefined: frozenset[str]  # source tables that may have changed since the last run without a transaction id
    versionless: frozenset[str]  # source tables whose transaction ids the role may not read
    emptied: frozenset[str]  # source tables without a row when their keys should have been compared, and without one now
    dead: Mapping[UUID, DeadMessage]  # the missing batches that are dead letters
    dead_questions: Mapping[str, DeadMessage]  # by warehouse table: what keeps a question about its rows open
    lost_keys: tuple[Cause, ...]  # the causes for star tables whose unique key was dropped
    delivered: Delivered | None = None  # of a source of data sets: what was delivered
    unproved: Mapping[int, Cause] = field(default_factory=dict)  # of one: loaded runs whose manifest is missing
    unreadable: Mapping[str, int] = field(default_factory=dict)  # of one, by star table: refused records without a key

    @property
    def newest(self) -> int:
        """No row was loaded by a run above it. A lost state begins again at the milliseconds since 1970."""
        return max(self.begun, int(self.taken_at.timestamp() * 1000))

    @property
    def through(self) -> int:
        """The run N through which the warehouse holds everything; 0 before the first."""
        return self.progress.consistent_through.run if self.progress.consistent_through else 0

    @property
    def _gaps(self) -> tuple[Cause, ...]:
        """The cause for rows of missing batches, gap by gap."""
        is_first = self.progress.consistent_through is None
        return tuple(gap_cause(gap, self.dead, is_first=is_first and not place) for place, gap in enumerate(self.progress.gaps))

    @property
    def standing_causes(self) -> tuple[Cause, ...]:
        """The causes that hold whether or not a row is seen to wait for them."""
        return (*self._gaps, *self.lost_keys)

    def deleted_cause(self, table: RemodelledTable) -> Cause:
        """The cause for a row of `table` that was deleted at the source since keys were compared."""
        if table.source in self.emptied:
            return empty_table_cause(table.source)
        return comparison_cause(self.comparisons.get(table.name), self.taken_at, self.dead_questions.get(table.name))

    def unproved_in(self, table: RemodelledTable) -> dict[int, Cause]:
        """By run, what rows of `table` wait for whose run has loaded them, and of which it is not known what it delivered."""
        since = self.delivered.since[table.source] if self.delivered is not None else 0
        return {run: cause for run, cause in self.unproved.items() if run >= since}

    def has_answered(self, table: RemodelledTable, run: int) -> bool:
        """Whether every row of `table` that was gone by a run above `run` should be marked: its keys were compared since."""
        comparison = self.comparisons.get(table.name)
        return comparison is not None and comparison.has_found(run + 1)

    def causes_by_age(self, table: RemodelledTable) -> CausesByAge:
        """What the rows of `table` wait for: the next run, missing batches, a comparison, a grant."""
        if self.delivered is not None:
            waits = zip(self.progress.gaps, self._gaps, strict=True)
            by_run = {gap.manifest.run: cause for gap, cause in waits if table.source in gap.tables}
            return CausesByAge(by_run=by_run, above=(self.progress.newest, Cause(Wait.RUN)))
        sources, next_run = sources_of(table), next_run_cause(self.progress, self.taken_at)
        if sources & self.redefined:
            by_age = CausesByAge(beyond=next_run)
        elif hidden := sources & self.versionless:
            by_age = CausesByAge(beyond=versionless_cause(hidden))
        else:
            by_age = causes_by_age(self.progress, sources, next_run, self._gaps)
        orphans = self.deleted_cause(table) if table.name in self.comparisons else None
        return replace(by_age, orphans=orphans, versionless=self.versionless)


@asynccontextmanager
async def open_look(system: System) -> AsyncIterator[Look]:
    """Look at both databases. Raises: NotLoadedError; DependencyDownError, PermanentError, TransientError."""
    contract, store = system.contract, system.store
    async with _snapshot(system.warehouse) as warehouse:
        seen = warehouse.connection
        await seen.fetchval("SELECT pg_current_snapshot()")  # the snapshot is taken by the first statement
        progress = await read_progress(system, seen)
        await _require_star(seen, contract, is_loaded=progress.consistent_through is not None)
        missing = {batch.data.batch_id for batch in progress.missing}
        letters = DeadMessages(system, limit=LETTERS_MAXIMUM)
        dead = await letters.find(missing) if missing else {}
        questions = await dead_questions(letters, store, await ledger.open_questions(seen, contract))
        comparisons = await ledger.last_comparisons(seen, contract)
        # Before the source's snapshot opens, which holds back vacuum there: this may read a year of objects.
        refused = await _refused(system, seen, progress)
        async with _open_source(system, progress) as source:
            yield Look(
                contract=source.contract,
                store=store,
                source=source.side,
                warehouse=warehouse,
                progress=progress,
                taken_at=source.taken_at,
                begun=await store.highest_run(),  # after the snapshot
                refused=refused,
                comparisons=comparisons,
                redefined=source.redefined,
                versionless=source.versionless,
                emptied=await _emptied_tables(source.side, source.contract, progress),
                dead=dead,
                dead_questions=questions,
                lost_keys=await _lost_keys(warehouse, contract),
                delivered=source.delivered,
                unproved={} if source.delivered is None else await unproved_runs(system, seen, source.delivered, progress),
                unreadable=Counter(entry.table for entry in await open_records(system)),
            )


@dataclass(frozen=True, slots=True)
class _Source:
    """The source at one instant."""

    side: Side
    contract: Contract  # where it has its tables
    taken_at: datetime
    redefined: frozenset[str] = frozenset()
    versionless: frozenset[str] = frozenset()
    delivered: Delivered | None = None


@asynccontextmanager
async def _open_source(system: System, progress: Progress) -> AsyncIterator[_Source]:
    if system.source is None:
        async with open_delivered(system) as delivered:
            side = Side(system.warehouse.name, delivered.connection)
            yield _Source(side, delivered.contract, system.clock(), delivered=delivered)
        return
    async with _snapshot(system.source) as source:
        now = await read_source_facts(source.connection, system.contract)
        yield _Source(source, system.contract, now.snapshot.taken_at, _redefined_tables(now, progress), versionless(now))


async def _require_star(warehouse: asyncpg.Connection, contract: Contract, *, is_loaded: bool) -> None:
    for table in contract.stored_tables:
        if not await warehouse.fetchval("SELECT to_regclass($1) IS NULL", current_relation(contract, table)):
            continue
        if is_loaded:
            raise PermanentError(
                f"the warehouse no longer has table '{table.name}'; restore it, or restart loading, which creates it again, "
                "and read everything: `starlift ingest --full --wait`"
            )
        raise NotLoadedError(f"the warehouse has no table '{table.name}' yet; load it first: `starlift ingest --wait`")


async def _refused(system: System, warehouse: asyncpg.Connection, progress: Progress) -> dict[str, dict[Key, LastRefusal]]:
    """The rows in quarantine, with the horizons of runs after which everything is loaded."""
    refused = await open_batches(system, warehouse)
    runs = {batch.run for by_key in refused.values() for batch in by_key.values()}
    through = progress.consistent_through.run if progress.consistent_through else 0
    ended = [run for run in runs if run < through]
    if system.source is None:  # rows have runs in place of transaction ids: a later one has read a row again
        horizons = {run: run + 1 for run in ended}
    else:
        horizons = await ledger.horizons(warehouse, system.contract, system.store.source, ended) if runs else {}
    refusals = {run: LastRefusal(run, horizons.get(run)) for run in runs}
    return {table: {key: refusals[batch.run] for key, batch in by_key.items()} for table, by_key in refused.items()}


def _redefined_tables(now: SourceFacts, progress: Progress) -> frozenset[str]:
    """The source tables that the next run reads in full, because any of their rows may have changed without a trace."""
    before = progress.checkpoint
    if before is None:
        return frozenset()
    return frozenset(now.tables) if distrust(now, before) else redefined(now, before)


async def _emptied_tables(source: Side, contract: Contract, progress: Progress) -> frozenset[str]:
    known = progress.checkpoint.empty_tables if progress.checkpoint is not None else frozenset[str]()
    found = set[str]()
    for table in contract.source_tables:
        if table.name in known:
            name = quoted(*contract.relation_of(table))
            found.update(table.name for row in await source.fetch(f"SELECT NOT EXISTS (SELECT FROM {name})") if row[0])
    return frozenset(found)


async def _lost_keys(warehouse: Side, contract: Contract) -> tuple[Cause, ...]:
    """The causes for star tables that have lost the unique key that tells their rows apart."""
    if await is_bulk_loading(warehouse.connection, contract):
        return (missing_keys_cause(),)
    causes = list[Cause]()
    for table in contract.stored_tables:
        name = quoted(contract.warehouse_schema, table.name)
        ((has_key,),) = await warehouse.fetch(HAS_KEY, name, sorted(table.identity))
        if not has_key:
            causes.append(lost_key_cause(table.name, table.identity))
    return tuple(causes)
