"""The proof, run: both databases in one snapshot each, table by table.

The warehouse's snapshot is opened first and shows how far it has come (N); the source's follows. Each side hashes its rows by
bucket, and only buckets that differ are looked at row by row. A row that differs is *in flight* when it was written after the
horizon of the last run: the next one brings it, and once that is loaded the row is compared again, and
counts as different if it still differs. A row is *stuck* when what brings it is late or does not come by
itself (services/operator/proof/waiting.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Self
from uuid import UUID

import asyncpg

from contracts.contract import Contract
from contracts.tables import WarehouseTable
from services.operator.exit_codes import ComplaintError, ExitCode
from services.operator.naming import table_named
from services.operator.progress import read_progress
from services.operator.proof.causes import DeadBatch
from services.operator.proof.dead_batches import find_dead, none_dead
from services.operator.proof.deleted import last_comparisons
from services.operator.proof.look import Look, emptied_tables, lost_keys, redefined_tables, snapshot
from services.operator.proof.quarantine import open_refusals, read_horizons
from services.operator.proof.settling import compare_again
from services.operator.proof.table_comparison import compare_table
from services.operator.proof.verdict import EVERYTHING, Scope, Verdict
from services.operator.proof.visible import relation
from services.operator.system import System
from shared.errors import PermanentError
from shared.postgres import Database
from shared.source_snapshot import read_snapshot, versionless
from shared.source_store import SourceStore

SETTLE_POLL = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof works with. `dead` finds the batches that are dead letters."""

    contract: Contract
    source: Database
    warehouse: Database
    store: SourceStore
    dead: Callable[[Collection[UUID]], Awaitable[Mapping[UUID, DeadBatch]]] = field(default=none_dead)

    @classmethod
    def of(cls, system: System) -> Self:
        """The proof of a running system."""
        return cls(
            contract=system.contract,
            source=system.source,
            warehouse=system.warehouse,
            store=system.store,
            dead=partial(find_dead, system),
        )

    async def run(self, scope: Scope = EVERYTHING, on_table: Callable[[str], None] = lambda _: None) -> Verdict:
        """Compare the star with the source. `on_table` is told of each table before it is compared.

        Raises: ComplaintError; DependencyDownError, PermanentError, TransientError.
        """
        async with self.look() as look:
            verdicts = []
            for table in self.chosen(scope):
                on_table(table.name)
                verdicts.append(await compare_table(self.contract, look, table, scope.buckets))
        verdict = Verdict(look.progress, look.taken_at, tuple(verdicts), scope.sample, standing=look.standing)
        if verdict.may_settle and await self._is_passed(look, scope.settle):
            async with self.look() as again:
                return await compare_again(self.contract, look, again, verdict, scope.buckets)
        return verdict

    def chosen(self, scope: Scope) -> list[WarehouseTable]:
        """The tables to compare, in the contract's order. Raises: ComplaintError for a name that the contract does not have."""
        named = [table_named(self.contract, name) for name in scope.tables]
        return [table for table in self.contract.warehouse_tables if not named or table in named]

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Look]:
        """A snapshot of each database."""
        async with snapshot(self.warehouse) as warehouse:
            seen = warehouse.connection
            await seen.fetchval("SELECT pg_current_snapshot()")  # the snapshot is taken by the first statement
            progress = await read_progress(self.store, seen)
            await self._require_star(seen, is_loaded=progress.consistent_through is not None)
            dead = await self.dead({batch.data.batch_id for batch in progress.missing}) if progress.missing else {}
            comparisons = await last_comparisons(self.store, seen)
            # Before the source's snapshot opens, which holds back vacuum there: this may read a year of objects.
            through = progress.consistent_through.run if progress.consistent_through else 0
            refusals = await open_refusals(self.store, self.contract, seen)
            refused = await read_horizons(seen, self.store.source, refusals, through)
            async with snapshot(self.source) as source:
                now = await read_snapshot(source.connection, self.contract)
                begun = await self.store.highest_run()  # after the snapshot
                yield Look(
                    source,
                    warehouse,
                    progress,
                    now.snapshot.taken_at,
                    begun,
                    refused,
                    comparisons,
                    redefined_tables(now, progress),
                    versionless(now),
                    await emptied_tables(source, self.contract, progress),
                    dead,
                    await lost_keys(warehouse, self.contract),
                )

    async def _require_star(self, warehouse: asyncpg.Connection, *, is_loaded: bool) -> None:
        for table in self.contract.warehouse_tables:
            if not await warehouse.fetchval("SELECT to_regclass($1) IS NULL", relation(self.contract, table)):
                continue
            if is_loaded:
                raise PermanentError(
                    f"the warehouse has lost table '{table.name}'; restore it, or restart loading, which creates it again, and "
                    "read everything: `starlift ingest --full --wait`"
                )
            raise ComplaintError(
                f"the warehouse has no table '{table.name}' yet; load it first: `starlift ingest --wait`", ExitCode.NOT_LOADED
            )

    async def _is_passed(self, look: Look, limit: timedelta) -> bool:
        """Whether, within `limit`, a run that began after `look` is in the warehouse."""
        through = look.progress.consistent_through
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while True:
                    async with self.warehouse.transaction(readonly=True) as warehouse:
                        progress = await read_progress(self.store, warehouse, since=through.run if through else 1)
                    if progress.loaded > look.begun:
                        return True
                    await asyncio.sleep(SETTLE_POLL.total_seconds())
        except TimeoutError:
            return False
