"""What the quarantine holds of one key."""

from __future__ import annotations

from contracts.tables import WarehouseTable
from services.operator.proof.comparison import Key
from services.operator.proof.quarantine import Entry, quarantine_objects, read_entries
from services.operator.system import System


async def read_refusals(system: System, table: WarehouseTable, key: Key) -> tuple[Entry, ...]:
    """Every entry of the quarantine about a key of `table`, closed ones too, the newest first.

    The quarantine has one object for each batch that had such rows, and nothing says which keys are in it: all are read.
    """
    entries = read_entries(system.store, await quarantine_objects(system.store))
    found = [entry async for entry in entries if (entry.table, entry.key) == (table.name, key)]
    return tuple(reversed(found))
