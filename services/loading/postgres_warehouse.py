"""A star in PostgreSQL: one transaction per batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pandas as pd

from contracts.calendar import CALENDAR_PARTS
from contracts.contract import Contract
from contracts.origins import CalendarPart
from contracts.tables import Calendar, Dimension, Fact, WarehouseTable
from contracts.warehouse import LEDGER, STAR_LOCK
from services.loading.deletes import Deletes, add_deletions
from services.loading.key_comparison import KeyComparisons
from services.loading.merge import (
    add_missing_versions,
    add_versions,
    create_staging,
    insert_inferred_members,
    merge_date,
    merge_staged,
    read_staged,
    select_referred_dates,
    staging_name,
)
from services.loading.migrate import migrate_schema
from services.loading.warehouse import Ask, Batch, StarRow
from shared.errors import PermanentError, TransientError
from shared.ledger import is_complete, loaded_batches, other_source
from shared.lock_waits import log_lock_waits
from shared.postgres import Database
from shared.sql import quoted
from shared.star_schema.schema import foreign_keys, relation

FOREIGN_KEYS_LOCK_LIMIT = timedelta(seconds=10)  # loads under way hold the tables

# No row comes back if the ledger has the batch already. A second loader of the batch waits here until the first has ended.
_CLAIM_BATCH = f"""
INSERT INTO {LEDGER} (batch_id, source_name, run, batch_index, event, snapshot_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (batch_id) DO NOTHING
RETURNING batch_id
"""
# The last statement before the commit: from now on readers see the rows.
_CLOSE_BATCH = f"UPDATE {LEDGER} SET loaded_at = clock_timestamp() WHERE batch_id = $1"
_FOREIGN_KEYS = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND connamespace = $1::text::regnamespace"
_DAMAGED = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidColumnReferenceError,  # no key for ON CONFLICT
)


class PostgresWarehouse:
    """One star in one database. See Warehouse."""

    def __init__(self, database: Database, contract: Contract) -> None:
        self._database = database
        self._contract = contract
        self._has_schema = False
        self._migration: asyncio.Task[None] | None = None
        self._has_foreign_keys = False
        self._only_source: str | None = None

    async def ensure_schema(self) -> None:
        """Migrate the schema when the loader starts, and after a load has found it damaged.

        All callers share one attempt, which continues when a caller stops waiting. See Warehouse.
        """
        if self._has_schema:
            return
        if self._migration is None or self._migration.done():
            self._migration = asyncio.create_task(self._migrate())
        await asyncio.shield(self._migration)

    async def _migrate(self) -> None:
        await migrate_schema(self._database, self._contract)
        await self._add_missing_versions()
        self._has_schema = True

    async def has(self, batch_id: UUID) -> bool:
        """See Warehouse."""
        await self.ensure_schema()
        async with self._transaction() as connection:
            return batch_id in await loaded_batches(connection, [batch_id])

    async def load(self, batch: Batch, ask: Ask) -> int | None:
        """See Warehouse."""
        await self.ensure_schema()
        async with self._transaction() as connection:
            await self._refuse_second_source(connection, batch.event.data.source_name)
            async with log_lock_waits(self._database, connection, batch_id=str(batch.event.data.batch_id)):
                return await self._load(connection, batch, ask)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction. If the warehouse proves to have lost a table, a column or a key, the next attempt checks the schema.

        Raises: TransientError.
        """
        async with self._database.transaction() as connection:
            try:
                yield connection
            except _DAMAGED as error:
                self._has_schema = self._has_foreign_keys = False
                raise TransientError(f"{self._database.name}: {error.args[0]}; the next attempt repairs the schema") from error

    async def _refuse_second_source(self, connection: asyncpg.Connection, source_name: str) -> None:
        if self._only_source == source_name:
            return
        other = await other_source(connection, source_name)
        if other is not None:
            raise PermanentError(
                f"the warehouse contains the rows of source '{other}'; give source '{source_name}' a database of its own, or, "
                f"if it is the same one renamed, update {LEDGER}, then replay the dead letters"
            )
        self._only_source = source_name

    async def _load(self, connection: asyncpg.Connection, batch: Batch, ask: Ask) -> int | None:
        data = batch.event.data
        # Tombstones need the lock alone: a concurrent load could merge a row that they don't see, and not see them.
        shared = "" if batch.gone or batch.rejected else "_shared"
        await connection.execute(f"SELECT pg_advisory_xact_lock{shared}($1)", STAR_LOCK)
        record = batch.event.model_dump_json()
        claim = (data.batch_id, data.source_name, data.run, data.index, record, data.snapshot.taken_at)
        if await connection.fetchval(_CLAIM_BATCH, *claim) is None:
            return None
        deletes = Deletes(connection, self._contract, batch)
        for table in self._contract.warehouse_tables:
            if table.name in batch.rows:
                await _stage(connection, table, batch.rows[table.name])
        await deletes.lock_tombstones()
        gone = await deletes.apply(await self._merge(connection, batch), ask)
        await connection.execute(_CLOSE_BATCH, data.batch_id)
        return gone

    async def _merge(self, connection: asyncpg.Connection, batch: Batch) -> dict[str, list[str]]:
        """Merge dimension by dimension the real rows and the inferred members, then the facts.

        Returns the keys of the inferred members that are new, by table.
        """
        contract, inferred = self._contract, dict[str, list[str]]()
        staged = [table for table in contract.warehouse_tables if table.name in batch.rows]
        facts = tuple(table for table in staged if isinstance(table, Fact))
        for table in contract.warehouse_tables:
            if isinstance(table, Calendar):
                await self._fill_calendar(connection, table, facts)
                continue
            if table in staged:
                data = batch.event.data
                async with _unreadable_column_named(connection, table):
                    await connection.execute(merge_staged(contract, table), data.run, data.batch_id)
                if isinstance(table, Dimension) and table.versions is not None:
                    seen = (data.run, data.batch_id, data.snapshot.taken_at)
                    await connection.execute(add_versions(contract, table, table.versions), *seen)
            if isinstance(table, Dimension) and (insert := insert_inferred_members(contract, table, facts)):
                inferred[table.name] = [row["key"] for row in await connection.fetch(insert)]
        return inferred

    async def _fill_calendar(
        self, connection: asyncpg.Connection, calendar: WarehouseTable, facts: tuple[WarehouseTable, ...]
    ) -> None:
        referred = select_referred_dates(calendar, facts)
        if referred is None:
            return
        parts = [CALENDAR_PARTS[column.origin.part] for column in calendar.columns if isinstance(column.origin, CalendarPart)]
        dates = [row["date"] for row in await connection.fetch(referred)]
        rows = [[str(part(date)) for part in parts] for date in dates]
        await connection.executemany(merge_date(self._contract, calendar), rows)

    async def finish_run(self, source_name: str, run: int) -> None:
        """Add the missing foreign keys, and versions. Every load keeps them true, so adding them can't fail.

        Raises: ServerBusyError when a long load holds the tables; a later run tries again.
        """
        if self._has_foreign_keys:
            return
        await self._add_missing_versions()
        async with self._database.transaction() as connection:
            if not await is_complete(connection, source_name, run):
                return
            await connection.execute(f"SET LOCAL lock_timeout = '{FOREIGN_KEYS_LOCK_LIMIT.seconds}s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", STAR_LOCK)
            found = await connection.fetch(_FOREIGN_KEYS, quoted(self._contract.warehouse_schema))
            known = {row["conname"] for row in found}
            for name, statement in foreign_keys(self._contract):
                if name not in known:
                    await connection.execute(statement)
        self._has_foreign_keys = True

    async def _add_missing_versions(self) -> None:
        """Add what is loaded and was not seen: before the dimension had a history, or by a loader of an earlier build."""
        for table in self._contract.warehouse_tables:
            if isinstance(table, Dimension) and table.versions is not None:
                async with self._database.transaction() as connection:
                    await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", STAR_LOCK)
                    await connection.execute(add_missing_versions(self._contract, table, table.versions))
                    await connection.execute(add_deletions(self._contract, table.versions, of_tombstones=table.name))

    async def compare_keys(self, ask: Ask) -> int:
        """See Warehouse."""
        await self.ensure_schema()
        return await KeyComparisons(self._transaction, self._contract).compare(ask)

    async def rows(self, table: WarehouseTable) -> list[StarRow]:
        """See Warehouse."""
        names = ", ".join(map(quoted, table.star_types))
        query = f"SELECT _run, _deleted_at, {names} FROM {relation(self._contract, table)}"
        async with self._database.transaction(readonly=True) as connection:
            found = await connection.fetch(query)
        return [StarRow({name: row[name] for name in table.star_types}, row["_run"], row["_deleted_at"]) for row in found]


async def _stage(connection: asyncpg.Connection, table: WarehouseTable, rows: pd.DataFrame) -> None:
    """Copy rows into a temporary table, as Python objects with None for NULL."""
    names = list(table.star_types)
    columns = [rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in names]
    await connection.execute(create_staging(table))
    await connection.copy_records_to_table(staging_name(table), records=zip(*columns, strict=True), columns=names)


@asynccontextmanager
async def _unreadable_column_named(connection: asyncpg.Connection, table: WarehouseTable) -> AsyncIterator[None]:
    """Around the merge of staged rows: find the column whose value the warehouse can't read.

    PostgreSQL names no column when a cast fails, and its text quotes the value. Only what travels as PostgreSQL's own text can
    fail: it is read by another server, maybe an older one, or one whose type of that name is another.
    Raises: PermanentError, which names the column.
    """
    verbatim = [column for column in table.columns if column.type.is_verbatim]
    if not verbatim:
        yield
        return
    try:
        async with connection.transaction():  # a savepoint: after an error nothing else could be asked
            yield
    except asyncpg.DataError as error:
        for column in verbatim:
            try:
                async with connection.transaction():
                    await connection.execute(read_staged(table, column))
            except asyncpg.DataError:
                raise PermanentError(
                    f"column '{column.name}' of '{table.name}' has a value that the warehouse can't read as {column.type.sql} "
                    f"({type(error).__name__}; the text is withheld because it may quote a row); correct it at the source or "
                    "leave the column out of the contract, then run `starlift ingest --full`"
                ) from error
        raise
