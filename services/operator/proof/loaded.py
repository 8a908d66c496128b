"""What batches have brought, by the ledger and by their objects in the processed bucket."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

from contracts.column_types import TIMESTAMP, ColumnType, Kind
from contracts.contract import Contract
from contracts.objects import rows_in
from contracts.tables import RemodelledTable
from contracts.warehouse import BATCH_ID, LEDGER, RUN, TOMBSTONE
from services.operator.proof.actual import current_relation, is_inferred
from services.operator.proof.look import Side
from services.operator.star_keys import by_column, key_arrays, key_names, key_value
from shared.codecs.numeric import decimal_text
from shared.ledger import TABLE_BATCHES
from shared.source_keys import Key
from shared.source_store import SourceStore
from shared.sql import literal, quoted

EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (the warehouse's timestamps are without time zone)
Texts = tuple[str, ...]  # the texts of a version's key, then those of its version columns


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """What the ledger records about one batch and one table: a row of shared.ledger.TABLE_BATCHES."""

    batch_id: UUID
    run: int
    index: int
    loaded_at: dt.datetime
    row_count: int


async def brought_by_batches(
    store: SourceStore, warehouse: Side, contract: Contract, table: RemodelledTable, since: int, keys: Collection[Key]
) -> set[Key]:
    """Those of `keys` whose row is what a batch of a run from `since` on has brought, and that no tombstone hides.

    No batch has brought any other row: the ledger does not have its run and batch, or the batch's object does not have its key.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    found = await _by_batch(warehouse, contract, table, keys, since)
    for record in await warehouse.fetch(contract.own(TABLE_BATCHES), store.source, table.name, 0) if found else ():
        if (batch := LoadedBatch(*record)).batch_id in found:
            versions = await read_versions(store, table, batch)
            if versions is not None:
                brought = {version[: len(table.key)] for version in versions}
                found[batch.batch_id] = [key for key in found[batch.batch_id] if tuple(map(str, key)) in brought]
    return {key for of_batch in found.values() for key in of_batch}


