"""The quarantine: the rows that the warehouse could not hold, which of them it still lacks, and how to load them again.

An entry is open until its row is loaded by the run that read it or a later one; of a data set with a version, until an image of
the row is loaded that counts as much or more (services/loading/merge.py). Of a record without a readable key, which only
a delivery has, it is open until a later whole snapshot of the data set is taken: nothing else says that it is corrected.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from uuid import uuid4

import asyncpg
from pydantic import BaseModel

from contracts.contract import Contract
from contracts.messages import BatchIngested, encode
from contracts.quarantine import Problem, RefusedRow
from contracts.tables import SourceTable, WarehouseTable
from contracts.warehouse import RUN, TOMBSTONE, WHOLE_RUN
from services.operator.star_keys import by_column, key_arrays, key_names, key_value, table_named
from services.operator.system import System
from shared.codecs import codec_of
from shared.envelope import opening
from shared.key_look_up import found_keys
from shared.ledger import batches_without_refusals
from shared.reading import in_order
from shared.source_keys import Key
from shared.source_store import SourceStore
from shared.sql import literal, quoted
from shared.stored_documents import read_stored

SOURCE = "starlift/operator"
REMEDY = "delete it, then run `starlift ingest --full`: rows that are still refused return to quarantine"


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch `index` of run `run`, and an entry's order: all that is kept of one in memory, for there may be very many."""

    run: int
    index: int
    order: tuple[int, int | None] = field(default=(0, None), compare=False)  # as of a RefusedRow

    @property
    def rank(self) -> tuple[int, bool, int, int]:
        """The place of a refused row among the images of its key. One without a readable version is the smallest."""
        whole_run, version = self.order
        return whole_run, version is not None, version or 0, self.run


