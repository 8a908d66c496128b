"""Reads the life of a row: what the warehouse has of it, how that came there, and if nothing has, where it is instead."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from contracts.contract import Contract
from contracts.tables import Calendar, RemodelledTable, WarehouseTable
from contracts.warehouse import BATCH_ID, DELETED_AT, LOADED_AT, RUN
from services.operator.errors import UsageError
from services.operator.proof.canonical import rows_of_keys
from services.operator.proof.delivered import open_tables
from services.operator.proof.expected import CausesByAge, expected_rows, sources_of
from services.operator.proof.row_comparison import Cause, Wait
from services.operator.quarantine import Entry, read_entries
from services.operator.star_keys import by_column, table_named
from services.operator.system import System
from services.operator.trace.life import AtSource, Life, Refusal, StarRow, Tombstone
from services.operator.trace.passage import read_passages
from services.operator.wording import printable
from shared.catalog import read_source_facts
from shared.codecs import codec_of
from shared.errors import DependencyDownError
from shared.key_look_up import found_keys
from shared.ledger import find_tombstone, key_parameter
from shared.source_facts import versionless
from shared.source_keys import Key
from shared.sql import quoted


async def read_life(system: System, table_name: str, texts: Sequence[str]) -> Life:
    """The life of the row whose key a person has typed.

    Raises: UsageError; DependencyDownError, TransientError, PermanentError.
    """
    table = table_named(system.contract, table_name)
    key = parsed_key(table, texts)
    async with system.warehouse.transaction(readonly=True) as warehouse:
        rows = await read_rows(warehouse, system.contract, table, key)
        if isinstance(table, Calendar):
            return Life(table=table.name, key=key, known=bool(rows), computed=True, rows=rows)
        found = await find_tombstone(warehouse, system.contract, table, key)
        passages = await read_passages(system, warehouse, table, rows)
    life = Life(
        table=table.name,
        key=key,
        known=bool(rows),
        computed=False,
        rows=tuple(row.model_copy(update={"batch": passages.get(row.batch_id)}) for row in rows),
        tombstone=Tombstone(run=found.run, found_at=found.found_at) if found else None,
        at_source=await _at_source(system, table, key) if all(row.inferred for row in rows) else None,
    )
    return life.model_copy(update={"quarantine": await read_refusals(system, life)})


def parsed_key(table: WarehouseTable, texts: Sequence[str]) -> Key:
    """The key that a person has typed, a value for each column. Raises: UsageError."""
    if len(texts) != len(table.key):
        raise UsageError(
            f"a row of '{table.name}' is named by {len(table.key)} of its columns ({', '.join(table.key)}), "
            f"not by {len(texts)} values; give one value for each, in this order"
        )
    key = []
    for name, text in zip(table.key, texts, strict=True):
        codec = codec_of(table.column(name).type)
        try:
            key.append(codec.parsed_key(text))
        except ValueError:
            raise UsageError(f"'{name}' is {codec.key_form}, not '{printable(text)}'; correct the key") from None
    return tuple(key)


async def read_rows(warehouse: asyncpg.Connection, contract: Contract, table: WarehouseTable, key: Key) -> tuple[StarRow, ...]:
    """What the warehouse has of a key, the newest first; nothing before the first load."""
    relation = quoted(contract.warehouse_schema, table.name)
    if await warehouse.fetchval("SELECT to_regclass($1) IS NULL", relation):
        return ()
    names = [*([table.surrogate] if table.surrogate else []), *table.star_types]
    values = ", ".join(f"{quoted(name)}::text" for name in names)
    newest_first = ", ".join(f"{quoted(name)} DESC" for name in (RUN, *table.version))
    same = " AND ".join(f"{quoted(name)} = {key_parameter(table, position)}" for position, name in enumerate(table.key))
    found = await warehouse.fetch(
        f"SELECT ARRAY[{values}] AS values, {RUN}, {BATCH_ID}, {LOADED_AT}, {DELETED_AT} "
        f"FROM {relation} WHERE {same} ORDER BY {newest_first}",
        *map(str, key),
    )
    rows = []
    for place, row in enumerate(found):
        texts = dict(zip(names, row["values"], strict=True))
        rows.append(
            StarRow(
                values=texts,
                version=tuple(texts[name] for name in table.version),
                run=row[RUN],
                batch_id=row[BATCH_ID],
                loaded_at=row[LOADED_AT],
                deleted_at=row[DELETED_AT],
                current=place == 0 and row[DELETED_AT] is None,
                inferred=row[RUN] == 0 and not isinstance(table, Calendar),
            )
        )
    return tuple(rows)


async def read_refusals(system: System, life: Life) -> tuple[Refusal, ...]:
    """Every entry of the quarantine about the row, the newest first.

    The quarantine has one object for each batch that had such rows, and no index of their keys: all are read.
    """
    found = [
        refusal_of(entry, life)
        async for entry in read_entries(system.store)
        if (entry.table, entry.key) == (life.table, life.key)
    ]
    return tuple(reversed(found))


def refusal_of(entry: Entry, life: Life) -> Refusal:
    """An entry of the quarantine, and what has become of its row."""
    is_gone = life.at_source in {AtSource.NOWHERE, AtSource.REJECTED} or (
        life.tombstone is not None and life.tombstone.run >= entry.run
    )
    return Refusal(
        run=entry.run,
        batch_index=entry.index,
        open=not is_gone and all(row.run < entry.run for row in life.rows),
        gone=is_gone,
        problems=entry.problems,
        row=dict(entry.row),
    )


async def _at_source(system: System, table: RemodelledTable, key: Key) -> AtSource:
    """Whether the source has the row, and whether completed runs have read it as it is now.

    A row whose transaction ids may not be read is waiting.
    """
    checkpoint, next_run = await system.store.find_checkpoint(), Cause(Wait.RUN)
    try:
        async with open_tables(system, {table.source: [key]}) as (source, contract):
            hidden = frozenset[str]() if system.source is None else versionless(await read_source_facts(source, contract))
            if checkpoint is None or hidden & sources_of(table):
                by_age = CausesByAge(beyond=next_run, versionless=hidden)
            else:
                by_age = CausesByAge(((checkpoint.snapshot.horizon, next_run),), versionless=hidden)
            statement = rows_of_keys(expected_rows(contract, table, by_age), table)
            row = await source.fetchrow(statement, *by_column(table, [key]))
            if row is None and table.where is not None:
                there = await found_keys(source, contract, contract.source_table(table.source), [key])
                return AtSource.REJECTED if there else AtSource.NOWHERE
    except DependencyDownError:
        return AtSource.UNKNOWN
    if row is None:
        return AtSource.NOWHERE
    return AtSource.READ if row["cause"] is None else AtSource.WAITING
