"""What a load does about rows that are gone at the source, in its own transaction (docs/decisions/0006-deletes.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.messages import BatchLoadedData, KeyList
from contracts.objects import ObjectRef
from contracts.tables import WarehouseTable
from contracts.warehouse import COMPARISON
from services.loading.tombstones import buried_keys, bury_missing, create_keys, has_older, insert_keys, mark_dead
from shared.key_lists import Key
from shared.ledger import Comparison, last_comparisons
from shared.object_store import ObjectMissingError

_KEEP_COMPARISON = f"""
INSERT INTO {COMPARISON} (table_name, run, found_at, keys)
VALUES ($1, $2, $3, $4)
ON CONFLICT (table_name) DO UPDATE SET run = excluded.run, found_at = excluded.found_at, keys = excluded.keys
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Keys:
    """The key lists of a batch, and how to read a part of one."""

    lists: tuple[KeyList, ...]
    read: Callable[[ObjectRef], Awaitable[list[Key]]]


@dataclass(frozen=True, slots=True)
class Deletes:
    """The deletes of one load, which has merged rows of the tables `staged`."""

    connection: asyncpg.Connection
    contract: Contract
    batch: BatchLoadedData
    staged: Collection[str]
    keys: Keys

    async def later_comparisons(self) -> dict[str, Comparison]:
        """The comparisons of later runs, by table, that this batch comes too late for."""
        names = {*self.staged, *(one.table for one in self.keys.lists)}
        return await last_comparisons(self.connection, names, above=self.batch.run)

    async def apply(self, later: Mapping[str, Comparison]) -> int:
        """Compare the batch's keys, compare the staged tables with `later` once more, and mark what is dead.

        Both only while nobody else loads; beside others a load can but revive rows, which is the same in any order: whatever is
        buried was found by a comparison, and this batch comes behind none. Answers how many rows were found gone.
        """
        own = {one.table: Comparison(one, self.batch.run, self.batch.snapshot.taken_at) for one in self.keys.lists}
        gone = 0
        for table in self.contract.warehouse_tables:
            if table.name in later:  # it knows all that an earlier list would say
                gone += await self._compare_again(table, later[table.name]) if table.name in self.staged else 0
            elif table.name in own:
                gone += await self._compare(table, own[table.name])
                await self._keep(own[table.name])
            if table.name in self.staged:
                rows = await self.connection.fetch(buried_keys(table))
                await self._mark(table, [row["key"] for row in rows])
        return gone

    async def _compare(self, table: WarehouseTable, found: Comparison) -> int:
        """Bury the rows that the list lacks; how many. Raises: ObjectMissingError."""
        if not await self.connection.fetchval(has_older(self.contract, table), found.run):
            return 0
        await self.connection.execute(create_keys(table))
        for part in found.keys.objects:
            keys = await self.keys.read(part)
            await self.connection.execute(insert_keys(table), *zip(*keys, strict=True))
        buried = await self.connection.fetch(bury_missing(self.contract, table), found.run, found.found_at)
        await self._mark(table, [row["key"] for row in buried])
        return len(buried)

    async def _compare_again(self, table: WarehouseTable, found: Comparison) -> int:
        """Without its list, which outlives the batch in the bucket, a row may live until the next comparison."""
        try:
            return await self._compare(table, found)
        except ObjectMissingError as error:
            log.warning("comparison_not_repeated", run=self.batch.run, table=table.name, reason=str(error))
            return 0

    async def _mark(self, table: WarehouseTable, keys: list[str]) -> None:
        if keys:
            await self.connection.execute(mark_dead(self.contract, table), keys)

    async def _keep(self, found: Comparison) -> None:
        keys = found.keys.model_dump_json()
        await self.connection.execute(_KEEP_COMPARISON, found.keys.table, found.run, found.found_at, keys)
