"""Remodelling of one batch: read its extracts, turn them into star rows, write those and announce them.

The result depends on the message alone: the service keeps no state, and batches may come in any order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import pandas as pd
import structlog

from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.key_hashes import RejectedKeys
from contracts.messages import (
    BatchIngested,
    BatchIngestedData,
    BatchRemodelled,
    BatchRemodelledData,
    Extract,
    Message,
    Role,
    StarRows,
    encode,
)
from contracts.objects import BatchKeys, ObjectRef, extract_name, is_bundle
from contracts.tables import ContractError
from services.remodelling.quarantine import refused_rows, unreadable_records
from services.remodelling.transform import Remodelled, SourceRows, remodel
from shared.bundles import encode_bundle
from shared.envelope import caused_by
from shared.errors import PermanentError
from shared.key_hashes import packed
from shared.object_store import ObjectStore, put_addressed
from shared.outcome import Defer, Done, Outcome
from shared.parquet import NewerColumnsError, encode_parquet
from shared.queue import Queue
from shared.stored_rows import NEWER_COLUMNS_DELAY, StoredRows, read_rows

EVENT_SOURCE = "starlift/remodelling"

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What remodelling works with."""

    objects: ObjectStore
    loading: Queue
    contract: Contract
    processed_bucket: str


async def handle(message: Message, deps: Dependencies) -> Outcome:
    """Remodel one batch. Raises: PermanentError, TransientError, DependencyDownError."""
    if not isinstance(message, BatchIngested):
        raise PermanentError(
            f"remodelling handles starlift.batch_ingested, not '{message.type}'; move the message to its own queue"
        )
    try:
        rows = await _read_extracts(message.data, deps)
    except NewerColumnsError as newer:
        return Defer(NEWER_COLUMNS_DELAY, str(newer))
    results = await asyncio.to_thread(lambda: list(remodel(deps.contract, rows)))
    data = await _write_objects(message.data, rows, results, deps)
    event = BatchRemodelled(**caused_by(message, EVENT_SOURCE, subject=data.batch_id, name="batch_remodelled"), data=data)
    await deps.loading.send(encode(event))
    _log.info(
        "batch_remodelled",
        run=data.run,
        batch_id=str(data.batch_id),
        rows=sum(table.object.row_count for table in data.tables),
        rejected=data.rejected.row_count if data.rejected else 0,
        quarantined=data.quarantine.row_count if data.quarantine else 0,
    )
    return Done()


async def _read_extracts(batch: BatchIngestedData, deps: Dependencies) -> SourceRows:
    """The rows of a batch, those of one table and role in one frame.

    Raises: NewerColumnsError, PermanentError, TransientError, DependencyDownError.
    """
    stored = [StoredRows(extract_name(one.table, one.role), one.object, _types(one, deps)) for one in batch.extracts]
    frames = await read_rows(deps.objects, stored, deps.contract, "extract")
    found: dict[tuple[Role, str], list[pd.DataFrame]] = {}
    for extract, frame in zip(batch.extracts, frames, strict=True):
        found.setdefault((extract.role, extract.table), []).append(frame)
    joined = {key: pd.concat(parts, ignore_index=True) if parts[1:] else parts[0] for key, parts in found.items()}
    base = {table: frame for (role, table), frame in joined.items() if role is Role.BASE}
    partners = {table: frame for (role, table), frame in joined.items() if role is Role.PARTNER}
    return _without_records(deps.contract, SourceRows(base, partners))


def _without_records(contract: Contract, rows: SourceRows) -> SourceRows:
    """Take out what a delivery has in place of records without a readable key: their defects go to quarantine as they are."""
    base, unreadable = dict(rows.base), dict[str, list[str]]()
    for table in (contract.source_table(name) for name in rows.base):
        if table.dataset is not None:
            frame = base[table.name]
            has_key = frame[[table.key_text] if table.key_text else list(table.key)].notna().all(axis=1)
            unreadable[table.name] = frame.loc[~has_key, table.defect].tolist()
            base[table.name] = frame[has_key].reset_index(drop=True)
    return SourceRows(base, rows.partners, unreadable)


def _types(extract: Extract, deps: Dependencies) -> Mapping[str, ColumnType]:
    try:
        return deps.contract.source_table(extract.table).extract_types
    except ContractError as error:
        advice = "deploy the contract that it was written with, then replay the dead letters"
        raise PermanentError(f"extract '{extract.object.key}' can't be remodelled: {error}; {advice}") from error


