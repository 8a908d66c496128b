"""All that is known of one row: what the warehouse has of it, how that came there, and if nothing has, where it is instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from uuid import UUID

from contracts.tables import Calendar, RemodelledTable, WarehouseTable
from services.operator.naming import table_named
from services.operator.proof.causes import Unseen, sources_of
from services.operator.proof.comparison import Key
from services.operator.proof.quarantine import Entry
from services.operator.proof.statements import by_column, expected_rows, rows_of
from services.operator.system import System
from services.operator.trace.passage import Passage, read_passages
from services.operator.trace.refusals import read_refusals
from services.operator.trace.star_rows import (
    StarRow,
    parsed_key,
    read_rows,
)
from shared.errors import DependencyDownError
from shared.ledger import Tombstone, find_tombstone
from shared.source_snapshot import read_snapshot, versionless


@unique
class AtSource(StrEnum):
    """What the source says of a row that is not loaded."""

    NOWHERE = "nowhere"  # it has no such row
    WAITING = "waiting"  # it was written since the last run's horizon: the next run reads it
    READ = "read"  # a run has read it
    UNKNOWN = "unknown"  # the source can't be reached


@dataclass(frozen=True, slots=True)
class Life:
    """The life of a row. `rows` are its versions, the newest first; `at_source` was asked only where no real row is loaded."""

    table: WarehouseTable
    key: Key
    rows: tuple[StarRow, ...]
    passages: Mapping[UUID, Passage]
    refusals: tuple[Entry, ...]
    tombstone: Tombstone | None
    at_source: AtSource | None

    @property
    def is_known(self) -> bool:
        """Whether the warehouse has a row of this key."""
        return bool(self.rows)

    @property
    def is_computed(self) -> bool:
        """Whether the loader makes such rows itself."""
        return isinstance(self.table, Calendar)

    def is_open(self, refusal: Entry) -> bool:
        """Whether the row that was refused is missing still: no run from then on has brought it, or found it gone."""
        return all(row.run < refusal.run for row in self.rows) and not self.is_gone_since(refusal)

    def is_gone_since(self, refusal: Entry) -> bool:
        """Whether the source has the row no longer."""
        return self.at_source is AtSource.NOWHERE or (self.tombstone is not None and self.tombstone.run >= refusal.run)


async def read_life(system: System, table_name: str, texts: Sequence[str]) -> Life:
    """The life of the row whose key a person has typed.

    Raises: ComplaintError; DependencyDownError, TransientError, PermanentError.
    """
    table = table_named(system.contract, table_name)
    key = parsed_key(table, texts)
    async with system.warehouse.transaction(readonly=True) as warehouse:
        rows = await read_rows(warehouse, system.contract, table, key)
        if isinstance(table, Calendar):
            return Life(table, key, rows, {}, (), None, None)
        tombstone = await find_tombstone(warehouse, table, key)
        batches = {row.batch_id: row.run for row in rows if row.batch_id is not None}
        passages = await read_passages(system, warehouse, table, batches)
    refusals = await read_refusals(system, table, key)
    is_missing = all(row.is_inferred for row in rows)
    return Life(table, key, rows, passages, refusals, tombstone, await _at_source(system, table, key) if is_missing else None)


async def _at_source(system: System, table: RemodelledTable, key: Key) -> AtSource:
    checkpoint = await system.store.find_checkpoint()
    try:
        async with system.source.transaction(isolation="repeatable_read", readonly=True) as source:
            hidden = versionless(await read_snapshot(source, system.contract))
            if checkpoint is None or hidden & sources_of(table):
                unseen = Unseen(beyond=0, versionless=hidden)
            else:
                unseen = Unseen(((checkpoint.snapshot.horizon, 0),), versionless=hidden)
            expected = expected_rows(system.contract, table, unseen)
            row = await source.fetchrow(rows_of(expected, table), *by_column(table, [key]))
    except DependencyDownError:
        return AtSource.UNKNOWN
    if row is None:
        return AtSource.NOWHERE
    return AtSource.READ if row["waits"] is None else AtSource.WAITING
