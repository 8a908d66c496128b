"""Ingestion of one command: take the lease, open a snapshot, announce what is affected, remember the position."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, count
from uuid import UUID, uuid4

import structlog

from contracts.doorbells import ANY_SOURCE
from contracts.messages import BatchIngested, ExtractChunk, IngestSource, IngestSourceData, LookUpKeys, Message, Trigger, encode
from contracts.objects import ObjectRef
from contracts.state import Checkpoint, Chunk
from services.ingestion.batches import Content, missing_rows, with_rows_in_question, write_extracts, write_key_hashes
from services.ingestion.chunks import Chunks, announce_chunk, extract, large_tables
from services.ingestion.lease import LeaseHeldError, SourceLease, renewed, take_lease
from services.ingestion.plan import COMPARE_KEYS_EVERY
from services.ingestion.reports import report_batch, report_end, report_plan
from services.ingestion.resume import resumed
from services.ingestion.retention import tag_superseded
from services.ingestion.run import Run
from services.ingestion.source import BatchLimits, OpenSnapshot, SnapshotLostError, Source
from shared.clock import utc_now
from shared.errors import PermanentError, decisive
from shared.outcome import Defer, Done, Outcome
from shared.queue import Queue
from shared.source_store import SourceStore

LEASE_HELD_DELAY = timedelta(seconds=5)
OTHER_CONTRACT_DELAY = timedelta(seconds=15)

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a run works with."""

    source: Source
    store: SourceStore
    remodelling: Queue
    limits: BatchLimits = field(default_factory=BatchLimits)
    compare_keys_every: int = COMPARE_KEYS_EVERY  # runs; 0: keys are compared by full runs, and when asked for
    chunks: Queue | None = None  # of the commands to extract a part of a large table; None: a run reads every row itself
    held_back_limit: timedelta = timedelta(minutes=1)  # a transaction of an application is over by then
    now: Callable[[], datetime] = utc_now
    new_token: Callable[[], UUID] = uuid4  # of a lease


async def handle(message: Message, deps: Dependencies) -> Outcome:
    """Run once, or as long as deliveries may wait: each has a run of its own.

    Raises: PermanentError, TransientError, DependencyDownError.
    """
    if not isinstance(message, IngestSource | LookUpKeys):
        raise PermanentError(
            f"ingestion handles starlift.ingest_source and starlift.look_up_keys, not '{message.type}'; move the message to "
            "its own queue"
        )
    if message.data.source_name not in (deps.store.source, ANY_SOURCE):
        raise PermanentError(
            f"this service ingests '{deps.store.source}', not '{message.data.source_name}'; correct the command"
        )
    command: IngestSource | LookUpKeys | None = message
    while command is not None:
        try:
            lease = await take_lease(deps.store, deps.now, deps.new_token)
        except LeaseHeldError as held:
            return Defer(LEASE_HELD_DELAY, str(held))
        async with renewed(lease):
            if isinstance(command, IngestSource) and _is_answered(command, lease.state.checkpoint):
                break
            command = await _run(command, lease, deps)
    return Done()


async def handle_chunk(message: Message, deps: Dependencies) -> Outcome:
    """Extract a chunk in the snapshot of its run, unless it is recorded, and announce it.

    The run itself extracts what fails here, and reports why if it fails again.

    Raises: TransientError, DependencyDownError, PermanentError.
    """
    if not isinstance(message, ExtractChunk):
        raise PermanentError(f"this queue carries starlift.extract_chunk, not '{message.type}'; move the message to its queue")
    if message.data.source_name != deps.store.source:
        raise PermanentError(
            f"this service ingests '{deps.store.source}', not '{message.data.source_name}'; correct the command"
        )
    try:
        chunk = await deps.store.find_chunk(message.data.run, message.data.index) or await _extract(message, deps)
    except (SnapshotLostError, PermanentError) as error:
        _log.warning("chunk_dropped", index=message.data.index, reason=str(error))
        return Done()
    if chunk is None:
        return Defer(OTHER_CONTRACT_DELAY, "the run uses a different contract from this task: a deployment is under way")
    await announce_chunk(chunk, deps.remodelling)
    return Done()


async def _extract(command: ExtractChunk, deps: Dependencies) -> Chunk | None:
    """Extract a chunk in the snapshot of its run; None if the run uses a different contract. Raises: SnapshotLostError."""
    data = command.data
    request = IngestSourceData(source_name=data.source_name, trigger=Trigger.OPERATOR)
    async with deps.source.join_snapshot(data.exported) as snapshot:
        if (snapshot.facts.next_xid, snapshot.facts.snapshot.horizon) != (data.next_xid, data.snapshot.horizon):
            raise SnapshotLostError(f"snapshot {data.exported} now belongs to another run")
        plan = snapshot.plan(None, request, 0)
        same = plan.contract.fingerprint == data.contract
        return await extract(command, snapshot, plan, deps.store, deps.limits) if same else None


