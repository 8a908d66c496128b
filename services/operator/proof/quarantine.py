"""Which rows are in quarantine still. An entry closes when the warehouse has its key of that run or a later one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import asyncpg

from contracts.contract import Contract
from services.operator.proof.comparison import Key, Refusal
from services.operator.proof.statements import by_column, closed_entries
from shared.ledger import batches_without_refusals, horizons
from shared.reading import in_order
from shared.source_store import SourceStore
from shared.sql import quoted
from shared.stored_documents import read_stored

REMEDY = "delete it, then run `starlift ingest --full`: rows that are still refused return to quarantine"


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch `index` of run `run`: what the proof keeps of an entry, of which there may be very many."""

    run: int
    index: int


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

    @property
    def batch(self) -> Batch:
        """Which batch saw it."""
        return Batch(self.run, self.index)


async def open_refusals(store: SourceStore, contract: Contract, warehouse: asyncpg.Connection) -> dict[str, dict[Key, Batch]]:
    """By warehouse table and key, the last batch in which the table could not hold the row, if it has not got it since.

    By that run or a later one, or by a replay that refused nothing.
    """
    refused: dict[str, dict[Key, Batch]] = {}
    async for entry in read_entries(store, await quarantine_objects(store)):
        refused.setdefault(entry.table, {})[entry.key] = entry.batch
    for table in contract.warehouse_tables:
        entries = refused.get(table.name)
        name = quoted(contract.warehouse_schema, table.name)
        if entries and await warehouse.fetchval("SELECT to_regclass($1) IS NOT NULL", name):  # NULL: before the first load
            runs = [batch.run for batch in entries.values()]
            for closed in await warehouse.fetch(closed_entries(contract, table), *by_column(table, entries), runs):
                del entries[tuple(closed)]
    # The batches whose every row was loaded in the end, whatever has become of it since.
    runs_refused = {batch.run for by_key in refused.values() for batch in by_key.values()}
    replayed = {Batch(*batch) for batch in await batches_without_refusals(warehouse, store.source, runs_refused)}
    return {table: {key: batch for key, batch in by_key.items() if batch not in replayed} for table, by_key in refused.items()}


async def read_horizons(
    warehouse: asyncpg.Connection, source_name: str, refused: Mapping[str, Mapping[Key, Batch]], through: int
) -> dict[str, dict[Key, Refusal]]:
    """What was refused, with the horizons of the runs below `through`, through which all is loaded."""
    runs = {batch.run for by_key in refused.values() for batch in by_key.values()}
    known = await horizons(warehouse, source_name, [run for run in runs if run < through]) if runs else {}
    refusals = {run: Refusal(run, known.get(run)) for run in runs}
    return {table: {key: refusals[batch.run] for key, batch in by_key.items()} for table, by_key in refused.items()}


async def open_entries(store: SourceStore, contract: Contract, warehouse: asyncpg.Connection) -> dict[str, dict[Key, Entry]]:
    """By warehouse table and key, the last entry of each row that the table could not hold, and has not got since."""
    refused = await open_refusals(store, contract, warehouse)
    batches = {batch for by_key in refused.values() for batch in by_key.values()}
    keys = await quarantine_objects(store)
    found: dict[str, dict[Key, Entry]] = {}
    async for entry in read_entries(store, [key for key in keys if _batch_of(store, key) in batches]):
        if refused.get(entry.table, {}).get(entry.key) == entry.batch:
            found.setdefault(entry.table, {})[entry.key] = entry
    return found


async def quarantine_objects(store: SourceStore) -> list[str]:
    """The key of every object of the quarantine; they sort by run."""
    return await store.objects.keys(store.processed_bucket, store.keys.quarantine)


async def read_entries(store: SourceStore, keys: Collection[str]) -> AsyncIterator[Entry]:
    """The entries of objects of the quarantine."""
    async for key, read in in_order(list(keys), partial(store.objects.read, store.processed_bucket)):
        for entry in [] if read is None else entries_in(store, key, read.body):
            yield entry


def entries_in(store: SourceStore, object_key: str, body: bytes) -> list[Entry]:
    """The entries of a quarantine object, whose key holds the beginning of its hash. Raises: DamagedDocumentError."""
    batch = _batch_of(store, object_key)

    def parse(body: bytes) -> list[Entry]:
        if not object_key.endswith(f"-{sha256(body).hexdigest()[:16]}.jsonl"):
            raise ValueError(object_key)
        # Split as bytes: lines of a text would also end at U+2028, which JSON does not escape.
        return [_entry(batch, json.loads(line)) for line in body.splitlines()]

    return read_stored(parse, f"{store.processed_bucket}/{object_key}", body, what="list of refused rows", remedy=REMEDY)


def _entry(batch: Batch, told: Mapping[str, Any]) -> Entry:
    key = tuple(told["key"].values())
    problems = tuple((problem["column"], problem["reason"]) for problem in told["problems"])
    return Entry(told["table"], told["source_table"], key, batch.run, batch.index, problems, told["row"])


def _batch_of(store: SourceStore, key: str) -> Batch:
    place = f"{store.processed_bucket}/{key}"
    return Batch(*read_stored(store.keys.batch_of_quarantine, place, key, what="name of refused rows", remedy=REMEDY))
