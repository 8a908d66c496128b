"""One batch: read its extracts, remodel, write the star rows, the key lists and the quarantine, announce them.

No state, no order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import pandas as pd
import structlog

from contracts.contract import Contract
from contracts.messages import (
    BatchIngested,
    BatchRemodelled,
    BatchRemodelledData,
    Extract,
    KeyList,
    Message,
    Role,
    StarRows,
    encode,
)
from contracts.objects import BatchKeys, ObjectRef
from contracts.tables import ContractError, SourceTable
from services.remodelling.quarantine import quarantine_lines
from services.remodelling.transform import Remodelled, SourceRows, remodel
from shared.envelope import caused_by
from shared.errors import PermanentError
from shared.object_store import ObjectStore, put_addressed
from shared.outcome import Defer, Done, Outcome
from shared.parquet import NEWER_COLUMNS_DELAY, NewerColumnsError, encode_parquet
from shared.queue import Queue
from shared.stored_rows import read_rows

SERVICE = "starlift/remodelling"

log = structlog.get_logger()


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
            f"remodelling takes starlift.batch_ingested, not '{message.type}'; move the message to its own queue"
        )
    try:
        rows = await _read(message, deps)
    except NewerColumnsError as newer:
        return Defer(NEWER_COLUMNS_DELAY, str(newer))
    results = await asyncio.to_thread(lambda: list(remodel(deps.contract, rows)))
    tables = await asyncio.gather(*(_write_star_rows(message, result, deps) for result in results))
    keys = await _copy_key_lists(message, deps)
    quarantine = await _write_quarantine(message, results, rows, deps)
    data = BatchRemodelledData(
        **message.data.head(),
        tables=tuple(tables),
        keys=keys,
        quarantine=quarantine,
    )
    event = BatchRemodelled(**caused_by(message, SERVICE, subject=data.batch_id, name="batch_remodelled"), data=data)
    await deps.loading.send(encode(event))
    log.info(
        "batch_remodelled",
        run=data.run,
        batch_id=str(data.batch_id),
        rows=sum(table.object.row_count for table in tables),
        quarantined=quarantine.row_count if quarantine else 0,
    )
    return Done()


async def _read(message: BatchIngested, deps: Dependencies) -> SourceRows:
    """The rows of a batch, its extracts of one table and role joined to one frame."""
    frames = await asyncio.gather(*(_read_extract(extract, deps) for extract in message.data.extracts))
    found: dict[tuple[Role, str], list[pd.DataFrame]] = {}
    for extract, frame in zip(message.data.extracts, frames, strict=True):
        found.setdefault((extract.role, extract.table), []).append(frame)
    joined = {key: pd.concat(parts, ignore_index=True) for key, parts in found.items()}
    return SourceRows(
        base={table: frame for (role, table), frame in joined.items() if role is Role.BASE},
        partners={table: frame for (role, table), frame in joined.items() if role is Role.PARTNER},
    )


async def _read_extract(extract: Extract, deps: Dependencies) -> pd.DataFrame:
    """The rows of one extract. Raises: NewerColumnsError, PermanentError, TransientError, DependencyDownError."""
    types = _known_table(extract.table, f"extract '{extract.object.key}'", deps.contract).extract_types
    return await read_rows(deps.objects, extract.object, types, deps.contract, "extract")


def _known_table(name: str, what: str, contract: Contract) -> SourceTable:
    """The source table that a message speaks of. Raises: PermanentError."""
    try:
        return contract.source_table(name)
    except ContractError as error:
        advice = "deploy the contract that it was made under, then replay the dead letters"
        raise PermanentError(f"{what} can't be remodelled: {error}; {advice}") from error


async def _copy_key_lists(message: BatchIngested, deps: Dependencies) -> tuple[KeyList, ...]:
    """The list of each source table for every star table made of it, whose key it is by the rules of a contract."""
    lists: list[KeyList] = []
    for keys in message.data.keys:
        table = _known_table(keys.table, f"the key list of '{keys.table}' in run {message.data.run}", deps.contract)
        objects = tuple([await _copy_keys(message, table, ref, deps) for ref in keys.objects])
        lists += [KeyList(table=star.name, objects=objects) for star in deps.contract.remodelled_from(table.name)]
    return tuple(lists)


async def _copy_keys(message: BatchIngested, table: SourceTable, ref: ObjectRef, deps: Dependencies) -> ObjectRef:
    key_of = partial(_keys(message).key_list, table.name)
    body = await deps.objects.get(ref)
    return await put_addressed(deps.objects, deps.processed_bucket, key_of, body, row_count=ref.row_count)


async def _write_star_rows(message: BatchIngested, result: Remodelled, deps: Dependencies) -> StarRows:
    body = await asyncio.to_thread(encode_parquet, result.rows, result.table.star_types)
    key_of = partial(_keys(message).star_rows, result.table.name)
    ref = await put_addressed(deps.objects, deps.processed_bucket, key_of, body, row_count=len(result.rows))
    return StarRows(table=result.table.name, object=ref)


async def _write_quarantine(
    message: BatchIngested, results: Iterable[Remodelled], rows: SourceRows, deps: Dependencies
) -> ObjectRef | None:
    """The rows that were refused, if there are any."""
    lines = await asyncio.to_thread(_refused_lines, results, rows, deps.contract)
    if not lines:
        return None
    body = "".join(f"{line}\n" for line in lines).encode()
    return await put_addressed(deps.objects, deps.processed_bucket, _keys(message).quarantine, body, row_count=len(lines))


def _keys(message: BatchIngested) -> BatchKeys:
    return BatchKeys(message.data.source_name, message.data.run, message.data.index)


def _refused_lines(results: Iterable[Remodelled], rows: SourceRows, contract: Contract) -> list[str]:
    lines: list[str] = []
    for table, base in rows.base.items():
        refused = [result for result in results if result.table.source == table and result.problems]
        lines += quarantine_lines(contract.source_table(table), base, refused)
    return lines
