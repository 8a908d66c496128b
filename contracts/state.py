"""What a source remembers between its runs: one JSON object in the landing bucket, and a manifest per run."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from contracts.messages import BatchIngested, Snapshot, Trigger, upcast

RUN_MAXIMUM = 10**13  # milliseconds reach it in 2286: a run number far above all others would freeze the warehouse


class _Stored(BaseModel):
    """Read by later and by earlier builds, so unknown fields are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Lease(_Stored):
    """Who runs now. A run whose token is no longer here has lost."""

    token: UUID
    until: AwareDatetime


class SourceIdentity(_Stored):
    """What makes transaction ids comparable: while none of this changes, a horizon means what it meant.

    `statistics_reset` moves when PostgreSQL recovers from a crash, and a crashed PostgreSQL hands out transaction ids twice.
    """

    system_identifier: int
    timeline: int
    database_oid: int
    statistics_reset: str


class Checkpoint(_Stored):
    """What the last completed run leaves to the next.

    `started_at` is before its snapshot. `tables` maps each source table to its catalog fingerprint, `new_columns` to its
    columns that the contract does not know, each as name and type. `runs_since_comparison` counts the runs since the
    last one that compared the keys of every table; None if none ever did. `empty_tables` had no row when their keys should have
    been compared. `held_back_since` is when a transaction that is still open began to hold the horizon back: every run reads
    again what has changed since then.
    """

    run: int
    started_at: AwareDatetime
    snapshot: Snapshot
    identity: SourceIdentity
    contract: str
    tables: dict[str, str]
    runs_since_comparison: int | None = None
    new_columns: dict[str, tuple[str, ...]] = {}
    empty_tables: frozenset[str] = frozenset()
    held_back_since: AwareDatetime | None = None


class SourceState(_Stored):
    """`run` is the highest number ever taken; `checkpoint` the last completed run's, if there is one."""

    run: Annotated[int, Field(ge=0, le=RUN_MAXIMUM)] = 0
    lease: Lease | None = None
    checkpoint: Checkpoint | None = None


def _upcast(announced: Any) -> Any:
    return upcast(announced) if isinstance(announced, dict) else announced


class Manifest(_Stored):
    """Every batch of a completed run, as it was announced; `requested_by` is the id of the command that asked for the run.

    A full run read every row of every table: once it is loaded, what earlier runs announced and never loaded matters to the
    history only. `redefined` are the tables that were read in full because any of their rows may have changed without a new
    transaction id, as after a crash of the source.
    """

    source_name: str
    run: int
    requested_by: UUID
    trigger: Trigger | None = None  # None in a manifest of an earlier build
    snapshot: Snapshot
    completed_at: AwareDatetime
    is_full: bool = False
    redefined: frozenset[str] = frozenset()
    batches: tuple[Annotated[BatchIngested, BeforeValidator(_upcast)], ...]
