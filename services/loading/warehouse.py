"""The warehouse as the loader works on it: its schema, and one transaction per batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

import asyncpg
import pandas as pd

from contracts.calendar import CALENDAR_PARTS
from contracts.contract import Contract
from contracts.messages import BatchLoaded
from contracts.origins import CalendarPart
from contracts.tables import Calendar, Dimension, Fact, WarehouseTable
from contracts.warehouse import LEDGER
from services.loading.deletes import Deletes, Keys
from services.loading.merge import (
    create_staging,
    insert_inferred_members,
    merge_date,
    merge_staged,
    select_referred_dates,
    staging_name,
)
from services.loading.migration import SCHEMA_LOCK, bring_up_to_date, logged_waits
from services.loading.schema import QUERIES, foreign_keys
from services.loading.unreadable import unreadable_told
from shared.errors import PermanentError, TransientError
from shared.ledger import is_complete, loaded_batches, other_source
from shared.postgres import Database

LOCK_LIMIT = "10s"

# The batch's row in the ledger; no row comes back if it is there already. A second loader waits here until the first has ended.
_CLAIM_BATCH = f"""
INSERT INTO {LEDGER} (batch_id, source_name, run, batch_index, event, snapshot_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (batch_id) DO NOTHING
RETURNING batch_id
"""
# The last statement before the commit: from now on the rows can be seen.
_CLOSE_BATCH = f"UPDATE {LEDGER} SET loaded_at = clock_timestamp() WHERE batch_id = $1"
_LOST = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidColumnReferenceError,  # no key for ON CONFLICT
)


class Warehouse:
    """One star in one database."""

    def __init__(self, database: Database, contract: Contract) -> None:
        self._database = database
        self._contract = contract
        self._is_shaped = False
        self._shaping: asyncio.Task[None] | None = None
        self._has_foreign_keys = False
        self._only_source: str | None = None

    async def has(self, batch_id: UUID) -> bool:
        """Whether the ledger has a batch. Raises: DependencyDownError, TransientError, PermanentError."""
        await self.ensure_schema()
        async with self._database.transaction(readonly=True) as connection:
            with self._shaped_anew_if_lost():
                return batch_id in await loaded_batches(connection, [batch_id])

    async def load(self, event: BatchLoaded, rows: Mapping[str, pd.DataFrame], keys: Keys) -> int | None:
        """Merge the rows of a batch (by warehouse table) and compare its keys, in one transaction.

        How many rows were found gone; None if the ledger has the batch already.
        Raises: DependencyDownError, TransientError, PermanentError.
        """
        await self.ensure_schema()
        async with self._database.transaction(readonly=True) as connection:
            await self._refuse_second_source(connection, event.data.source_name)
        async with self._database.transaction() as connection:
            with self._shaped_anew_if_lost():
                async with logged_waits(self._database, connection, [], batch_id=str(event.data.batch_id)):
                    return await self._load(connection, event, rows, keys)

    async def _load(
        self, connection: asyncpg.Connection, event: BatchLoaded, rows: Mapping[str, pd.DataFrame], keys: Keys
    ) -> int | None:
        data = event.data
        deletes = Deletes(connection, self._contract, data, rows.keys(), keys)
        # Who compares keys loads alone: a load beside it would merge rows that are not compared.
        is_alone = bool(keys.lists or await deletes.later_comparisons())
        await connection.execute(f"SELECT pg_advisory_xact_lock{'' if is_alone else '_shared'}($1)", SCHEMA_LOCK)
        claimed = await connection.fetchval(
            _CLAIM_BATCH,
            *(data.batch_id, data.source_name, data.run, data.index, event.model_dump_json(), data.snapshot.taken_at),
        )
        if claimed is None:
            return None
        await self._merge(connection, event, rows)
        later = await deletes.later_comparisons()
        if later and not is_alone:
            raise TransientError(f"keys were compared while batch {data.batch_id} waited; the next attempt compares them again")
        gone = await deletes.apply(later)
        await connection.execute(_CLOSE_BATCH, data.batch_id)
        return gone

    async def ensure_foreign_keys(self, source_name: str, run: int) -> None:
        """Once every batch of `run` is in, add the missing foreign keys. Every load keeps them true, so they can't fail.

        Raises: TransientError when a long load holds the tables; a later run tries again.
        """
        if self._has_foreign_keys:
            return
        async with self._database.transaction() as connection:
            if not await is_complete(connection, source_name, run):
                return
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT}'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
            found = await connection.fetch(QUERIES["foreign_keys.sql"], self._contract.warehouse_schema)
            known = {row["name"] for row in found}
            for name, statement in foreign_keys(self._contract):
                if name not in known:
                    await connection.execute(statement)
        self._has_foreign_keys = True

    async def ensure_schema(self) -> None:
        """Migrate the schema to the contract when the loader starts, and after a load has found it damaged.

        All callers share one attempt, which continues when a caller stops waiting.
        Raises: SchemaNotReadyError, DependencyDownError, TransientError, PermanentError.
        """
        if self._is_shaped:
            return
        if self._shaping is None or self._shaping.done():
            self._shaping = asyncio.create_task(self._shape())
        await asyncio.shield(self._shaping)

    async def _shape(self) -> None:
        await bring_up_to_date(self._database, self._contract)
        self._is_shaped = True

    @contextmanager
    def _shaped_anew_if_lost(self) -> Iterator[None]:
        """Let the next attempt check the schema if the warehouse lost a table, a column or a key since this process started.

        Raises: TransientError.
        """
        try:
            yield
        except _LOST as error:
            self._is_shaped = self._has_foreign_keys = False
            raise TransientError(f"{self._database.name}: {error.args[0]}; the next attempt repairs the schema") from error

    async def _refuse_second_source(self, connection: asyncpg.Connection, source_name: str) -> None:
        """Two sources in one star would take each other's rows for deleted. Raises: PermanentError."""
        if self._only_source == source_name:
            return
        other = await other_source(connection, source_name)
        if other is not None:
            raise PermanentError(
                f"the warehouse holds the rows of source '{other}'; give source '{source_name}' a database of its own, or, if "
                f"it is the same one renamed, update {LEDGER}, then replay the dead letters"
            )
        self._only_source = source_name

    async def _merge(self, connection: asyncpg.Connection, event: BatchLoaded, rows: Mapping[str, pd.DataFrame]) -> None:
        """Stage every table, then dimension by dimension the real rows and the inferred members, then the facts."""
        contract = self._contract
        staged = [table for table in contract.warehouse_tables if table.name in rows]
        facts = tuple(table for table in staged if isinstance(table, Fact))
        for table in staged:
            await connection.execute(create_staging(table))
            await connection.copy_records_to_table(
                staging_name(table), records=_records(table, rows[table.name]), columns=list(table.star_types)
            )
        for table in contract.warehouse_tables:
            if isinstance(table, Calendar):
                await self._fill_calendar(connection, table, facts)
                continue
            if table in staged:
                async with unreadable_told(connection, table):
                    await connection.execute(merge_staged(contract, table), event.data.run, event.data.batch_id)
            if isinstance(table, Dimension) and (inferred := insert_inferred_members(contract, table, facts)):
                await connection.execute(inferred)

    async def _fill_calendar(
        self, connection: asyncpg.Connection, calendar: WarehouseTable, facts: tuple[WarehouseTable, ...]
    ) -> None:
        referred = select_referred_dates(calendar, facts)
        if referred is None:
            return
        parts = [CALENDAR_PARTS[column.origin.part] for column in calendar.columns if isinstance(column.origin, CalendarPart)]
        dates = [row["date"] for row in await connection.fetch(referred)]
        await connection.executemany(
            merge_date(self._contract, calendar), [[str(part(date)) for part in parts] for date in dates]
        )


def _records(table: WarehouseTable, frame: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """The rows of a frame as tuples of Python objects, None for NULL."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in table.star_types]
    return zip(*columns, strict=True)