def _is_answered(command: IngestSource, checkpoint: Checkpoint | None) -> bool:
    """Whether a run that began after a scheduled request has ended already: requests pile up behind a long run."""
    if checkpoint is None or checkpoint.may_wait:
        return False
    return command.data.trigger is Trigger.SCHEDULE and command.time < checkpoint.started_at


async def _run(command: IngestSource | LookUpKeys, lease: SourceLease, deps: Dependencies) -> IngestSource | None:
    """Run, and return what is left of the command: to take what else may wait.

    Effects in this order, each safe to repeat: objects, messages, manifest, state, what became of a delivery. A crash in
    between repeats the work under a higher run number.
    """
    started_at, before = deps.now(), lease.state.checkpoint
    async with deps.source.open_snapshot(command.data) as snapshot:
        plan = snapshot.plan(before, command.data, deps.compare_keys_every)
        if found := await resumed(plan, lease.state, snapshot, command.data, deps.store):
            plan = found.plan
        if deps.chunks is not None:
            plan = replace(plan, shared=large_tables(plan, snapshot.facts, deps.limits))
        plan = await with_rows_in_question(plan, snapshot)
        run = Run(lease.run, command, started_at, before, snapshot.facts, plan, deps.store.keys)
        report_plan(run, deps.held_back_limit)
        if before is None and plan.shared:
            await lease.begin_load(run.unfinished(found.load if found else None))
        batches, compared = await _ingest_batches(run, snapshot, deps)
    for manifest in found.manifests(deps.now()) if found else ():
        await deps.store.write_manifest(manifest)
    if run.leaves_manifest(batches):
        await deps.store.write_manifest(run.manifest(batches, deps.now()))
    if before is not None:
        await tag_superseded(deps.store, before.datasets)
    await lease.complete(run.checkpoint(compared))
    await snapshot.completed(plan)
    if run.leaves_manifest(batches):
        report_end(run, batches, compared, deps.now() - started_at)
    return run.rest_of_command


async def _ingest_batches(run: Run, snapshot: OpenSnapshot, deps: Dependencies) -> tuple[list[BatchIngested], frozenset[str]]:
    """Write and announce every batch; return what was announced, and the tables whose keys are compared.

    A batch is announced as soon as its objects are there and rows of the next one have been read: it is known not to be the
    last then. Rows that are gone have batches of their own: loading takes the star's lock alone for them.
    """
    sent, shared, indexes = list[asyncio.Task[BatchIngested]](), list[BatchIngested](), count()
    try:
        async with asyncio.TaskGroup() as group:

            async def announce(content: Content, *, hashes: ObjectRef | None = None, is_last: bool = False) -> None:
                if sent:
                    await sent[-1]  # so that the rows of two batches are held at most
                sent.append(group.create_task(_announce(run, content, hashes, deps, is_last=is_last)))

            chunks = await _share(run, snapshot, deps, indexes)
            last = await write_extracts(run, snapshot, deps.store, deps.limits, group, indexes, announce)
            rest = [last] if last else []
            if chunks is not None:
                for content in rest:
                    await announce(content)
                shared, rest = await chunks.finish(), [Content(next(indexes))]
            if run.plan.is_answer:
                gone = [rows async for rows in missing_rows(run, snapshot, deps.limits)]
                rest += [Content(next(indexes), gone=(rows,)) for rows in gone[:-1]]
                rest.append(Content(next(indexes), gone=tuple(gone[-1:]), is_answer=True))
            for content in rest[:-1]:
                await announce(content)
            final = rest[-1] if rest else Content(next(indexes))
            compared = await write_key_hashes(run, snapshot, final.index, deps.store)
            if rest or compared is not None:
                await announce(final, hashes=compared.hashes if compared else None, is_last=True)
    except ExceptionGroup as errors:
        raise decisive(errors) from errors
    batches = sorted([*shared, *(task.result() for task in sent)], key=lambda batch: batch.data.index)
    return batches, compared.tables if compared is not None else frozenset()


async def _share(run: Run, snapshot: OpenSnapshot, deps: Dependencies, indexes: Iterator[int]) -> Chunks | None:
    """Send the chunks of the large tables, if there are any."""
    if deps.chunks is None or not run.plan.shared:
        return None
    exported = await snapshot.export()
    chunks = Chunks(run, snapshot, deps.store, deps.limits, deps.chunks, deps.remodelling, indexes, exported)
    await chunks.send()
    return chunks


async def _announce(
    run: Run, content: Content, hashes: ObjectRef | None, deps: Dependencies, *, is_last: bool
) -> BatchIngested:
    extracts = tuple(chain.from_iterable(await asyncio.gather(*content.writes)))
    event = run.batch_ingested(content.index, extracts, hashes, content.gone, is_answer=content.is_answer, is_last=is_last)
    await deps.remodelling.send(encode(event))
    report_batch(event)
    return event