async def inferred_by_batches(
    store: SourceStore, warehouse: Side, contract: Contract, table: RemodelledTable, keys: Collection[Key]
) -> set[Key]:
    """Those of `keys`, to which no fact refers, whose row is an inferred member that a load made.

    A fact whose reference changes within one version leaves the member of the old one behind, and so does an older image that
    comes after a newer one. No load removes it: whether it may would depend on what other batches, some of them not committed,
    refer to; and the dimension's surrogate must stay that of its key. It stands for a row that is not there, as it did while a
    fact referred to it, so a proof treats it as absent; the next comparison of keys marks it as deleted.

    Not every member qualifies, or one that a person inserts would: the row must be as the loader makes it; the ledger
    must have its batch, in whose transaction it was inserted; a fact of that batch must refer to its key; and no tombstone may
    hide it, for then it was marked. Where the batch's object is gone, the ledger is trusted, as for any other row; the
    comparison of keys does not trust it.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    facts = contract.references_to(table.name)
    found = await _by_batch(warehouse, contract, table, keys, since=None) if facts else {}
    made = set[Key]()
    for fact, column in facts if found else ():
        of_fact = replace(store, source=contract.source_of(fact) or store.source)
        for record in await warehouse.fetch(contract.own(TABLE_BATCHES), of_fact.source, fact.name, 0):
            if (batch := LoadedBatch(*record)).batch_id in found:
                rows = await read_rows(of_fact, fact, batch, [column.name])
                referred = None if rows is None else set(rows)
                made |= {key for key in found[batch.batch_id] if referred is None or (str(key[0]),) in referred}
    return made


async def _by_batch(
    warehouse: Side, contract: Contract, table: RemodelledTable, keys: Collection[Key], since: int | None
) -> dict[UUID, list[Key]]:
    found: dict[UUID, list[Key]] = {}
    for *key, batch_id in await warehouse.fetch(_batches_of(contract, table, since), *by_column(table, keys)):
        found.setdefault(batch_id, []).append(tuple(key))
    return found


def _batches_of(contract: Contract, table: RemodelledTable, since: int | None) -> str:
    """The keys that are given (`by_column`) with the batch of their row, if the ledger has that.

    Of a row of a run from `since` on the ledger must have the run as well; without `since` only inferred members are looked at.
    """
    chosen, of_run = (is_inferred(table), "") if since is None else (f"a.{RUN} >= {since}", f" AND l.run = r.{RUN}")
    names = key_names(table)
    columns = [
        f"{key_value(quoted('a', name), table.column(name))} AS {key}" for name, key in zip(table.key, names, strict=True)
    ]
    key_array = f"jsonb_build_array({', '.join(quoted('a', name) for name in table.key)}) AS key_array"
    found = f"FROM {current_relation(contract, table)} AS a WHERE {chosen}"
    rows = f"SELECT {', '.join([*columns, key_array])}, a.{RUN}, a.{BATCH_ID} {found}"
    return (
        f"SELECT {', '.join(names)}, {BATCH_ID} FROM ({rows}) AS r "
        f"WHERE ({', '.join(names)}) IN (SELECT * FROM unnest({', '.join(key_arrays(table))})) "
        f"AND EXISTS (SELECT FROM {contract.own(LEDGER)} AS l WHERE l.batch_id = r.{BATCH_ID}{of_run}) "
        f"AND NOT EXISTS (SELECT FROM {contract.own(TOMBSTONE)} AS b "
        f"WHERE b.table_name = {literal(table.name)} AND b.key = r.key_array AND b.run > r.{RUN})"
    )


async def read_versions(store: SourceStore, table: RemodelledTable, batch: LoadedBatch) -> list[Texts] | None:
    """The key, and for a fact the version, of each row of `table` that `batch` loaded; None if its object is gone."""
    rows = await read_rows(store, table, batch, table.identity)
    return cast("list[Texts] | None", rows)


async def read_rows(
    store: SourceStore, table: RemodelledTable, batch: LoadedBatch, columns: Sequence[str]
) -> list[tuple[str | None, ...]] | None:
    """The texts of some columns of each row of `table` that `batch` loaded; None if its object is gone.

    A batch that a later build remodelled again has several objects; the right one has as many rows as were loaded.
    """
    objects, bucket = store.objects, store.processed_bucket
    for key in await objects.keys(bucket, store.keys.batch(batch.run, batch.index).prefix):
        if (named := rows_in(key)) is None or named[0] not in {table.name, None}:
            continue
        found = await objects.read(bucket, key)
        versions = None if found is None else await asyncio.to_thread(_rows, found.body, named, table, columns)
        if versions is not None and len(versions) == batch.row_count:
            return versions
    return None


def _rows(
    body: bytes, named: tuple[str | None, str], table: RemodelledTable, names: Sequence[str]
) -> list[tuple[str | None, ...]] | None:
    """None for bytes that are not those of the key, or that were made under a contract with other columns."""
    from shared.bundles import decode_bundle, some_columns  # noqa: PLC0415 (pandas: half a second for every command)
    from shared.parquet import NewerColumnsError, decode_columns  # noqa: PLC0415

    if not sha256(body).hexdigest().startswith(named[1]):
        return None
    types = {name: table.column(name).type for name in names}
    try:
        frame = some_columns(decode_bundle(body)[table.name], types) if named[0] is None else decode_columns(body, types)
    except (KeyError, NewerColumnsError):
        return None
    values = (frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in types)
    texts = (
        [None if value is None else spelled(value, kind) for value in column]
        for column, kind in zip(values, types.values(), strict=True)
    )
    return list(zip(*texts, strict=True))


def spelled(value: Any, kind: ColumnType) -> str:
    """A value in its form in a data frame (shared.codecs) as a key spells it."""
    match kind.kind:
        case Kind.NUMERIC:
            return decimal_text(f"{Decimal(value).scaleb(-kind.scale):f}")
        case Kind.DATE:
            return (EPOCH + dt.timedelta(days=value)).date().isoformat()
        case Kind.TIME:
            return _without_zeros((EPOCH + dt.timedelta(microseconds=value)).time().isoformat())
        case Kind.TIMESTAMP:
            return _without_zeros((EPOCH + dt.timedelta(microseconds=value)).isoformat(sep=" "))
        case Kind.TIMESTAMPTZ:
            return f"{spelled(value, TIMESTAMP)}+00"
        case Kind.BOOLEAN:
            return str(value).lower()
        case _:
            return str(value)


def _without_zeros(moment: str) -> str:
    """PostgreSQL writes no trailing zeros in a fraction."""
    return moment.rstrip("0") if "." in moment else moment
