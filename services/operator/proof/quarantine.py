"""Which rows are in quarantine still. An entry closes when the warehouse has its key of that run or a later one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from contracts.objects import batch_of_quarantine, quarantine_prefix
from contracts.tables import Contract
from services.operator.proof.comparison import Key
from services.operator.proof.statements import closed_entries
from shared.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that `table` could not hold, as batch `index` of run `run` saw it; `problems` are pairs of column and reason."""

    table: str
    source_table: str
    key: Key
    run: int
    index: int
    problems: tuple[tuple[str, str], ...]
    row: Mapping[str, Any]


async def open_quarantine(
    objects: ObjectStore, bucket: str, source_name: str, contract: Contract, warehouse: asyncpg.Connection
) -> Mapping[str, frozenset[Key]]:
    """By warehouse table, the keys of the rows that it could not hold, and has not got since."""
    entries = await open_entries(objects, bucket, source_name, contract, warehouse)
    return {table: frozenset(by_key) for table, by_key in entries.items()}


async def open_entries(
    objects: ObjectStore, bucket: str, source_name: str, contract: Contract, warehouse: asyncpg.Connection
) -> dict[str, dict[Key, Entry]]:
    """By warehouse table and key, the last entry of each row that the table could not hold, and has not got since."""
    refused = await _refused(objects, bucket, source_name)
    for table in contract.warehouse_tables:
        entries = refused.get(table.name)
        if entries:
            runs = {key: entry.run for key, entry in entries.items()}
            for closed in await warehouse.fetch(closed_entries(contract, table, runs)):
                del entries[tuple(closed)]
    return refused


async def _refused(objects: ObjectStore, bucket: str, source_name: str) -> dict[str, dict[Key, Entry]]:
    """Every row that was ever refused. Objects come in the order of their runs."""
    found: dict[str, dict[Key, Entry]] = {}
    for object_key in await objects.keys(bucket, quarantine_prefix(source_name)):
        read = await objects.read(bucket, object_key)
        for entry in entries_in(object_key, b"" if read is None else read.body):
            found.setdefault(entry.table, {})[entry.key] = entry
    return found


def entries_in(object_key: str, body: bytes) -> Iterator[Entry]:
    """The entries of an object of the quarantine."""
    run, index = batch_of_quarantine(object_key)
    for line in body.splitlines():  # of bytes: of a text it would also cut at U+2028, which JSON leaves as it is
        told = json.loads(line)
        key = tuple(told["key"].values())
        problems = tuple((problem["column"], problem["reason"]) for problem in told["problems"])
        yield Entry(told["table"], told["source_table"], key, run, index, problems, told["row"])
