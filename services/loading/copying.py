"""Copying the rows of a batch straight into the star."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pandas as pd

from contracts.column_types import BIGINT, Kind
from contracts.contract import Contract
from contracts.tables import WarehouseTable
from services.loading.merge import insert_staged
from services.loading.staging import Staged, stage, unreadable_column_named
from shared.binary_copy import binary_copy, copy_rows
from shared.errors import PermanentError
from shared.star_schema.schema import relation

_EPOCH, _MICROSECOND = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_WIDER = """
SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND atttypid = 'bigint'::regtype AND NOT attisdropped
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the technical columns of a batch's rows contain."""

    run: int
    batch_id: UUID
    loaded_at: datetime  # by the warehouse's clock


async def copy_into_star(
    connection: asyncpg.Connection, contract: Contract, table: WarehouseTable, rows: pd.DataFrame, origin: Origin
) -> None:
    """Copy rows into their table of the star, which has no key. Raises: PermanentError for a value that has no room."""
    if any(kind.is_verbatim for kind in table.star_types.values()):  # only the server can read such a text
        await stage(connection, table, rows)
        async with unreadable_column_named(Staged(connection), table):
            await connection.execute(insert_staged(contract, table), origin.run, origin.batch_id, origin.loaded_at)
        return
    wider = {row["attname"] for row in await connection.fetch(_WIDER, relation(contract, table))}
    # A later build may have widened a column while this one still runs.
    types = {name: BIGINT if kind.kind is Kind.INTEGER and name in wider else kind for name, kind in table.star_types.items()}
    moment = (origin.loaded_at - _EPOCH) // _MICROSECOND
    technical = {
        "_run": origin.run.to_bytes(8),
        "_batch_id": origin.batch_id.bytes,
        "_loaded_at": moment.to_bytes(8, signed=True),
    }
    pieces = binary_copy(rows, types, tuple(technical.values()))
    try:
        await copy_rows(connection, contract.warehouse_schema, table.name, [*types, *technical], pieces)
    except OverflowError as error:
        raise PermanentError(f"rows of '{table.name}' can't be loaded: {error}") from error
