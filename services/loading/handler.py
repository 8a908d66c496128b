"""One batch: unless the ledger has it, read its star rows and load them in one step with the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.key_hashes import KeyHashes, RejectedKeys
from contracts.messages import (
    BatchLoaded,
    BatchLoadedData,
    BatchRemodelled,
    LoadedTable,
    LookUpKeys,
    LookUpKeysData,
    Message,
    RowsOf,
    StarRows,
    encode,
)
from contracts.tables import ContractError
from services.loading.warehouse import EARLIER_RUN_PATIENCE, Ask, Batch, Question, Warehouse
from shared.envelope import caused_by, opening
from shared.errors import DependencyDownError, PermanentError, ServerBusyError, TransientError
from shared.key_hashes import unpacked
from shared.object_store import ObjectMissingError, ObjectStore
from shared.outcome import Defer, Done, Outcome
from shared.parquet import NewerColumnsError
from shared.queue import Queue
from shared.source_keys import Key
from shared.stored_rows import NEWER_COLUMNS_DELAY, StoredRows, read_rows

EVENT_SOURCE = "starlift/loading"

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What loading works with."""

    objects: ObjectStore
    warehouse: Warehouse
    contract: Contract
    ingestion: Queue  # answers the questions about keys
    ingestion_of: Mapping[str, Queue] = field(default_factory=dict)  # by source, if there are several


async def handle(message: Message, deps: Dependencies) -> Outcome:
    """Load one batch. Raises: PermanentError, TransientError, DependencyDownError."""
    if not isinstance(message, BatchRemodelled):
        raise PermanentError(
            f"loading handles starlift.batch_remodelled, not '{message.type}'; move the message to its own queue"
        )
    try:
        deps.contract.part(message.data.source_name)
    except ContractError as error:
        raise PermanentError(f"{error}; deploy the contract that names it, then replay the dead letters") from error
    event, ask = _batch_loaded(message), partial(_ask, deps, message)
    try:
        # A duplicate costs one query, even when its objects have expired. The load asks again inside its transaction.
        gone = None if await deps.warehouse.has(event.data.batch_id) else await _load(message, event, ask, deps)
    except NewerColumnsError as newer:
        return Defer(NEWER_COLUMNS_DELAY, str(newer))
    _log.info(
        "batch_already_loaded" if gone is None else "batch_loaded",
        run=event.data.run,
        batch_id=str(event.data.batch_id),
        rows=sum(table.row_count for table in event.data.tables),
        gone=gone or 0,
        quarantined=event.data.quarantined,
    )
    await deps.warehouse.finish_run(event.data.source_name, event.data.run)
    # The batch is loaded: what fails from here on must neither retry its message nor make it a dead letter.
    try:
        await _compare_keys(deps, ask)
    except (TransientError, PermanentError, ServerBusyError) as error:
        _log.warning("key_comparison_waits", reason=str(error))
    return Done()


async def keep_comparing_keys(deps: Dependencies) -> None:
    """Compare keys at intervals until cancelled: an idle source sends no batch that would trigger a comparison.

    A comparison may be left over because it waits for an earlier run, until that run's last batch is EARLIER_RUN_PATIENCE old,
    or because an attempt failed. If none is, an interval costs one query.
    """
    while True:
        await asyncio.sleep(EARLIER_RUN_PATIENCE.total_seconds())
        try:
            await _compare_keys(deps, partial(_ask, deps, None))
        except (TransientError, PermanentError, DependencyDownError) as error:
            _log.warning("key_comparison_waits", reason=str(error))


async def _compare_keys(deps: Dependencies, ask: Ask) -> None:
    if asked := await deps.warehouse.compare_keys(ask):
        _log.info("keys_asked_about", keys=asked)


async def _ask(deps: Dependencies, cause: BatchRemodelled | None, question: Question) -> None:
    """Send a question to ingestion. The star's key is the source's, column by column (contracts/checks.py)."""
    rows = RowsOf(table=question.table.source, keys=question.keys)
    data = LookUpKeysData(source_name=question.source_name, rows=(rows,), believe_empty=question.believe_empty)
    if cause is None:
        envelope = opening(EVENT_SOURCE)
    else:
        envelope = caused_by(cause, EVENT_SOURCE, subject=question.id, name="look_up_keys")
    queue = deps.ingestion_of.get(question.source_name, deps.ingestion)
    await queue.send(encode(LookUpKeys(**{**envelope, "id": question.id}, data=data)))


async def _load(message: BatchRemodelled, event: BatchLoaded, ask: Ask, deps: Dependencies) -> int | None:
    """How many rows were marked as gone; None if another loader was first."""
    stored = [StoredRows(one.table, one.object, _types(one, deps)) for one in message.data.tables]
    frames = await read_rows(deps.objects, stored, deps.contract, "star rows")
    rows = {table.table: frame for table, frame in zip(message.data.tables, frames, strict=True)}
    hashes, rejected = await _read_hashes(message, deps), await _read_rejected(message, deps)
    whole_runs = {table.table: table.whole_run for table in message.data.tables if table.whole_run is not None}
    batch = Batch(event, rows, hashes, message.data.gone, message.data.answers, rejected, whole_runs)
    return await deps.warehouse.load(batch, ask)


async def _read_rejected(message: BatchRemodelled, deps: Dependencies) -> Mapping[str, tuple[Key, ...]]:
    """The rows that filters leave out, by warehouse table."""
    if message.data.rejected is None:
        return {}
    body = await deps.objects.get(message.data.rejected)
    return (await asyncio.to_thread(unpacked, RejectedKeys, body)).tables


async def _read_hashes(message: BatchRemodelled, deps: Dependencies) -> KeyHashes | None:
    """The hashes of keys that the batch names.

    Hashes that have expired, as those of a batch that was a dead letter for months, cost their comparison and not the batch.
    """
    if message.data.hashes is None:
        return None
    try:
        body = await deps.objects.get(message.data.hashes)
    except ObjectMissingError as error:
        _log.warning("keys_not_compared", run=message.data.run, reason=str(error))
        return None
    return await asyncio.to_thread(unpacked, KeyHashes, body)


def _types(rows: StarRows, deps: Dependencies) -> Mapping[str, ColumnType]:
    try:
        return deps.contract.warehouse_table(rows.table).star_types
    except ContractError as error:
        advice = "deploy the contract that it was written with, then replay the dead letters"
        raise PermanentError(f"star rows '{rows.object.key}' can't be loaded: {error}; {advice}") from error


def _batch_loaded(message: BatchRemodelled) -> BatchLoaded:
    """What the ledger records once the batch is loaded."""
    data = BatchLoadedData(
        **message.data.head(),
        tables=tuple(LoadedTable(table=rows.table, row_count=rows.object.row_count) for rows in message.data.tables),
        quarantined=message.data.quarantine.row_count if message.data.quarantine else 0,
        landed=message.data.landed,
    )
    return BatchLoaded(**caused_by(message, EVENT_SOURCE, subject=data.batch_id, name="batch_loaded"), data=data)
