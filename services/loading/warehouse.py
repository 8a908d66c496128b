"""The port between loading and a warehouse: what a batch is, and what every warehouse promises about loading one.

PostgreSQL keeps the promises in services/loading/postgres_warehouse.py, memory in services/loading/memory_warehouse.py;
tests/conformance runs one suite on both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from contracts.messages import BatchLoaded, KeyList
from contracts.objects import ObjectRef
from contracts.tables import WarehouseTable
from shared.key_lists import Key

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class KeyLists:
    """Which keys the source had in the batch's snapshot, of the tables that were compared, and how to read a part of a list."""

    lists: tuple[KeyList, ...]
    read: Callable[[ObjectRef], Awaitable[list[Key]]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is loaded in one step.

    `event` becomes the batch's record in the ledger. `rows` are by warehouse table, in the form of shared.codecs.
    """

    event: BatchLoaded
    rows: Mapping[str, pd.DataFrame]
    keys: KeyLists


@dataclass(frozen=True, slots=True)
class StarRow:
    """A row of a table: of a fact, one version. `columns` are the business columns by name."""

    columns: Mapping[str, object]
    run: int  # the run whose snapshot the row shows; 0 for an inferred member and for a date of the calendar
    deleted_at: datetime | None  # the source's clock: the row was gone by then


class Warehouse(Protocol):
    """A star, and the ledger of the batches that are loaded into it.

    Batches may be loaded in any order, several at once, and each any number of times: the rows and their runs are the same in
    the end. Of two images of a row the one of the higher run stays. A row is dead while a comparison of a run above its own has
    missed it. A fact whose dimension is not there yet gets an inferred member, which the real row replaces.

    Every method raises TransientError, PermanentError, and DependencyDownError for the warehouse or its schema.
    """

    async def ensure_schema(self) -> None:
        """Make the star follow the contract; do nothing if it already does."""
        ...

    async def has(self, batch_id: UUID) -> bool:
        """Whether the ledger has a batch."""
        ...

    async def load(self, batch: Batch) -> int | None:
        """Merge the rows of a batch, apply its key lists and record it in the ledger, as one step: all of it or nothing.

        Returns how many rows were found gone, or None if the ledger had the batch already. Refuses a second source
        (PermanentError): two sources in one star would take each other's rows for deleted.
        """
        ...

    async def finish_run(self, source_name: str, run: int) -> None:
        """Do what has to wait until every batch of a run is loaded; do nothing if one is missing."""
        ...

    async def rows(self, table: WarehouseTable) -> list[StarRow]:
        """Every row of a table, dead ones included, in no order."""
        ...
