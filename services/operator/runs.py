"""The last runs of a source: what they read, how long each hop took, and what became of them.

A run that found nothing to read leaves no manifest, only a newer checkpoint: of such runs just the last one is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum, unique
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from contracts.messages import Role, Trigger
from contracts.state import Manifest, SourceState
from services.operator.progress import DeadMessage, DeadMessages
from services.operator.system import System
from shared.ledger import LoadedEvent, loaded_events
from shared.reading import all_of
from shared.source_store import SourceStore

LETTERS_READ = 1_000  # of each queue: naming a dead letter is not worth receiving a million
# A run's number is about the time of its start in milliseconds, so the last runs are found without listing 90 days of them.
_LOOK_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=14))


@unique
class RunOutcome(StrEnum):
    """What became of a run."""

    LOADED = "loaded"  # every batch is in the warehouse
    MISSING = "missing"  # some batches are not: they are on their way, dead letters, or lost
    SUPERSEDED = "superseded"  # some batches were never loaded, and a later full run, which is, makes them needless
    UNCHANGED = "unchanged"  # there was nothing to read
    RUNNING = "running"  # it has the lease of the source
    VOID = "void"  # it ended early: the next run reads again what it was to read


class RunSummary(BaseModel, frozen=True):
    """One run. Of a run without a manifest only number, time and outcome are known."""

    run: int
    outcome: RunOutcome
    taken_at: AwareDatetime | None = None  # when its snapshot was taken, by the source's clock
    completed_at: AwareDatetime | None = None  # when its last batch had been announced, by ingestion's clock
    trigger: Trigger | None = None  # who asked for it; None if loading did, and for a run of an earlier build
    is_answer: bool = False  # whether it also looked up rows that may be gone, which loading had asked about
    asked_by: UUID | None = None  # the id of the command that asked for it
    full: bool | None = None  # whether it read every row
    rows_read: int | None = None  # changed rows of the source, without the partners that they are joined with
    rows_loaded: int | None = None  # rows of the star that its loaded batches brought
    rows_quarantined: int | None = None  # rows that its loaded batches could not bring
    batches: int | None = None
    batches_loaded: int | None = None
    dead_letters: tuple[str, ...] = ()  # SQS's ids of the dead letters that hold missing batches
    # The seconds of each hop, None while it is not over. Every service uses its own clock.
    seconds_ingesting: float | None = None  # from the snapshot until the last batch was announced
    seconds_remodelling: float | None = None  # until the load of the last batch began: with the time in both queues
    seconds_loading: float | None = None  # until the last batch was committed


class Runs(BaseModel, frozen=True):
    """The last runs of a source, the newest first."""

    source: str
    runs: tuple[RunSummary, ...]


async def last_runs(system: System, limit: int) -> Runs:
    """The last `limit` runs.

    Raises: DependencyDownError, TransientError, PermanentError.
    """
    store = system.store
    state, _ = await store.read_state()  # first: a run writes its manifest before it changes the state
    manifests = await all_of((await _last_numbers(store, state.run, limit))[-limit:], store.read_manifest)
    announced = [batch.data.batch_id for manifest in manifests for batch in manifest.batches]
    async with system.warehouse.transaction(readonly=True) as warehouse:
        loaded = await loaded_events(warehouse, system.contract, announced)
    missing = [batch for batch in announced if batch not in loaded]
    dead = await DeadMessages(system, LETTERS_READ).find(missing) if missing else {}
    runs: list[RunSummary] = []
    is_superseded = False  # by a full run among those that came later
    for manifest in reversed(manifests):
        run = run_of(manifest, loaded, dead, is_superseded=is_superseded)
        is_superseded |= manifest.is_full and run.outcome is RunOutcome.LOADED
        runs.append(run)
    if state.run > (manifests[-1].run if manifests else 0):
        runs.insert(0, run_without_manifest(state, system.clock()))
    return Runs(source=store.source, runs=tuple(runs[:limit]))


async def _last_numbers(store: SourceStore, last: int, limit: int) -> list[int]:
    for span in _LOOK_BACK:
        found = await store.manifest_runs(after=max(0, last - int(span / timedelta(milliseconds=1))))
        if len(found) >= limit:
            return found
    return await store.manifest_runs(after=0)


def run_of(
    manifest: Manifest, loaded: Mapping[UUID, LoadedEvent], dead: Mapping[UUID, DeadMessage], *, is_superseded: bool = False
) -> RunSummary:
    """A completed run, by its manifest, the ledger and the dead letters."""
    ids = [batch.data.batch_id for batch in manifest.batches]
    events = [loaded[one] for one in ids if one in loaded]
    is_loaded = len(events) == len(ids)
    announced_at = max((batch.time for batch in manifest.batches), default=manifest.completed_at)
    began_at = max(one.event.time for one in events) if is_loaded and events else None
    extracts = [extract for batch in manifest.batches for extract in batch.data.extracts]
    return RunSummary(
        run=manifest.run,
        outcome=RunOutcome.LOADED if is_loaded else RunOutcome.SUPERSEDED if is_superseded else RunOutcome.MISSING,
        taken_at=manifest.snapshot.taken_at,
        completed_at=manifest.completed_at,
        trigger=manifest.trigger,
        asked_by=manifest.requested_by,
        is_answer=any(batch.data.answers for batch in manifest.batches),
        full=manifest.is_full,
        rows_read=sum(extract.object.row_count for extract in extracts if extract.role is Role.BASE),
        rows_loaded=sum(table.row_count for one in events for table in one.event.data.tables),
        rows_quarantined=sum(one.event.data.quarantined for one in events),
        batches=len(ids),
        batches_loaded=len(events),
        dead_letters=tuple(dead[one].letter for one in ids if one in dead),
        seconds_ingesting=_seconds(manifest.snapshot.taken_at, announced_at),
        seconds_remodelling=_seconds(announced_at, began_at),
        seconds_loading=_seconds(began_at, max(one.committed_at for one in events) if began_at else None),
    )


def run_without_manifest(state: SourceState, now: datetime) -> RunSummary:
    """The run that took the last number and left no manifest, at least not yet."""
    if state.checkpoint is not None and state.checkpoint.run == state.run:
        return RunSummary(run=state.run, outcome=RunOutcome.UNCHANGED, taken_at=state.checkpoint.snapshot.taken_at)
    is_running = state.lease is not None and state.lease.until > now
    return RunSummary(run=state.run, outcome=RunOutcome.RUNNING if is_running else RunOutcome.VOID)


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else round((end - begin).total_seconds(), 3)
