"""The history check of dimensions: each state that a loaded batch brought is in the table of versions, unchanged.

A lost one is found if its batch was loaded since the contract last changed: before, the dimension may have had no history.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from contracts.tables import Dimension, Versions
from contracts.warehouse import APPLIED_CONTRACT, BATCH_ID, DELETED_AT, LEDGER, RUN
from services.operator.proof.actual import current_relation
from services.operator.proof.history import (
    LOOKED_UP_ROWS,
    NAMED_MAXIMUM,
    NO_RUN,
    PREFETCH_ROWS,
    FactHistory,
    Flaw,
    FlawedVersion,
    HistoryVerdict,
    check_history,
    read_baseline,
)
from services.operator.proof.loaded import LoadedBatch, read_rows
from services.operator.system import System
from shared.ledger import TABLE_BATCHES
from shared.postgres import read_in_parts
from shared.sql import quoted


async def check_histories(
    system: System, tables: Collection[str] = (), on_table: Callable[[str], None] = lambda _: None
) -> HistoryVerdict:
    """Check the histories of facts and of dimensions, or of those named in `tables`. Raises: as `check_history`."""
    of_facts, baseline = await check_history(system, tables, on_table), await read_baseline(system)
    found, since = list(of_facts.facts), NO_RUN if baseline is None else baseline.run
    async with system.warehouse.transaction(isolation="repeatable_read", readonly=True) as warehouse:
        for table in system.contract.warehouse_tables:
            if isinstance(table, Dimension) and table.versions is not None and (not tables or table.name in tables):
                on_table(table.name)
                found.append(await _VersionCheck(system, warehouse, table, table.versions, since).check())
    return HistoryVerdict(facts=tuple(found), begun_at=of_facts.begun_at)


@dataclass(slots=True)
class _VersionCheck:
    """One dimension in a snapshot of the warehouse, and what was found so far. What was deleted is in no batch's object."""

    system: System
    warehouse: asyncpg.Connection
    dimension: Dimension
    versions: Versions
    since: int  # the run after which everything is checked
    brought: int = 0
    batches: int = 0
    unread: list[datetime] = field(default_factory=list)  # when each batch whose object is gone was loaded
    problems: list[FlawedVersion] = field(default_factory=list)
    flawed: int = 0

    async def check(self) -> FactHistory:
        own, name = self.system.contract.own, current_relation(self.system.contract, self.versions)
        # Whether the table of versions was there before the contract last changed is not known.
        changed_at = await self.warehouse.fetchval(
            f"SELECT applied_at FROM {own(APPLIED_CONTRACT)} WHERE name = $1", self.system.contract.name
        )
        arguments = (self.system.store.source, self.dimension.name, self.since)
        async for record in read_in_parts(self.warehouse, own(TABLE_BATCHES), *arguments, rows=PREFETCH_ROWS):
            await self._check_batch(LoadedBatch(*record), changed_at)
        strangers = (
            f"SELECT ARRAY[{self._keys}], v.{RUN}::text FROM {name} AS v WHERE v.{DELETED_AT} IS NULL AND v.{RUN} > $1 "
            f"AND NOT EXISTS (SELECT FROM {own(LEDGER)} AS l WHERE l.batch_id = v.{BATCH_ID} AND l.run = v.{RUN})"
        )
        async for key, run in read_in_parts(self.warehouse, strangers, self.since, rows=PREFETCH_ROWS):
            self._add(Flaw.UNKNOWN, key, run, "the ledger has no such batch of this run")
        return FactHistory(
            table=self.versions.name,
            rows=await self.warehouse.fetchval(f"SELECT count(*) FROM {name}"),
            versions=self.brought,
            batches=self.batches,
            unread_batches=len(self.unread),
            unread_until=max(self.unread, default=None),
            flawed=self.flawed,
            problems=tuple(self.problems),
        )

    async def _check_batch(self, batch: LoadedBatch, changed_at: datetime | None) -> None:
        names = tuple(self.versions.star_types)
        rows = await read_rows(self.system.store, self.dimension, batch, names)
        if rows is None:
            self.unread.append(batch.loaded_at)
            return
        self.batches, self.brought = self.batches + 1, self.brought + len(rows)
        for start in range(0, len(rows), LOOKED_UP_ROWS):
            columns = [list(column) for column in zip(*rows[start : start + LOOKED_UP_ROWS], strict=True)]
            for key, is_lost in await self.warehouse.fetch(self._unlike(), batch.run, batch.batch_id, *columns):
                if not is_lost or changed_at is None or batch.loaded_at > changed_at:
                    flaw = Flaw.LOST if is_lost else Flaw.CHANGED
                    self._add(flaw, key, str(batch.run), f"batch {batch.batch_id} brought it")

    def _unlike(self) -> str:
        """Of the rows whose columns are $3, $4, … (text[]), those that run $1 and batch $2 have not left as they are."""
        names = [f"c{position}" for position in range(len(self.versions.columns))]
        wanted = {
            column.name: f"w.{name}" if column.type.is_text else f"w.{name}::{column.type.sql}"
            for name, column in zip(names, self.versions.columns, strict=True)
        }
        arrays = ", ".join(f"${place}::text[]" for place in range(3, 3 + len(names)))
        same = " AND ".join(f"{quoted('v', name)} = {wanted[name]}" for name in self.versions.key)
        held = ", ".join(f"{quoted('v', name)}::text" for name in wanted)
        return (
            f"SELECT ARRAY[{', '.join(f'({wanted[name]})::text' for name in self.versions.key)}], v.{RUN} IS NULL "
            f"FROM unnest({arrays}) AS w ({', '.join(names)}) "
            f"LEFT JOIN {current_relation(self.system.contract, self.versions)} AS v ON {same} AND v.{RUN} = $1::bigint "
            f"WHERE v.{RUN} IS NULL OR (v.{BATCH_ID} = $2::uuid "
            f"AND ARRAY[{held}] IS DISTINCT FROM ARRAY[{', '.join(f'({value})::text' for value in wanted.values())}])"
        )

    @property
    def _keys(self) -> str:
        return ", ".join(f"{quoted('v', name)}::text" for name in self.versions.key)

    def _add(self, flaw: Flaw, key: list[str], run: str, detail: str) -> None:
        self.flawed += 1
        if len(self.problems) < NAMED_MAXIMUM:
            self.problems.append(FlawedVersion(flaw, tuple(key), (f"run {run}",), detail))
