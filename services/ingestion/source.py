"""The port through which a run reads a source.

There are two kinds: PostgreSQL (`postgres_source.py`; `memory_source.py` is the fake), and files and APIs
(`delivered_source.py`). A run makes no assumption about how a source finds out what has changed: it asks an open snapshot for
a plan and for the rows of that plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from contracts.column_types import ColumnType
from contracts.key_hashes import TableHashes
from contracts.messages import MESSAGE_BYTES_MAXIMUM, KeyRange, Role
from contracts.state import Checkpoint
from contracts.tables import RemodelledTable, SourceTable
from services.ingestion.plan import Plan, Request
from shared.codecs.codec import MIB
from shared.source_facts import SourceFacts
from shared.source_keys import Key

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Where the rows of a run are cut into batches. A batch exceeds them only for a single row and its partners."""

    rows: int = 100_000  # larger ones gain nothing: the services would wait longer for the first, and hold more
    byte_count: int = 24 * MIB  # of CSV; a service holds two batches, each in several forms at a time
    # Objects named by a batch's messages, each in at most 1,000 bytes: half of what SQS accepts, for a dead letter needs room.
    objects: int = MESSAGE_BYTES_MAXIMUM // 2 // 1_000
    # A batch up to both is written as a bundle; beyond, a Parquet object for each table takes less time.
    bundle_rows: int = 5_000
    bundle_bytes: int = 2 * MIB  # of CSV
    gone_keys: int = 5_000  # named by one batch: their tombstones take the star's lock for less than half a second
    gone_bytes: int = (
        MESSAGE_BYTES_MAXIMUM // 4
    )  # of these keys as JSON, as in a question of loading; a single key may exceed it


class SnapshotLostError(Exception):
    """The exported snapshot is no longer open. Recovery: none is needed; its run has ended."""


@dataclass(frozen=True, slots=True)
class TablePart:
    """The rows of one table whose keys are in a range."""

    table: SourceTable
    rows: KeyRange


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of one table."""

    table: SourceTable
    role: Role
    types: Mapping[str, ColumnType]  # of the columns; some may be unknown to the contract, and are carried
    row_count: int
    byte_count: int  # of its CSV
    frame: asyncio.Future[pd.DataFrame]  # in the form of shared.codecs; parsed while the next page is read
    whole_run: int | None = None  # of a data set: as in an Extract (contracts/messages.py)

    @property
    def carried(self) -> list[str]:
        """The columns that the contract does not know."""
        return [name for name in self.types if name not in self.table.extract_types]


class OpenSnapshot(Protocol):
    """A source as of one instant. Every method reads that instant, however long the run takes."""

    @property
    def facts(self) -> SourceFacts:
        """The position of the snapshot, the identity of the source, and what its catalog records about each table."""
        ...

    def plan(self, before: Checkpoint | None, request: Request, compare_keys_every: int) -> Plan:
        """What to read, given what the last run left and what the command asks for. Raises: PermanentError."""
        ...

    def pages(self, plan: Plan, limits: BatchLimits, part: TablePart | None = None) -> AsyncGenerator[list[Page], None]:
        """Yield every affected row: a page of a table together with the partners of its rows, all within `limits`.

        A row is affected when it or one of its lookup partners changed, or when the plan asks for its key. A key that the
        source does not hold is passed over. With `part`, only its rows, in the order of their keys; without, not the tables
        that the plan shares out.
        """
        ...

    def ranges(self, table: SourceTable, within: KeyRange, row_count: int) -> AsyncIterator[KeyRange]:
        """Cut a range of keys into ranges that together are the whole, each of `row_count` rows, the last one of fewer."""
        ...

    async def export(self) -> str:
        """The name under which others can join this snapshot while it is open."""
        ...

    async def key_hashes(self, plan: Plan, table: SourceTable, star: RemodelledTable | None = None) -> TableHashes:
        """Hashes of the keys of `table`, without those of the rows that `plan` reads, which are in the batches.

        With `star`, a table of the warehouse, only of the rows that its filter accepts.
        """
        ...

    async def is_empty(self, table: SourceTable) -> bool:
        """Whether a table has no row at all."""
        ...

    async def missing_keys(self, table: SourceTable, keys: Sequence[Key]) -> tuple[Key, ...]:
        """Those of `keys` that no row of `table` has, in their order. A text equals only itself, whatever its collation."""
        ...

    async def completed(self, plan: Plan) -> None:
        """Record what became of the delivery that the run took, after the state; the snapshot may be closed by then."""
        ...


class Source(Protocol):
    """A system whose rows Starlift copies."""

    def open_snapshot(self, request: Request | None = None) -> AbstractAsyncContextManager[OpenSnapshot]:
        """Open a snapshot of every table. Its position is taken before its first row is read.

        `request` is what the run is to do: a source of files takes none of them in a run that is asked for earlier rows.

        Raises: SourceMismatchError, DependencyDownError, TransientError, PermanentError.
        """
        ...

    def join_snapshot(self, exported: str) -> AbstractAsyncContextManager[OpenSnapshot]:
        """Open the snapshot that another task has exported. Raises: SnapshotLostError, and as `open_snapshot`."""
        ...
