"""The port between loading and a warehouse: what a batch is, and what every warehouse promises about loading one.

PostgreSQL keeps the promises in services/loading/postgres_warehouse.py, memory in services/loading/memory_warehouse.py;
tests/conformance runs one suite on both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from contracts.key_hashes import KeyHashes
from contracts.messages import BatchLoaded, RowsOf
from contracts.tables import RemodelledTable, WarehouseTable
from shared.source_keys import Key

if TYPE_CHECKING:
    import pandas as pd


# How long a comparison waits for an incomplete run after that run's last load: a dead letter may keep it incomplete for ever.
EARLIER_RUN_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is loaded in one step.

    `event` becomes the batch's record in the ledger. `rows` are by warehouse table, in the form of shared.codecs.
    """

    event: BatchLoaded
    rows: Mapping[str, pd.DataFrame]
    hashes: KeyHashes | None = None  # of the source tables whose keys the run compares
    gone: tuple[RowsOf, ...] = ()  # rows of source tables that the run looked up and did not find
    answers: UUID | None = None  # the question that is answered with this batch
    rejected: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)  # rows that a filter leaves out, by warehouse table
    whole_runs: Mapping[str, int] = field(default_factory=dict)  # of rows of data sets, by warehouse table: as in StarRows

    def gone_from(self, table: RemodelledTable) -> list[Key]:
        """The keys of the rows that `table` no longer has."""
        gone = [key for rows in self.gone if rows.table == table.source for key in rows.keys]
        return [*gone, *self.rejected.get(table.name, ())]


@dataclass(frozen=True, slots=True)
class Question:
    """Keys of one warehouse table whose rows the source may have deleted."""

    id: UUID  # derived from what led to the question: asked again, it has the same id
    table: RemodelledTable
    source_name: str
    run: int  # of the comparison that asks; for images that came late, of the comparison that missed them
    keys: tuple[Key, ...]
    believe_empty: bool = False


Ask = Callable[[Question], Awaitable[None]]  # sends a question to ingestion


@dataclass(frozen=True, slots=True)
class StarRow:
    """A row of a table: of a fact, one version. `columns` are the business columns by name."""

    columns: Mapping[str, object]
    run: int  # the run whose snapshot the row shows; 0 for an inferred member and for a date of the calendar
    deleted_at: datetime | None  # the source's clock: the row was gone by then


class Warehouse(Protocol):
    """A star, and the ledger of the batches that are loaded into it.

    Batches may be loaded in any order, several at once, and each any number of times: the rows and their runs are the same in
    the end. Of two images of a row the one of the higher run stays; if its data set has a version column, the one of the higher
    (whole run, version, run), which merge.py argues. A row is dead while a run above its own has looked it up
    and not found it. A fact whose dimension is not there yet gets an inferred member, which the real row replaces.

    Every method raises TransientError, PermanentError, and DependencyDownError for the warehouse or its schema.
    """

    async def ensure_schema(self) -> None:
        """Make the star follow the contract; do nothing if it already does."""
        ...

    async def has(self, batch_id: UUID) -> bool:
        """Whether the ledger has a batch."""
        ...

    async def load(self, batch: Batch, ask: Ask) -> int | None:
        """Merge the rows of a batch, mark those that are gone and record it in the ledger, as one step: all of it or nothing.

        Before it commits it asks about each row whose newest image the batch brings, if the last comparison of its table is of
        a later run and has begun: that comparison could not see it, and it may have been deleted before. Hashes are only
        recorded here; `compare_keys` uses them. A row that a filter leaves out is as good as gone.

        Returns how many rows were marked as gone, or None if the ledger had the batch already. Refuses a source
        (PermanentError) into whose tables another has loaded: each would take the other's rows for deleted.
        """
        ...

    async def finish_run(self, source_name: str, run: int) -> None:
        """Do what has to wait until every batch of a run is loaded; do nothing if one is missing.

        Until then the warehouse may leave out what facts refer to. What may wait longer is logged.
        """
        ...

    async def compare_keys(self, ask: Ask) -> int:
        """Make each comparison that is recorded and whose batches are all loaded; return how many keys were asked about.

        Call it after each load, for a batch that was loaded already, and now and then: what failed or waited is tried again. Of
        several callers one works, and the others return.

        A comparison waits while batches of its run are missing, or of a run before it that has loaded one within
        EARLIER_RUN_PATIENCE: every bucket of theirs would differ. It reads the star without a lock, asks about the keys that
        the star holds in each bucket that differs, and changes no row.
        """
        ...

    async def rows(self, table: WarehouseTable) -> list[StarRow]:
        """Every row of a table, dead ones included, in no order."""
        ...
