"""One run: take the lease, open the snapshot, read what is affected, announce it, remember the horizon.

Effects in this order, each safe to repeat: objects, messages, manifest, state. A crash in between repeats the work under a
higher run number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from contracts.contract import Contract
from contracts.messages import (
    BatchIngested,
    BatchIngestedData,
    Extract,
    IngestSource,
    KeyList,
    Message,
    Role,
    Snapshot,
    Trigger,
    encode,
)
from contracts.state import Checkpoint, Manifest
from services.ingestion.extraction import BATCH_BYTES, BATCH_OBJECTS, BATCH_ROWS, Destination, Reader, read_batches
from services.ingestion.keys import grouped_lists, write_key_lists
from services.ingestion.lease import LeaseHeldError, SourceLease, renewed, take_lease
from services.ingestion.plan import COMPARE_KEYS_EVERY, Plan, held_back_since, plan_run
from services.ingestion.source import open_snapshot
from shared.clock import utc_now
from shared.envelope import caused_by
from shared.errors import PermanentError
from shared.outcome import Defer, Done, Outcome
from shared.postgres import Database
from shared.queue import Queue
from shared.source_snapshot import SourceSnapshot
from shared.source_store import SourceStore

LEASE_HELD_DELAY = timedelta(seconds=5)
HELD_BACK_LIMIT = timedelta(minutes=1)  # a transaction of an application is over by then
SERVICE = "starlift/ingestion"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a run works with. A load is cut at `batch_rows`, `batch_bytes` and `batch_objects`."""

    source: Database
    store: SourceStore
    remodelling: Queue
    contract: Contract
    batch_rows: int = BATCH_ROWS
    batch_bytes: int = BATCH_BYTES
    batch_objects: int = BATCH_OBJECTS
    compare_keys_every: int = COMPARE_KEYS_EVERY
    now: Callable[[], datetime] = utc_now


async def handle(message: Message, deps: Dependencies) -> Outcome:
    """Run once. Raises: PermanentError, TransientError, DependencyDownError."""
    if not isinstance(message, IngestSource):
        raise PermanentError(f"ingestion obeys starlift.ingest_source, not '{message.type}'; move the message to its own queue")
    if message.data.source_name != deps.store.source:
        raise PermanentError(
            f"this service ingests '{deps.store.source}', not '{message.data.source_name}'; correct the command"
        )
    try:
        lease = await take_lease(deps.store, deps.now)
    except LeaseHeldError as held:
        return Defer(LEASE_HELD_DELAY, str(held))
    async with renewed(lease):
        if not _is_answered(message, lease.state.checkpoint):
            await _run(message, lease, deps)
    return Done()


def _is_answered(command: IngestSource, checkpoint: Checkpoint | None) -> bool:
    """Whether a run that began after a scheduled request has ended already: requests pile up behind a long run."""
    return command.data.trigger is Trigger.SCHEDULE and checkpoint is not None and command.time < checkpoint.started_at


async def _run(command: IngestSource, lease: SourceLease, deps: Dependencies) -> None:
    started_at = deps.now()
    async with open_snapshot(deps.source, deps.contract) as (connection, now):
        plan = plan_run(deps.contract, now, lease.state.checkpoint, command.data, deps.compare_keys_every)
        if plan.reasons:
            log.info("full_read", run=lease.run, reasons=plan.reasons, tables=sorted(plan.selection.full_tables))
        _report_catalog(lease, plan, now)
        reader = Reader(connection, plan.selection, now.tables, deps.batch_rows, deps.batch_bytes, deps.batch_objects)
        known_empty = lease.state.checkpoint.empty_tables if lease.state.checkpoint else frozenset()
        announcer = Announcer(command, lease.run, now.snapshot, deps)
        batches = await _announce_batches(announcer, reader, plan, known_empty)
    # An empty run that nobody asked for leaves no trace but its horizon.
    if batches or command.data.trigger is Trigger.OPERATOR:
        await _write_manifest(command, lease, now, plan, batches, deps)
    await lease.complete(
        Checkpoint(
            run=lease.run,
            started_at=started_at,
            snapshot=now.snapshot,
            identity=now.identity,
            contract=deps.contract.fingerprint,
            tables={name: facts.fingerprint for name, facts in now.tables.items()},
            runs_since_comparison=plan.runs_since_comparison,
            new_columns={name: facts.described_columns for name, facts in now.tables.items() if facts.new_columns},
            empty_tables=_empty_tables(plan, batches, known_empty),
            held_back_since=_report_held_back(lease.run, now, lease.state.checkpoint),
        )
    )
    if batches or command.data.trigger is Trigger.OPERATOR:
        _log_completed(lease.run, batches, deps.now() - started_at)


