"""Which rows of the warehouse that the source lacks were deleted since their table's keys were compared last."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import asyncpg

from contracts.messages import KeyList
from contracts.tables import WarehouseTable
from services.operator.proof.comparison import Key
from shared.key_lists import compared_keys, unpacked
from shared.object_store import ObjectStore

LAST_COMPARISONS = "SELECT table_name, run, keys FROM starlift.comparison"


@dataclass(frozen=True, slots=True)
class Comparisons:
    """The last key list that each table was compared with, and its run."""

    objects: ObjectStore
    runs: Mapping[str, int]
    lists: Mapping[str, KeyList]

    def run(self, table: WarehouseTable) -> int | None:
        """The run whose keys were compared last; None if none ever were."""
        return self.runs.get(table.name)

    async def listed(self, table: WarehouseTable, keys: Collection[Key]) -> set[Key]:
        """Those of `keys` that the source had then. Raises: PermanentError, TransientError, DependencyDownError."""
        found, wanted = set[Key](), set(keys)
        for part in self.lists[table.name].objects if table.name in self.lists else ():
            found.update(wanted.intersection(await asyncio.to_thread(unpacked, await self.objects.get(part))))
        return found


async def last_comparisons(objects: ObjectStore, warehouse: asyncpg.Connection) -> Comparisons:
    """What the loader has noted, in the warehouse's own snapshot."""
    if await warehouse.fetchval("SELECT to_regclass('starlift.comparison')") is None:
        return Comparisons(objects, {}, {})  # loaded by a version that did not compare
    found = await warehouse.fetch(LAST_COMPARISONS)
    lists = {row["table_name"]: compared_keys(row["table_name"], row["keys"]) for row in found}
    return Comparisons(objects, {row["table_name"]: row["run"] for row in found}, lists)
