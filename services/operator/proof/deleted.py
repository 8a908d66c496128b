"""Which rows of the warehouse that the source lacks were deleted since their table's keys were compared last."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from contracts.messages import KeyList
from contracts.tables import WarehouseTable
from services.operator.proof.comparison import Key
from services.operator.proof.history_statements import LoadedBatch
from shared import ledger
from shared.key_lists import unpacked
from shared.source_store import SourceStore


@dataclass(frozen=True, slots=True)
class Comparisons:
    """The last key list that each table was compared with, its run, and the source's time at which it was read.

    `store` holds what was loaded since, as the ledger in `warehouse` records. A row's own `_run` is not evidence:
    a made-up row has a made-up run.
    """

    store: SourceStore
    warehouse: asyncpg.Connection
    runs: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, KeyList] = field(default_factory=dict)
    at: Mapping[str, datetime] = field(default_factory=dict)

    def run(self, table: WarehouseTable) -> int | None:
        """The run whose keys were compared last; None if none ever were."""
        return self.runs.get(table.name)

    async def listed(self, table: WarehouseTable, keys: Collection[Key]) -> set[Key]:
        """Those of `keys` that the source had then. Raises: PermanentError, TransientError, DependencyDownError."""
        found, wanted = set[Key](), set(keys)
        for part in self.lists[table.name].objects if table.name in self.lists else ():
            found |= wanted.intersection(await asyncio.to_thread(unpacked, await self.store.objects.get(part)))
        return found

    async def known(self, table: WarehouseTable, keys: Collection[Key]) -> set[Key]:
        """Those of `keys` that the source had then, or that a later run loaded. Raises: as `listed`."""
        found = await self.listed(table, keys)
        later = set(keys) - found if table.name in self.runs else set[Key]()
        return found | (await self._loaded(table, later) if later else set())

    async def _loaded(self, table: WarehouseTable, wanted: set[Key]) -> set[Key]:
        """Those that are in a batch loaded since then whose rows are still in the bucket."""
        from services.operator.proof.versions import read_versions  # noqa: PLC0415 (pandas: half a second for every command)

        by_text = {tuple(map(str, key)): key for key in wanted}
        found = set[Key]()
        for record in await self.warehouse.fetch(ledger.TABLE_BATCHES, self.store.source, table.name, self.runs[table.name]):
            rows = await read_versions(self.store, table, LoadedBatch(*record))
            found.update(by_text[key] for row in rows or () if (key := row[: len(table.key)]) in by_text)
        return found


async def last_comparisons(store: SourceStore, warehouse: asyncpg.Connection) -> Comparisons:
    """What the loader has noted, in the warehouse's own snapshot."""
    found = await ledger.last_comparisons(warehouse)
    return Comparisons(
        store,
        warehouse,
        {table: comparison.run for table, comparison in found.items()},
        {table: comparison.keys for table, comparison in found.items()},
        {table: comparison.found_at for table, comparison in found.items()},
    )