def _empty_tables(plan: Plan, batches: Sequence[BatchIngested], known_empty: frozenset[str]) -> frozenset[str]:
    """The tables whose keys should have been compared, and were not; of those that were not due, what is known."""
    due = {table.name for table in plan.compared_tables}
    listed = {keys.table for batch in batches for keys in batch.data.keys}
    return (known_empty - due) | (due - listed)


def _report_catalog(lease: SourceLease, plan: Plan, now: SourceSnapshot) -> None:
    """Log the columns that the contract does not know and the tables without row versions, each time that they change."""
    before = lease.state.checkpoint
    for name, facts in sorted(now.tables.items()):
        if facts.new_columns and (before is None or facts.described_columns != before.new_columns.get(name)):
            carried = plan.selection.carried.get(name, ())
            log.warning("new_columns", run=lease.run, table=name, columns=facts.described_columns, carried=carried)
        if not facts.has_row_versions and (before is None or facts.fingerprint != before.tables.get(name)):
            advice = f"GRANT SELECT (xmin) ON {name} to the role that Starlift uses"
            log.warning("row_versions_unreadable", run=lease.run, table=name, advice=advice)


def _report_held_back(run: int, now: SourceSnapshot, before: Checkpoint | None) -> datetime | None:
    """Since when the horizon is held back; said once, by the run that finds it too long."""
    since = held_back_since(now, before)
    if since is not None and before is not None and before.snapshot.taken_at - since <= HELD_BACK_LIMIT:
        seconds = (now.snapshot.taken_at - since).total_seconds()
        if seconds > HELD_BACK_LIMIT.total_seconds():
            behind = now.next_xid - now.snapshot.horizon
            log.warning("horizon_held_back", run=run, seconds=round(seconds), transactions=behind)
    return since


async def _write_manifest(
    command: IngestSource,
    lease: SourceLease,
    now: SourceSnapshot,
    plan: Plan,
    batches: Sequence[BatchIngested],
    deps: Dependencies,
) -> None:
    manifest = Manifest(
        source_name=deps.store.source,
        run=lease.run,
        requested_by=command.id,
        trigger=command.data.trigger,
        snapshot=now.snapshot,
        completed_at=deps.now(),
        is_full=plan.selection.is_full,
        redefined=plan.redefined,
        batches=tuple(batches),
    )
    await deps.store.write_manifest(manifest)


def _log_completed(run: int, batches: Sequence[BatchIngested], took: timedelta) -> None:
    rows = sum(extract.object.row_count for batch in batches for extract in batch.data.extracts if extract.role is Role.BASE)
    compared = [keys.table for batch in batches for keys in batch.data.keys]
    log.info(
        "run_completed", run=run, batches=len(batches), rows=rows, compared=compared, seconds=round(took.total_seconds(), 3)
    )


async def _announce_batches(
    announcer: Announcer, reader: Reader, plan: Plan, known_empty: frozenset[str]
) -> list[BatchIngested]:
    """Send each batch when the next one begins: only then is it known not to be the last, which carries the key lists.

    Key lists that do not fit into its message follow in batches of their own.
    """
    deps = announcer.deps
    destination = Destination(deps.store, announcer.run)
    sent: list[BatchIngested] = []
    waiting: tuple[Extract, ...] | None = None
    async for extracts in read_batches(reader, destination):
        if waiting is not None:
            sent.append(await announcer.announce(len(sent), waiting))
        waiting = extracts
    lists = await write_key_lists(
        reader.connection,
        plan.selection,
        plan.compared_tables,
        destination,
        index=len(sent),
        believe_empty=announcer.command.data.believe_empty,
        known_empty=known_empty,
    )
    if waiting is not None or lists:
        groups = list(grouped_lists(deps.contract, lists, reader.batch_objects, waiting or ()))
        for number, keys in enumerate(groups, start=1):
            sent.append(await announcer.announce(len(sent), waiting or (), keys, is_last=number == len(groups)))
            waiting = None
    return sent


@dataclass(frozen=True, slots=True)
class Announcer:
    """Tells remodelling of the batches of one run."""

    command: IngestSource
    run: int
    snapshot: Snapshot
    deps: Dependencies

    async def announce(
        self, index: int, extracts: tuple[Extract, ...], keys: tuple[KeyList, ...] = (), *, is_last: bool = False
    ) -> BatchIngested:
        """Send what was written as the batch `index`."""
        batch = self.deps.store.keys.batch(self.run, index).batch_id
        data = BatchIngestedData(
            source_name=self.deps.store.source,
            run=self.run,
            batch_id=batch,
            index=index,
            is_last=is_last,
            snapshot=self.snapshot,
            extracts=extracts,
            keys=keys,
        )
        event = BatchIngested(**caused_by(self.command, SERVICE, subject=batch, name="batch_ingested"), data=data)
        await self.deps.remodelling.send(encode(event))
        rows = sum(extract.object.row_count for extract in extracts)
        log.info("batch_ingested", run=self.run, batch_id=str(batch), rows=rows)
        return event