async def _write_objects(
    batch: BatchIngestedData, rows: SourceRows, results: Sequence[Remodelled], deps: Dependencies
) -> BatchRemodelledData:
    """Write star rows, hashes of keys and refused rows to the processed bucket; return the data of the next message."""
    object_keys = BatchKeys(batch.source_name, batch.run, batch.index)
    return BatchRemodelledData(
        **batch.head(),
        tables=await _write_star_rows(batch, results, object_keys, deps),
        hashes=await _copy_hashes(batch, object_keys, deps),
        gone=batch.gone,
        answers=batch.answers,
        quarantine=await _write_quarantine(batch, rows, results, object_keys, deps),
        rejected=await _write_rejected(results, object_keys, deps),
        landed=tuple(dict.fromkeys(one.object.sha256 for one in batch.extracts if _is_delivered(one, deps))),
    )


def _is_delivered(extract: Extract, deps: Dependencies) -> bool:
    return deps.contract.source_table(extract.table).dataset is not None


async def _write_star_rows(
    batch: BatchIngestedData, results: Sequence[Remodelled], object_keys: BatchKeys, deps: Dependencies
) -> tuple[StarRows, ...]:
    """Write the star rows: as a bundle if the batch is one."""
    whole_runs = {extract.table: extract.whole_run for extract in batch.extracts}
    if not all(is_bundle(extract.object.key) for extract in batch.extracts):
        refs = await asyncio.gather(*(_write_table(result, object_keys, deps) for result in results))
    elif results:
        refs = await _write_bundle(results, object_keys, deps)
    else:
        refs = []
    return tuple(
        StarRows(table=result.table.name, object=ref, whole_run=whole_runs[result.table.source])
        for result, ref in zip(results, refs, strict=True)
    )


async def _write_bundle(results: Sequence[Remodelled], object_keys: BatchKeys, deps: Dependencies) -> list[ObjectRef]:
    parts = [(result.table.name, result.rows, result.table.star_types, ()) for result in results]
    body = await asyncio.to_thread(encode_bundle, parts)
    row_count = sum(len(result.rows) for result in results)
    ref = await put_addressed(deps.objects, deps.processed_bucket, object_keys.bundle, body, row_count=row_count)
    return [ref.model_copy(update={"row_count": len(result.rows)}) for result in results]


async def _write_table(result: Remodelled, object_keys: BatchKeys, deps: Dependencies) -> ObjectRef:
    body = await asyncio.to_thread(encode_parquet, result.rows, result.table.star_types)
    key_of = partial(object_keys.star_rows, result.table.name)
    return await put_addressed(deps.objects, deps.processed_bucket, key_of, body, row_count=len(result.rows))


async def _copy_hashes(batch: BatchIngestedData, object_keys: BatchKeys, deps: Dependencies) -> ObjectRef | None:
    """Copy the hashes of keys to the processed bucket, the only one that loading reads."""
    if (ref := batch.hashes) is None:
        return None
    body = await deps.objects.get(ref)
    return await put_addressed(deps.objects, deps.processed_bucket, object_keys.key_hashes, body, row_count=ref.row_count)


async def _write_rejected(results: Sequence[Remodelled], object_keys: BatchKeys, deps: Dependencies) -> ObjectRef | None:
    """Write the keys of the rows that filters leave out, if there are any."""
    tables = {result.table.name: tuple(result.rejected) for result in results if result.rejected}
    if not tables:
        return None
    body = await asyncio.to_thread(packed, RejectedKeys(tables=tables))
    row_count = sum(map(len, tables.values()))
    return await put_addressed(deps.objects, deps.processed_bucket, object_keys.rejected_keys, body, row_count=row_count)


async def _write_quarantine(
    batch: BatchIngestedData, rows: SourceRows, results: Sequence[Remodelled], object_keys: BatchKeys, deps: Dependencies
) -> ObjectRef | None:
    """Write the rows that were refused, if there are any."""
    whole_runs = {extract.table: extract.whole_run or 0 for extract in batch.extracts}
    refused = chain(
        refused_rows(deps.contract, rows.base, results, whole_runs),
        unreadable_records(deps.contract, rows.unreadable_records),
    )
    lines = await asyncio.to_thread(lambda: [f"{row.model_dump_json()}\n" for row in refused])
    if not lines:
        return None
    body = "".join(lines).encode()
    return await put_addressed(deps.objects, deps.processed_bucket, object_keys.quarantine, body, row_count=len(lines))
