"""What the quarantine holds of one key."""

from __future__ import annotations

import asyncio

from contracts.objects import quarantine_prefix
from contracts.tables import WarehouseTable
from services.operator.proof.comparison import Key
from services.operator.proof.quarantine import Entry, entries_in
from services.operator.system import System

READ_AT_ONCE = 16


async def read_refusals(system: System, table: WarehouseTable, key: Key) -> tuple[Entry, ...]:
    """Every entry of the quarantine about a key of `table`, closed ones too, the newest first.

    The quarantine has one object for each batch that had such rows, and nothing says which keys are in it: all are read.
    """
    bucket = system.settings.processed_bucket
    keys = await system.objects.keys(bucket, quarantine_prefix(system.settings.source_name))
    found: list[Entry] = []
    for start in range(0, len(keys), READ_AT_ONCE):
        chunk = keys[start : start + READ_AT_ONCE]
        objects = await asyncio.gather(*(system.objects.read(bucket, one) for one in chunk))
        for object_key, read in zip(chunk, objects, strict=True):
            entries = entries_in(object_key, b"" if read is None else read.body)
            found += [entry for entry in entries if (entry.table, entry.key) == (table.name, key)]
    return tuple(reversed(found))
