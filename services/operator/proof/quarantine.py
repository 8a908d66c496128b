"""Which rows are in quarantine still. An entry closes when the warehouse has its key of that run or a later one."""

from __future__ import annotations

import json
from collections.abc import Mapping

import asyncpg

from contracts.objects import quarantine_prefix, run_of_quarantine
from contracts.tables import Contract
from services.operator.proof.comparison import Key
from services.operator.proof.statements import closed_entries
from shared.object_store import ObjectStore

Entries = dict[Key, int]  # the last run that refused each key


async def open_quarantine(
    objects: ObjectStore, bucket: str, source_name: str, contract: Contract, warehouse: asyncpg.Connection
) -> Mapping[str, frozenset[Key]]:
    """By warehouse table, the keys of the rows that it could not hold, and has not got since."""
    found = await _refused(objects, bucket, source_name)
    still: dict[str, frozenset[Key]] = {}
    for table in contract.warehouse_tables:
        entries = found.get(table.name, {})
        if entries:
            closed = await warehouse.fetch(closed_entries(contract, table, entries))
            still[table.name] = frozenset(entries.keys() - {tuple(row) for row in closed})
    return still


async def _refused(objects: ObjectStore, bucket: str, source_name: str) -> dict[str, Entries]:
    """Every key that was ever refused, by warehouse table. Objects come in the order of their runs."""
    found: dict[str, Entries] = {}
    for object_key in await objects.keys(bucket, quarantine_prefix(source_name)):
        lines = await objects.read(bucket, object_key)
        # Of bytes: of a text it would also cut at U+2028, which JSON leaves as it is.
        for line in [] if lines is None else lines.body.splitlines():
            entry = json.loads(line)
            found.setdefault(entry["table"], {})[tuple(entry["key"].values())] = run_of_quarantine(object_key)
    return found
