"""Reads the life of a row: what the warehouse has of it, how that came there, and if nothing has, where it is instead."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.tables import Calendar, RemodelledTable
from services.operator.proof.canonical import rows_of_keys
from services.operator.proof.causes import Cause, Unseen, Wait, sources_of
from services.operator.proof.expected import expected_rows
from services.operator.quarantine.entries import Entry, read_entries
from services.operator.star_keys import Key, by_column, table_named
from services.operator.system import System
from services.operator.trace.life import AtSource, Life, Refusal, Tombstone
from services.operator.trace.passage import read_passages
from services.operator.trace.row import parsed_key, read_rows
from shared.catalog import read_source_facts
from shared.errors import DependencyDownError
from shared.ledger import find_tombstone
from shared.source_facts import versionless


async def read_life(system: System, table_name: str, texts: Sequence[str]) -> Life:
    """The life of the row whose key a person has typed.

    Raises: UsageError; DependencyDownError, TransientError, PermanentError.
    """
    table = table_named(system.contract, table_name)
    key = parsed_key(table, texts)
    async with system.warehouse.transaction(readonly=True) as warehouse:
        rows = await read_rows(warehouse, system.contract, table, key)
        life = Life(table=table.name, key=key, known=bool(rows), computed=isinstance(table, Calendar), rows=rows)
        if isinstance(table, Calendar):
            return life
        found = await find_tombstone(warehouse, table, key)
        passages = await read_passages(system, warehouse, table, rows)
    life = life.model_copy(
        update={
            "rows": tuple(
                row.model_copy(update={"batch": passages.get(row.batch_id)}) if row.batch_id else row for row in rows
            ),
            "tombstone": Tombstone(run=found.run, found_at=found.found_at) if found else None,
            "at_source": await _at_source(system, table, key) if all(row.inferred for row in rows) else None,
        }
    )
    return life.model_copy(update={"quarantine": await read_refusals(system, life)})


async def read_refusals(system: System, life: Life) -> tuple[Refusal, ...]:
    """Every entry of the quarantine about the row, the newest first.

    The quarantine has one object for each batch that had such rows, and nothing tells which keys are in it: all are read.
    """
    found = [
        refusal_of(entry, life)
        async for entry in read_entries(system.store)
        if (entry.table, entry.key) == (life.table, life.key)
    ]
    return tuple(reversed(found))


def refusal_of(entry: Entry, life: Life) -> Refusal:
    """An entry of the quarantine, and what has become of its row."""
    is_gone = life.at_source is AtSource.NOWHERE or (life.tombstone is not None and life.tombstone.run >= entry.run)
    return Refusal(
        run=entry.run,
        batch_index=entry.index,
        open=not is_gone and all(row.run < entry.run for row in life.rows),
        gone=is_gone,
        problems=entry.problems,
        row=dict(entry.row),
    )


async def _at_source(system: System, table: RemodelledTable, key: Key) -> AtSource:
    checkpoint = await system.store.find_checkpoint()
    try:
        async with system.source.transaction(isolation="repeatable_read", readonly=True) as source:
            hidden = versionless(await read_source_facts(source, system.contract))
            if checkpoint is None or hidden & sources_of(table):
                unseen = Unseen(beyond=Cause(Wait.RUN), versionless=hidden)
            else:
                unseen = Unseen(((checkpoint.snapshot.horizon, Cause(Wait.RUN)),), versionless=hidden)
            expected = expected_rows(system.contract, table, unseen)
            row = await source.fetchrow(rows_of_keys(expected, table), *by_column(table, [key]))
    except DependencyDownError:
        return AtSource.UNKNOWN
    if row is None:
        return AtSource.NOWHERE
    return AtSource.READ if row["waits"] is None else AtSource.WAITING
