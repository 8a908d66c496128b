"""The rows of a table that a batch has loaded, by name, read from its object in the processed bucket."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal
from hashlib import sha256
from typing import Any

from contracts.column_types import TIMESTAMP, ColumnType, Kind
from contracts.objects import rows_in
from contracts.tables import WarehouseTable
from services.operator.proof.history_statements import LoadedBatch
from services.operator.proof.history_verdict import Texts
from shared.parquet import NewerColumnsError, decode_columns
from shared.source_store import SourceStore

EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (the warehouse's timestamps are without time zone)


async def read_versions(store: SourceStore, table: WarehouseTable, batch: LoadedBatch) -> list[Texts] | None:
    """The key, and for a fact the version, of each row of `table` that `batch` loaded, as texts.

    None if no object holds them any more. A batch that a later build remodelled again has several objects; the right one has
    as many rows as were loaded.
    """
    objects, bucket = store.objects, store.processed_bucket
    for key in await objects.keys(bucket, store.keys.batch(batch.run, batch.index).star_rows_prefix(table.name)):
        named, found = rows_in(key), await objects.read(bucket, key)
        if named is None or named[0] != table.name or found is None:
            continue
        versions = await asyncio.to_thread(_versions, found.body, named[1], table)
        if versions is not None and len(versions) == batch.row_count:
            return versions
    return None


def _versions(body: bytes, digest: str, table: WarehouseTable) -> list[Texts] | None:
    """None for bytes that are not those of the key, or that were made under a contract with another key."""
    if not sha256(body).hexdigest().startswith(digest):
        return None
    types = {name: table.column(name).type for name in table.identity}
    try:
        frame = decode_columns(body, types)
    except (KeyError, NewerColumnsError):
        return None
    columns = [[spelled(value, kind) for value in frame[name].tolist()] for name, kind in types.items()]
    return list(zip(*columns, strict=True))


def spelled(value: Any, kind: ColumnType) -> str:
    """A value in its physical form (shared.parquet) as PostgreSQL spells it."""
    match kind.kind:
        case Kind.NUMERIC:
            return f"{Decimal(value).scaleb(-kind.scale):f}"
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
    """PostgreSQL spells no zeros behind the last digit of a fraction."""
    return moment.rstrip("0") if "." in moment else moment
