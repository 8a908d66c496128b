"""What Starlift remembers of a source between runs: one JSON object in the landing bucket, and a manifest per run."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field

from contracts.messages import BatchIngested, KeyRange, Snapshot, Trigger
from contracts.upcasts import upcast

RUN_MAXIMUM = 10**13  # milliseconds reach it in 2286: a run number far above all others would freeze the warehouse


class _Stored(BaseModel, frozen=True, extra="ignore"):
    """Read by later and by earlier builds, so unknown fields are ignored."""


def lsn(text: str) -> int:
    """A pg_lsn ('16/B374D848') as a number of bytes."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _comparable(snapshot: Snapshot) -> Snapshot:
    """Refuse a position that PostgreSQL would not take."""
    if snapshot.horizon >= 2**63 or lsn(snapshot.wal_position) < 0:
        raise ValueError(snapshot)
    return snapshot


class StoredLease(_Stored):
    """The lease of the run in progress. A run whose token is no longer here has lost it."""

    token: UUID  # random, one per lease
    until: AwareDatetime  # by the clock of the run's host; renewed while the run is in progress


class SourceIdentity(_Stored):
    """What makes transaction ids comparable: while none of this changes, a horizon means what it meant."""

    system_identifier: int  # of the PostgreSQL cluster: pg_control_system()
    timeline: int  # of its log; another after a failover or a restore
    database_oid: int
    statistics_reset: str  # pg_stat_bgwriter.stats_reset: moves after a crash, and a crashed PostgreSQL reuses transaction ids


class DatasetState(_Stored):
    """How far a data set has been taken (contracts/datasets.py)."""

    whole_run: int | None = None  # the run of the newest whole snapshot; earlier extracts no longer count
    # The run that took the newest one that was delivered, which replaces what was refused before. A run that announces what is
    # known again is also a whole snapshot, but without what was refused; an API, however, is then asked for everything again.
    taken_run: int | None = None
    tagged_run: int | None = None  # those of runs before it have the tag that lets them expire
    sha256: str | None = None  # of the bytes of the last delivery: the same ones again change nothing
    is_emptied: bool = False  # the last delivery was a whole snapshot without a record, which is not believed yet
    since: str | None = None  # what the next increment of an API begins after
    etag: str | None = None  # of the last answer of an API
    last_modified: str | None = None  # of the last answer of an API
    asked: str | None = None  # a hash of what an API was asked for: another request begins at its beginning
    # How extracts since `whole_run` are read (shared/landed.py): another type or key makes other values of the same bytes.
    columns: dict[str, str] = {}  # the type of each column, by name; empty before the first run
    key: tuple[str, ...] = ()


class Checkpoint(_Stored):
    """What the last completed run leaves to the next."""

    run: int
    started_at: AwareDatetime  # before its snapshot was opened
    snapshot: Annotated[Snapshot, AfterValidator(_comparable)]  # its position: the next run reads what has changed since
    identity: SourceIdentity
    contract: str  # the contract's fingerprint
    tables: dict[str, str]  # the catalog fingerprint of each source table
    # Since the keys of every table were compared; None: never, or by an earlier build, which counted under another name.
    runs_since_key_comparison: int | None = None
    new_columns: dict[str, tuple[str, ...]] = {}  # by table, those the contract does not know, as "name type"
    empty_tables: frozenset[str] = frozenset()  # had no row when their keys should have been compared
    # When a transaction that is still open began to hold the horizon back. Every run reads again what has changed since.
    held_back_since: AwareDatetime | None = None
    datasets: dict[str, DatasetState] = {}  # of a source of files or of an API, by name
    may_wait: bool = False  # such a source may have deliveries that this run has not taken


class UnfinishedLoad(_Stored):
    """A first load that several tasks share, until a run completes it (services/ingestion/resume.py)."""

    checkpoint: Checkpoint  # what the first run of the load would have left
    runs: tuple[int, ...]  # those that may have recorded chunks, in their order


class SourceState(_Stored):
    """The state object of a source."""

    run: Annotated[int, Field(ge=0, le=RUN_MAXIMUM)] = 0  # the highest number ever taken
    lease: StoredLease | None = None  # None while no run is in progress
    checkpoint: Checkpoint | None = None  # None before a run has completed
    load: UnfinishedLoad | None = None  # None unless a first load is shared; a build that drops it reads everything again


def _upcast(announced: Any) -> Any:
    return upcast(announced) if isinstance(announced, dict) else announced


class Chunk(_Stored):
    """A part of a table that a task has extracted for a run. That task announces it, or one that receives its command again."""

    table: str  # of the source
    rows: KeyRange  # which were extracted
    within: KeyRange  # as in the command
    is_whole: bool  # whether they are all that the command asked for; the rest did not fit into the batch
    batch: Annotated[BatchIngested, BeforeValidator(_upcast)]


class Manifest(_Stored):
    """Every batch of a completed run, as it was announced."""

    source_name: str
    run: int
    requested_by: UUID  # the id of the command that asked for the run
    trigger: Trigger | None = None  # None if loading asked, by a question; also in a manifest of an early build
    snapshot: Snapshot
    completed_at: AwareDatetime  # by the clock of the run's host
    # A full run read every row of every table: once it is loaded, what earlier runs announced and never loaded matters only to
    # the history.
    is_full: bool = False
    # Tables read in full since any of their rows may have changed without a new transaction id, as after a crash of the source.
    redefined: frozenset[str] = frozenset()
    batches: tuple[Annotated[BatchIngested, BeforeValidator(_upcast)], ...]
    # Another run of the same command follows, for the next delivery. The last one answers the command.
    is_followed: bool = False
    # The run ended early, and the run that went on with its load has written this. Without that one nothing is consistent.
    is_part: bool = False