class Entry(BaseModel, frozen=True):
    """A source row that a warehouse table could not hold, as one batch saw it."""

    table: str  # the warehouse table
    key: Key  # of a record without a readable key: where it is
    is_record: bool = False  # whether it is such a record
    run: int  # the run that read the row
    index: int  # of the batch within the run, from 0
    problems: tuple[Problem, ...]
    source_table: str
    row: dict[str, int | bool | str | None]  # the source's values as a person writes them; long texts are cut
    order: tuple[int, int | None] = (0, None)  # as of a RefusedRow

    @property
    def batch(self) -> Batch:
        """The batch that saw the row."""
        return Batch(self.run, self.index, self.order)


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many `rows` of the quarantine were sent again, and in which batches.

    `lost` are those whose batch is unknown by now: its run did not complete, or its manifest has expired.
    """

    rows: int
    batches: list[BatchIngested]
    lost: list[Entry]


async def read_entries(store: SourceStore, keys: Sequence[str] | None = None) -> AsyncIterator[Entry]:
    """Yield every entry, or those in the objects `keys`, also closed ones, oldest run first.

    The quarantine has one object for each batch that had such rows, and nothing says which rows are in it: all are read.
    Raises: DamagedDocumentError; DependencyDownError, PermanentError, TransientError.
    """
    if keys is None:
        keys = await store.objects.keys(store.processed_bucket, store.keys.quarantine)
    async for key, read in in_order(keys, partial(store.objects.read, store.processed_bucket)):
        for entry in [] if read is None else _entries_in(store, key, read.body):
            yield entry


async def open_batches(system: System, warehouse: asyncpg.Connection) -> dict[str, dict[Key, Batch]]:
    """By warehouse table and key, the last batch in which the table could not hold a row that it still lacks, without records.

    A row has come since if the table has its key from that run or a later one, or if a replay of the batch refused nothing. It
    is gone since if it has a tombstone of a later run: it was deleted, or a filter rejects it.
    """
    refused: dict[str, dict[Key, Batch]] = {}
    async for entry in read_entries(system.store):
        if entry.is_record:
            continue
        of_table, batch = refused.setdefault(entry.table, {}), entry.batch
        if entry.key not in of_table or of_table[entry.key].rank <= batch.rank:
            of_table[entry.key] = batch
    contract = system.contract
    for table in contract.warehouse_tables:
        batches = refused.get(table.name)
        name = quoted(contract.warehouse_schema, table.name)
        if batches and await warehouse.fetchval("SELECT to_regclass($1) IS NOT NULL", name):  # NULL: before the first load
            rows = [(batch.run, *batch.order) for batch in batches.values()]
            arrays = (*by_column(table, batches), *map(list, zip(*rows, strict=True)))
            for closed in await warehouse.fetch(_loaded_since(contract, table), *arrays):
                del batches[tuple(closed)]
    runs = {batch.run for by_key in refused.values() for batch in by_key.values()}
    replayed = {
        Batch(*batch) for batch in await batches_without_refusals(warehouse, system.contract, system.store.source, runs)
    }
    return {table: {key: batch for key, batch in by_key.items() if batch not in replayed} for table, by_key in refused.items()}


async def open_entries(system: System, warehouse: asyncpg.Connection) -> dict[str, dict[Key, Entry]]:
    """As `open_batches`, but the entries themselves."""
    refused = await open_batches(system, warehouse)
    batches = {batch for by_key in refused.values() for batch in by_key.values()}
    store = system.store
    keys = await store.objects.keys(store.processed_bucket, store.keys.quarantine)
    found: dict[str, dict[Key, Entry]] = {}
    async for entry in read_entries(store, [key for key in keys if _batch_of(store, key) in batches]):
        if refused.get(entry.table, {}).get(entry.key) == entry.batch:
            found.setdefault(entry.table, {})[entry.key] = entry
    return found


async def quarantined(system: System, table: str | None = None) -> list[Entry]:
    """The open entries of one warehouse table or of all, by table and key, without rows that were deleted at the source since.

    Raises: UsageError; DependencyDownError, PermanentError, TransientError.
    """
    contract = system.contract
    chosen = contract.warehouse_tables if table is None else [table_named(contract, table)]
    async with system.warehouse.transaction(readonly=True) as warehouse:
        entries = await open_entries(system, warehouse)
    still: list[Entry] = []
    for table_in_question in contract.remodelled_tables:
        of_table = entries.get(table_in_question.name, {})
        if of_table and table_in_question in chosen:
            source_table = contract.source_table(table_in_question.source)
            there = await keys_at_source(system, source_table, list(of_table))
            still += [of_table[key] for key in sorted(of_table.keys() & there)]
    return still + [entry for entry in await open_records(system) if entry.table in {one.name for one in chosen}]


async def open_records(system: System) -> list[Entry]:
    """The records without a readable key that no later whole snapshot has replaced; each as the last run saw it."""
    if system.source is not None:
        return []
    checkpoint = await system.store.find_checkpoint()
    whole = {name: state.taken_run or 0 for name, state in checkpoint.datasets.items()} if checkpoint else {}
    found = dict[tuple[str, Key], Entry]()
    async for entry in read_entries(system.store):
        if entry.is_record and entry.run > whole.get(entry.source_table, 0):
            found[entry.table, entry.key] = entry
    return list(found.values())


async def keys_at_source(system: System, table: SourceTable, keys: Sequence[Key]) -> set[Key]:
    """Those of `keys` that a row of the source has. Raises: DependencyDownError, PermanentError, TransientError."""
    if system.source is None:
        from shared.landed import truth_of  # noqa: PLC0415 (pandas: half a second for every command)

        truth = truth_of(system.store, system.contract, table, await system.store.find_checkpoint())
        return set(keys).difference(await truth.missing_keys(keys))
    async with system.source.transaction(readonly=True) as source:
        return await found_keys(source, system.contract, table, keys)


async def replay(system: System, entries: Sequence[Entry]) -> Replayed:
    """Send the batches of the entries again, as new batches of the same run: they overwrite nothing newer."""
    sent: dict[Batch, BatchIngested | None] = {}
    lost: list[Entry] = []
    for entry in entries:
        if entry.batch not in sent:
            sent[entry.batch] = await _send_again(system, entry.batch)
        if sent[entry.batch] is None:
            lost.append(entry)
    return Replayed(len(entries) - len(lost), [event for event in sent.values() if event is not None], lost)


async def _send_again(system: System, batch: Batch) -> BatchIngested | None:
    """All rows of the batch, also those that are loaded: a batch of the ledger is never a part of what it was."""
    manifest = await system.store.find_manifest(batch.run)
    former = next((one for one in manifest.batches if one.data.index == batch.index), None) if manifest else None
    if former is None:
        return None
    event = BatchIngested(**opening(SOURCE), data=former.data.model_copy(update={"batch_id": uuid4()}))
    await system.queues["remodelling"].send(encode(event))
    return event


def _loaded_since(contract: Contract, table: WarehouseTable) -> str:
    """Of the keys that were refused (`by_column`, then their runs and orders), those that have come, or have gone, since."""
    names = key_names(table)
    same = " AND ".join(
        f"{key_value(quoted('t', name), table.column(name))} = r.{key}" for key, name in zip(names, table.key, strict=True)
    )
    given = ", ".join([*key_arrays(table), *(f"${len(names) + place}::bigint[]" for place in (1, 2, 3))])
    has_come = f"t.{RUN} >= r.run"
    if (version := contract.version_of(table)) is not None:
        refused = codec_of(table.column(version).type).loaded("r.version")
        held = f"(t.{WHOLE_RUN}, {quoted('t', version)}, t.{RUN})"
        has_come = f"({held} >= (r.whole_run, {refused}, r.run) OR (r.version IS NULL AND t.{WHOLE_RUN} = r.whole_run))"
    key = ", ".join(f"r.{name}::{table.column(key).type.unbounded_sql}" for name, key in zip(names, table.key, strict=True))
    tombstones = f"SELECT FROM {contract.own(TOMBSTONE)} AS b WHERE b.table_name = {literal(table.name)}"
    return (
        f"SELECT {', '.join(names)} FROM unnest({given}) AS r ({', '.join(names)}, run, whole_run, version) WHERE EXISTS "
        f"(SELECT FROM {quoted(contract.warehouse_schema, table.name)} AS t WHERE {same} AND {has_come}) "
        f"OR EXISTS ({tombstones} AND b.key = jsonb_build_array({key}) AND b.run > r.run)"
    )


def _entries_in(store: SourceStore, key: str, body: bytes) -> list[Entry]:
    batch = _batch_of(store, key)

    def parse(body: bytes) -> list[Entry]:
        if key != store.keys.batch(batch.run, batch.index).quarantine(sha256(body).hexdigest()):  # the key holds the hash
            raise ValueError(key)
        # Split as bytes: lines of a text would also end at U+2028, which JSON does not escape.
        return [_entry(batch, RefusedRow.model_validate_json(line)) for line in body.splitlines()]

    return read_stored(parse, f"{store.processed_bucket}/{key}", body, what="list of refused rows", remedy=REMEDY)


def _entry(batch: Batch, line: RefusedRow) -> Entry:
    return Entry(
        table=line.table,
        key=tuple(line.key.values()) if line.record is None else (line.record,),
        is_record=line.record is not None,
        run=batch.run,
        index=batch.index,
        problems=line.problems,
        source_table=line.source_table,
        row=line.row,
        order=line.order,
    )


def _batch_of(store: SourceStore, key: str) -> Batch:
    place = f"{store.processed_bucket}/{key}"
    return Batch(*read_stored(store.keys.batch_of_quarantine, place, key, what="name of refused rows", remedy=REMEDY))
