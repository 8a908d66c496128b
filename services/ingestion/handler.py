"""Ingestion of one command: take the lease, open a snapshot, announce what is affected, remember the position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from contracts.messages import BatchIngested, Extract, IngestSource, KeyList, Message, Trigger, encode
from contracts.state import Checkpoint
from services.ingestion.batches import grouped_lists, write_extracts, write_key_list
from services.ingestion.lease import LeaseHeldError, SourceLease, renewed, take_lease
from services.ingestion.plan import COMPARE_KEYS_EVERY
from services.ingestion.reports import report_batch, report_empty_table, report_end, report_plan
from services.ingestion.run import Run
from services.ingestion.source import BatchLimits, OpenSnapshot, Source
from shared.clock import utc_now
from shared.errors import PermanentError
from shared.outcome import Defer, Done, Outcome
from shared.queue import Queue
from shared.source_store import SourceStore

LEASE_HELD_DELAY = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a run works with."""

    source: Source
    store: SourceStore
    remodelling: Queue
    limits: BatchLimits = field(default_factory=BatchLimits)
    compare_keys_every: int = COMPARE_KEYS_EVERY  # runs; 0: keys are compared by full runs, and when asked for
    held_back_limit: timedelta = timedelta(minutes=1)  # a transaction of an application is over by then
    now: Callable[[], datetime] = utc_now
    new_token: Callable[[], UUID] = uuid4  # of a lease


async def handle(message: Message, deps: Dependencies) -> Outcome:
    """Run once. Raises: PermanentError, TransientError, DependencyDownError."""
    if not isinstance(message, IngestSource):
        raise PermanentError(
            f"ingestion handles starlift.ingest_source, not '{message.type}'; move the message to its own queue"
        )
    if message.data.source_name != deps.store.source:
        raise PermanentError(
            f"this service ingests '{deps.store.source}', not '{message.data.source_name}'; correct the command"
        )
    try:
        lease = await take_lease(deps.store, deps.now, deps.new_token)
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
    """Effects in this order, each safe to repeat: objects, messages, manifest, state.

    A crash in between repeats the work under a higher run number.
    """
    started_at, before = deps.now(), lease.state.checkpoint
    async with deps.source.open_snapshot() as snapshot:
        plan = snapshot.plan(before, command.data, deps.compare_keys_every)
        run = Run(lease.run, command, started_at, before, snapshot.facts, plan, deps.store.keys)
        report_plan(run, deps.held_back_limit)
        batches = await _ingest_batches(run, snapshot, deps)
    if run.leaves_manifest(batches):
        await deps.store.write_manifest(run.manifest(batches, deps.now()))
    await lease.complete(run.checkpoint(batches))
    if run.leaves_manifest(batches):
        report_end(run, batches, deps.now() - started_at)


async def _ingest_batches(run: Run, snapshot: OpenSnapshot, deps: Dependencies) -> list[BatchIngested]:
    """Write and announce every batch; return what was announced.

    A batch is announced when the next one begins: only then is it known not to be the last, which carries the key lists. Lists
    that do not fit into its message follow in batches of their own.
    """
    sent: list[BatchIngested] = []
    waiting: tuple[Extract, ...] | None = None
    async for extracts in write_extracts(run, snapshot, deps.store, deps.limits):
        if waiting is not None:
            sent.append(await _announce(run.batch_ingested(len(sent), waiting), deps))
        waiting = extracts
    lists = await _write_key_lists(run, snapshot, len(sent), deps)
    if waiting is not None or lists:
        groups = list(grouped_lists(run.plan.contract, lists, deps.limits.objects, waiting or ()))
        for number, key_lists in enumerate(groups, start=1):
            event = run.batch_ingested(len(sent), waiting or (), key_lists, is_last=number == len(groups))
            sent.append(await _announce(event, deps))
            waiting = None
    return sent


async def _write_key_lists(run: Run, snapshot: OpenSnapshot, index: int, deps: Dependencies) -> list[KeyList]:
    """Write the key list of each table that is compared, as part of batch `index`.

    A table without rows gets none, unless the command believes that it is really empty: a list without keys says that every
    row was deleted.
    """
    lists = []
    for table in run.plan.compared_tables:
        object_keys = run.object_keys.batch(run.number, index)
        listed = await write_key_list(table, snapshot, object_keys, deps.store, deps.limits.key_list_bytes)
        if listed.objects or run.command.data.believe_empty:
            lists.append(listed)
        else:
            report_empty_table(run, table.name)
    return lists


async def _announce(event: BatchIngested, deps: Dependencies) -> BatchIngested:
    await deps.remodelling.send(encode(event))
    report_batch(event)
    return event
