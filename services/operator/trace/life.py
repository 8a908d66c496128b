"""The life of a row as `starlift trace --json` prints it: names are stable, and what is not known is null."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from contracts.messages import Snapshot
from contracts.quarantine import Problem


class Piece(BaseModel, frozen=True):
    """An object of a batch."""

    bucket: str
    key: str
    rows: int | None  # as announced; None without a manifest: a bucket's listing has no row counts
    bytes: int
    written_at: AwareDatetime | None  # by S3, rounded down to seconds; None once it has expired
    expired: bool  # whether the bucket no longer has it


class Hop(BaseModel, frozen=True):
    """A step on a batch's way."""

    name: str
    at: AwareDatetime | None  # when it was done, by the clock of whoever did it
    to_the_second: bool = False  # whether S3 has rounded `at` down
    seconds: float | None = None  # since the last hop before it whose time is known
    estimate: bool = False  # whether one of the two times is rounded
    message: UUID | None = None  # the id of the message that announced it


class Passage(BaseModel, frozen=True):
    """What is known of the batch that wrote a row."""

    id: UUID
    first_id: UUID  # the id that it was announced with; a replay of the quarantine has another one
    run: int
    index: int | None  # its place in its run, from 0
    trace_id: str | None  # shared by its messages (W3C Trace Context)
    in_ledger: bool
    asked_by: UUID | None  # the id of the command that asked for the run; as the next two, from the run's manifest
    full: bool | None  # whether the run read every row
    run_completed_at: AwareDatetime | None  # by ingestion's clock
    snapshot: Snapshot | None  # the source snapshot that its rows were read in
    landing: tuple[Piece, ...]  # the rows of the table's source, and of what they were joined with
    processed: tuple[Piece, ...]  # the rows of the table
    hops: tuple[Hop, ...]  # in the order in which they were done


class StarRow(BaseModel, frozen=True):
    """A row of the warehouse: of a fact, one version."""

    values: dict[str, str | None]  # PostgreSQL's text of each column, the surrogate first
    version: tuple[str | None, ...]  # the values of the columns that tell the versions of a fact apart
    run: int  # the run whose snapshot the row shows; 0: an inferred member
    batch_id: UUID | None  # the batch that wrote it last; of an inferred member, one that referred to it; None for dates
    loaded_at: AwareDatetime  # when it was merged, by the warehouse's clock
    deleted_at: AwareDatetime | None  # the source no longer had it by then, by the source's clock
    current: bool  # whether it is what the warehouse shows of its key
    inferred: bool  # whether the loader made it up because a fact refers to it
    batch: Passage | None = None


class Refusal(BaseModel, frozen=True):
    """An entry of the quarantine: a batch brought the row, and the warehouse could not hold it."""

    run: int
    batch_index: int
    open: bool  # whether the row is still missing: no run from then on has brought it, or found it gone
    gone: bool  # whether the source no longer has the row
    problems: tuple[Problem, ...]
    row: dict[str, Any]  # the values of the source, by column


class Tombstone(BaseModel, frozen=True):
    """The last key comparison that found the row gone."""

    run: int
    found_at: AwareDatetime  # by the source's clock


@unique
class AtSource(StrEnum):
    """What the source has of a row that is not loaded."""

    NOWHERE = "nowhere"  # it has no such row
    REJECTED = "rejected"  # it has the row, which the table's filter rejects
    WAITING = "waiting"  # it was written since the last run's horizon: the next run reads it
    READ = "read"  # a run has read it
    UNKNOWN = "unknown"  # the source can't be reached


class Life(BaseModel, frozen=True):
    """The life of a row."""

    table: str  # of the warehouse
    key: tuple[int | str, ...]  # the business key: whole numbers, and texts
    known: bool  # whether the warehouse has a row of this key
    computed: bool  # whether the loader makes such rows itself: dates of the calendar
    rows: tuple[StarRow, ...]  # its versions, the newest first
    quarantine: tuple[Refusal, ...] = ()  # closed entries as well, the newest first
    tombstone: Tombstone | None = None
    at_source: AtSource | None = None  # asked only where no real row is loaded
