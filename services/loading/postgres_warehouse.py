"""A star in PostgreSQL: one transaction per batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.tables import Dimension, Fact, WarehouseTable
from contracts.warehouse import BULK_LEDGER, LEDGER, STAR_LOCK
from services.loading.bulk_load import BulkLoad, BulkLoadInTheWayError, begin, end, end_if_complete, find_bulk_load
from services.loading.copying import Origin, copy_into_star
from services.loading.deletes import Deletes, add_deletions
from services.loading.foreign_keys import add_foreign_keys, validate_foreign_keys
from services.loading.key_comparison import KeyComparisons
from services.loading.merge import add_missing_versions, add_versions, merge_staged, restore_unknown
from services.loading.migrate import migrate_schema
from services.loading.references import insert_dates, insert_referred
from services.loading.staging import FEW_ROWS, Staged, stage_batch, unreadable_column_named
from services.loading.warehouse import Ask, Batch, StarRow
from shared.errors import PermanentError, ServerBusyError, TransientError
from shared.ledger import is_complete, loaded_batches, other_source
from shared.lock_waits import log_lock_waits
from shared.postgres import Database
from shared.sql import quoted
from shared.star_schema.schema import relation

FOREIGN_KEYS_LOCK_LIMIT = timedelta(seconds=10)  # loads under way hold the tables

# Of the ledger, or of the ledger of a bulk load. No row comes back if it has the batch already. A second loader of the batch
# waits here until the first has ended.
_CLAIM_BATCH = """
INSERT INTO {0} (batch_id, source_name, run, batch_index, event, snapshot_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (batch_id) DO NOTHING
RETURNING clock_timestamp()
"""
# The last statement before the commit: from now on readers see the rows.
_CLOSE_BATCH = "UPDATE {0} SET loaded_at = clock_timestamp() WHERE batch_id = $1"
_DAMAGED = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidColumnReferenceError,  # no key for ON CONFLICT
)

_log = structlog.stdlib.get_logger()


class PostgresWarehouse:
    """One star in one database. See Warehouse.

    A batch of up to `few_rows` is merged without temporary tables.
    """

    def __init__(self, database: Database, contract: Contract, *, few_rows: int = FEW_ROWS) -> None:
        self._database = database
        self._few_rows = few_rows
        self._contract = contract
        self._has_schema = False
        self._migration: asyncio.Task[None] | None = None
        self._has_begun = False  # whether a bulk load has begun, or can't any more
        self._has_foreign_keys = False
        self._sources = set[str]()  # that load into tables of their own

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
            return batch_id in await loaded_batches(connection, self._contract, [batch_id])

    async def load(self, batch: Batch, ask: Ask) -> int | None:
        """See Warehouse."""
        data = batch.event.data
        wanted = BulkLoad(data.source_name, data.run)
        while True:
            await self.ensure_schema()
            if not self._has_begun:
                await begin(self._transaction, self._contract, wanted)
                self._has_begun = True
            try:
                async with (
                    self._transaction() as connection,
                    log_lock_waits(self._database, connection, batch_id=str(data.batch_id)),
                ):
                    gone, is_bulk = await self._load(connection, batch, ask)
            except BulkLoadInTheWayError:
                await end(self._transaction, self._contract)
                continue
            if is_bulk:
                await end_if_complete(self._transaction, self._contract)
            return gone

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction. If the warehouse proves to have lost a table, a column or a key, the next attempt checks the schema.

        Raises: TransientError.
        """
        async with self._database.transaction() as connection:
            try:
                yield connection
            except _DAMAGED as error:
                self._has_schema = self._has_begun = self._has_foreign_keys = False
                raise TransientError(f"{self._database.name}: {error.args[0]}; the next attempt repairs the schema") from error

    async def _require_own_tables(self, connection: asyncpg.Connection, source_name: str) -> None:
        """Each table has one source: run numbers of two can't be compared, and each comparison would miss the other's rows."""
        if source_name in self._sources:
            return
        other = await other_source(connection, self._contract, source_name)
        if other is not None:
            wanted = "tables of its" if self._contract.sources else "a star of its"
            raise PermanentError(
                f"the warehouse contains the rows of source '{other}'; give source '{source_name}' {wanted} own, or, "
                f"if it is the same one renamed, update {self._contract.own(LEDGER)}, then replay the dead letters"
            )
        self._sources.add(source_name)

    async def _load(self, connection: asyncpg.Connection, batch: Batch, ask: Ask) -> tuple[int | None, bool]:
        """Load a batch; return how many rows were marked as gone, and whether it was copied in a bulk load."""
        data = batch.event.data
        ours, marks = BulkLoad(data.source_name, data.run), bool(batch.gone or batch.rejected)
        # Tombstones need the lock alone: a concurrent load could merge a row that they don't see, and not see them. In its bulk
        # load a run marks nothing before the end.
        alone = marks and await find_bulk_load(connection, self._contract) != ours
        lock = self._contract.own_lock(STAR_LOCK)
        await connection.execute(f"SELECT pg_advisory_xact_lock{'' if alone else '_shared'}($1)", lock)
        bulk = await find_bulk_load(connection, self._contract)
        if bulk != ours and (bulk is not None or alone != marks):
            raise BulkLoadInTheWayError
        await self._require_own_tables(connection, data.source_name)
        ledger = BULK_LEDGER if bulk and data.is_last else LEDGER
        claim = (data.batch_id, data.source_name, data.run, data.index, batch.event.model_dump_json(), data.snapshot.taken_at)
        loaded_at = await connection.fetchval(self._contract.own(_CLAIM_BATCH.format(ledger)), *claim)
        if loaded_at is None:
            return None, bulk is not None
        deletes = Deletes(connection, self._contract, batch)
        if bulk:
            await self._copy(connection, batch, Origin(data.run, data.batch_id, loaded_at))
            await deletes.record()
            await deletes.record_answer()
            gone = 0
        else:
            staged = await stage_batch(connection, self._contract, batch.rows, self._few_rows)
            await deletes.lock_tombstones(staged)
            gone = await deletes.apply(staged, await self._merge(staged, batch), ask)
        await connection.execute(self._contract.own(_CLOSE_BATCH.format(ledger)), data.batch_id)
        return gone, bulk is not None

    async def _copy(self, connection: asyncpg.Connection, batch: Batch, origin: Origin) -> None:
        for table in self._contract.warehouse_tables:
            if table.name not in batch.rows:
                continue
            try:
                await copy_into_star(connection, self._contract, table, batch.rows[table.name], origin)
            except (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError) as error:
                # The end has begun, or a loader of an earlier version has built the keys or added foreign keys.
                raise BulkLoadInTheWayError from error
        await insert_dates(connection, self._contract, batch.rows)  # last, for loads of a new date wait for each other's end

    async def _merge(self, rows: Staged, batch: Batch) -> dict[str, list[str]]:
        """Merge dimension by dimension the real rows and the inferred members, then the facts.

        Returns the keys of the inferred members that are new, by table.
        """
        contract, data, inferred = self._contract, batch.event.data, dict[str, list[str]]()
        staged = [table for table in contract.warehouse_tables if table.name in batch.rows]
        facts = tuple(table for table in staged if isinstance(table, Fact))
        for table in contract.warehouse_tables:
            if table in staged:
                async with unreadable_column_named(rows, table):
                    whole_run = [batch.whole_runs.get(table.name, 0)] if contract.version_of(table) else []
                    await rows.execute(merge_staged(contract, table), data.run, data.batch_id, *whole_run)
                if isinstance(table, Dimension) and table.versions is not None:
                    seen = (data.run, data.batch_id, data.snapshot.taken_at)
                    await rows.execute(add_versions(contract, table, table.versions), *seen)
            inferred[table.name] = await insert_referred(rows, contract, table, facts, staged_by=data.batch_id)
            if batch.hashes is not None and isinstance(table, Dimension) and table.unknown is not None:  # as a repair asks for
                for statement in restore_unknown(contract, table):
                    await rows.connection.execute(statement)
        return inferred

    async def finish_run(self, source_name: str, run: int) -> None:
        """End the bulk load; add missing versions and foreign keys. Every load keeps these true, so adding them can't fail."""
        if self._has_foreign_keys:
            return
        await end_if_complete(self._transaction, self._contract)
        await self._add_missing_versions()
        try:
            self._has_foreign_keys = await self._add_foreign_keys(source_name, run)
        except (TransientError, PermanentError, ServerBusyError) as error:  # the next run tries again
            _log.warning("foreign_keys_wait", reason=str(error))

    async def _add_foreign_keys(self, source_name: str, run: int) -> bool:
        """Unless a batch of the run is missing: first the constraints, beside no load, then the proof that the rows keep them.

        Raises: ServerBusyError when a long load holds the tables.
        """
        async with self._database.transaction() as connection:
            if not await is_complete(connection, self._contract, source_name, run):
                return False
            await connection.execute(f"SET LOCAL lock_timeout = '{FOREIGN_KEYS_LOCK_LIMIT.seconds}s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", self._contract.own_lock(STAR_LOCK))
            await add_foreign_keys(connection, self._contract)
        return await validate_foreign_keys(self._database.transaction, self._contract)

    async def _add_missing_versions(self) -> None:
        """Add what is loaded and was not seen: before the dimension had a history, or by a loader of an earlier build."""
        for table in self._contract.warehouse_tables:
            if isinstance(table, Dimension) and table.versions is not None:
                async with self._database.transaction() as connection:
                    await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", self._contract.own_lock(STAR_LOCK))
                    if await find_bulk_load(connection, self._contract) is not None:  # its end adds them
                        return
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
