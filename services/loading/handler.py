"""One batch: unless the ledger has it, read its star rows and load them in one step with the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import pandas as pd
import structlog

from contracts.contract import Contract
from contracts.key_hashes import KeyHashes
from contracts.messages import (
    BatchLoaded,
    BatchLoadedData,
    BatchRemodelled,
    BatchRemodelledData,
    LoadedTable,
    LookUpKeys,
    LookUpKeysData,
    Message,
    RowsOf,
    StarRows,
    encode,
)
from contracts.tables import ContractError
from services.loading.questions import Question
from services.loading.warehouse import Batch, Warehouse
from shared.envelope import caused_by
from shared.errors import PermanentError, ServerBusyError, TransientError
from shared.key_hashes import unpacked
from shared.object_store import ObjectStore
from shared.outcome import Defer, Done, Outcome
from shared.parquet import NewerColumnsError
from shared.queue import Queue
from shared.stored_rows import NEWER_COLUMNS_DELAY, read_rows

EVENT_SOURCE = "starlift/loading"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What loading works with."""

    objects: ObjectStore
    warehouse: Warehouse
    contract: Contract
    ingestion: Queue  # for questions


async def handle(message: Message, deps: Dependencies) -> Outcome:
    """Load one batch. Raises: PermanentError, TransientError, DependencyDownError."""
    if not isinstance(message, BatchRemodelled):
        raise PermanentError(
            f"loading handles starlift.batch_remodelled, not '{message.type}'; move the message to its own queue"
        )
    event = _batch_loaded(message)
    try:
        # A duplicate costs one query, even when its objects have expired. The load asks again inside its transaction.
        gone = None if await deps.warehouse.has(event.data.batch_id) else await _load(message, event, deps)
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
    await _finish(event, deps)
    return Done()


async def _finish(event: BatchLoaded, deps: Dependencies) -> None:
    """Do what waited for this batch. The batch is in: what fails here is no reason to retry its message, or to give it up."""
    try:
        await deps.warehouse.finish_run(event.data.source_name, event.data.run)
    except (TransientError, PermanentError, ServerBusyError) as error:
        _log.warning("foreign_keys_wait", reason=str(error))
    try:
        await deps.warehouse.compare_keys(partial(_ask, deps, event))
    except (TransientError, PermanentError, ServerBusyError) as error:
        _log.warning("key_comparison_waits", reason=str(error))


async def _load(message: BatchRemodelled, event: BatchLoaded, deps: Dependencies) -> int | None:
    """How many rows were found gone; None if another loader was first."""
    data = message.data
    frames = await asyncio.gather(*(_read_star_rows(rows, deps) for rows in data.tables))
    rows = {table.table: frame for table, frame in zip(data.tables, frames, strict=True)}
    batch = Batch(event, rows, await _read_hashes(data, deps), data.gone, data.answers)
    return await deps.warehouse.load(batch, partial(_ask, deps, event))


async def _read_hashes(data: BatchRemodelledData, deps: Dependencies) -> KeyHashes | None:
    """The hashes that a batch brings. Without their object, or with one that can't be read, the next comparison has to do."""
    if data.hashes is None:
        return None
    try:
        return unpacked(KeyHashes, await deps.objects.get(data.hashes))
    except PermanentError as error:
        _log.warning("keys_not_compared", run=data.run, reason=str(error))
        return None


async def _ask(deps: Dependencies, cause: BatchLoaded, question: Question) -> None:
    """Send a question to ingestion. By the rules of a contract the key of a star table is that of its source table."""
    rows = (RowsOf(table=question.table.source, keys=question.keys),)
    data = LookUpKeysData(source_name=cause.data.source_name, rows=rows, believe_empty=question.believe_empty)
    envelope = caused_by(cause, EVENT_SOURCE, subject=question.id, name="look_up_keys") | {"id": question.id}
    await deps.ingestion.send(encode(LookUpKeys(**envelope, data=data)))


async def _read_star_rows(rows: StarRows, deps: Dependencies) -> pd.DataFrame:
    """The star rows of one table. Raises: NewerColumnsError, PermanentError, TransientError, DependencyDownError."""
    try:
        types = deps.contract.warehouse_table(rows.table).star_types
    except ContractError as error:
        advice = "deploy the contract that it was written with, then replay the dead letters"
        raise PermanentError(f"star rows '{rows.object.key}' can't be loaded: {error}; {advice}") from error
    return await read_rows(deps.objects, rows.object, types, deps.contract, "star rows")


def _batch_loaded(message: BatchRemodelled) -> BatchLoaded:
    """What the ledger records once the batch is loaded."""
    data = BatchLoadedData(
        **message.data.head(),
        tables=tuple(LoadedTable(table=rows.table, row_count=rows.object.row_count) for rows in message.data.tables),
        quarantined=message.data.quarantine.row_count if message.data.quarantine else 0,
    )
    return BatchLoaded(**caused_by(message, EVENT_SOURCE, subject=data.batch_id, name="batch_loaded"), data=data)
