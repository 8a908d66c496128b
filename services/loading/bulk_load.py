"""The first load: rows are copied straight into a star that has no keys yet, which are built at its end.

It is a recorded state of the warehouse (BULK_LOAD), not a guess from what a table holds:

- *It begins* with the first batch of a run N if ledger, tombstones, comparisons and every table of the star are empty. Whoever
  holds the star's lock alone finds that, drops the keys and records run N. Of two loaders the second one finds the record.
- *While it stands*, batches of run N are copied into their tables, and the dates that they refer to are inserted. Nothing is
  staged, deduplicated or merged, and no other reference is looked up. The record cannot change meanwhile, for these loads share
  the star's lock.
- *It ends* when every batch of run N is loaded, or with the first batch of any other run. Whoever holds the lock alone keeps
  one row of each identity, builds the keys, inserts the dates and members that facts refer to and that are missing, and deletes
  the record, in one transaction. From then on every batch is merged, late ones of run N included.
- *Nothing is missing*, usually: the source also has foreign keys. So once every batch is there, the keys and the foreign keys
  are built in a transaction of their own, and the server validates them, two facts at a time. If each reference leads to a
  row, no search for missing rows is needed. The record stands until the transaction after that.

Why the star is the same as if every batch had been merged:

- *Order by runs.* All rows are of run N until the end, when there is one row of each identity. The merge asks for no more.
- *Duplicates.* A run reads disjoint pages of one snapshot, and the ledger's key refuses a batch that is delivered twice. Only a
  replay of the quarantine, a batch that was made again or a run that goes on with the load of another may bring a row once
  more: then the key can't be built, and the row that was loaded last stays, as in a merge of images of one run.
- *References.* A fact may refer to a row that comes later or never. Nothing needs the missing row before the end, when an
  anti-join over all facts inserts it: no other load runs, and every later one keeps its own references true. A valid foreign
  key says that the anti-join would find nothing, now and, since the server checks each row that comes later, at the end.
- *Tombstones* are applied at the end. Those of run N mark rows of runs below N: the members inferred then.
- *Versions* of dimensions with history are what run N has seen: the end takes them from the dimensions.
- *Comparisons* that rows of run N might come too late for are of a later run, whose own batches have ended this state. One of
  run N itself asks about nothing, because the star has no row of an earlier run: where the run is complete, the end of the bulk
  load is its begin and its end.
- *A crash* leaves the record and whole batches, or neither: each step is one transaction. If it is the end that crashes, the
  message comes again, or a loader starts, or `migrate` runs: each looks whether every batch is there, and ends it. A key or a
  foreign key that is there already is not built again; a copy that one of them refuses ends this state and is merged.
- *Readers* see rows of one snapshot, none of them twice, as in any load of several batches. The run is not complete for anyone
  before the end: the ledger gets the row of its last batch then, which waits in BULK_LEDGER.
- *A loader of an earlier version* knows nothing of this. It finds that keys are missing, builds them and merges. A copy that
  then meets a row of another run fails on the key, or on a foreign key; it ends this state and is merged. Where it copies a
  row that a tombstone of a later run is for, the end marks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.tables import Calendar, Dimension, WarehouseTable
from contracts.warehouse import BULK_LEDGER, BULK_LOAD, COMPARISON, LEDGER, STAR_LOCK, TOMBSTONE
from services.loading.deletes import update_deleted_at
from services.loading.foreign_keys import Transaction, add_foreign_keys, validate_foreign_keys
from services.loading.merge import add_missing_versions, delete_duplicates
from services.loading.references import insert_referred
from services.loading.staging import Staged
from shared.ledger import has_every_batch
from shared.sql import quoted
from shared.star_schema.evolution import key_changes
from shared.star_schema.schema import key_constraints, relation
from shared.star_schema.star import FoundStar, read_star

LOADS_LIMIT = timedelta(seconds=30)  # for loads under way to end
READERS_LIMIT = timedelta(seconds=3)  # for readers to release a table: every later reader waits behind a request for it

_INDEX, _CONSTRAINT = "CREATE UNIQUE INDEX", "ALTER TABLE"  # of a missing key first the index, then its constraint
_NOT_NOW = (
    asyncpg.DependentObjectsStillExistError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,  # with a reader that holds one table and waits for another
)
_OWN_TABLES_ARE_EMPTY = " AND ".join(
    f"NOT EXISTS (SELECT FROM {table})" for table in (LEDGER, BULK_LEDGER, TOMBSTONE, COMPARISON)
)
# COPY refuses tables with row security, and a published table needs its key to delete a row.
_ARE_PLAIN = """
SELECT
    count(*) = cardinality($2::text[])
    AND NOT EXISTS (SELECT FROM pg_publication_tables AS p WHERE p.schemaname = $1 AND p.tablename = ANY ($2))
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2) AND c.relkind = 'r' AND NOT c.relrowsecurity
"""
_RECORD = f"INSERT INTO {BULK_LOAD} (source_name, run) VALUES ($1, $2)"
_MOVE_TO_LEDGER = f"""
WITH moved AS (DELETE FROM {BULK_LEDGER} RETURNING *)
INSERT INTO {LEDGER} (batch_id, source_name, run, batch_index, event, snapshot_at)
SELECT batch_id, source_name, run, batch_index, event, snapshot_at FROM moved
ON CONFLICT (batch_id) DO NOTHING
"""
_END_COMPARISONS = f"""
UPDATE {COMPARISON} SET begun_at = clock_timestamp(), ended_at = clock_timestamp(), hashes = NULL
WHERE source_name = $1 AND run = $2 AND begun_at IS NULL
"""

_log = structlog.stdlib.get_logger()


class BulkLoadInTheWayError(Exception):
    """A bulk load stands that the batch is not part of, or has just ended. Recovery: end it, and load the batch again."""


@dataclass(frozen=True, slots=True)
class BulkLoad:
    """The record of a bulk load."""

    source_name: str
    run: int


async def find_bulk_load(connection: asyncpg.Connection, contract: Contract) -> BulkLoad | None:
    """The bulk load that stands."""
    row = await connection.fetchrow(f"SELECT source_name, run FROM {contract.own(BULK_LOAD)}")
    return None if row is None else BulkLoad(*row)


async def begin(transaction: Transaction, contract: Contract, wanted: BulkLoad) -> None:
    """Begin a bulk load if the warehouse is empty; where something is in the way, the run is merged like any other.

    A delivery of a data set with a version may have several versions of a row, and readers would see all of them.
    """
    own = (table for table in contract.remodelled_tables if contract.source_of(table) in {None, wanted.source_name})
    if any(contract.version_of(table) for table in own):
        return
    # In a transaction of its own, and without a look at the star: to hold a table and wait for the star's lock, or for a table
    # that another loader's begin holds, would be a deadlock.
    async with transaction() as connection:
        if not await _is_unused(connection, contract, wanted):
            return
    async with transaction() as connection:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOADS_LIMIT.seconds}s'")
                await connection.execute("SELECT pg_advisory_xact_lock($1)", contract.own_lock(STAR_LOCK))
                await connection.execute(f"SET LOCAL lock_timeout = '{READERS_LIMIT.seconds}s'")
                if not (await _is_unused(connection, contract, wanted) and await _is_empty(connection, contract)):
                    return
                for statement in _drop_keys(contract, await read_star(connection, contract)):
                    await connection.execute(statement)
                await connection.execute(f"DELETE FROM {contract.own(BULK_LOAD)}")
                await connection.execute(contract.own(_RECORD), wanted.source_name, wanted.run)
        except _NOT_NOW as error:
            _log.warning("bulk_load_not_begun", run=wanted.run, reason=str(error.args[0]))


async def _is_unused(connection: asyncpg.Connection, contract: Contract, wanted: BulkLoad) -> bool:
    """Whether no batch was ever loaded. A record may be there: of a loader that crashed before it loaded one."""
    are_empty = await connection.fetchval(contract.own(f"SELECT {_OWN_TABLES_ARE_EMPTY}"))
    return bool(are_empty) and await find_bulk_load(connection, contract) != wanted


async def _is_empty(connection: asyncpg.Connection, contract: Contract) -> bool:
    """Whether the star is made of plain tables without a row."""
    names = [table.name for table in contract.warehouse_tables]
    if not await connection.fetchval(_ARE_PLAIN, contract.warehouse_schema, names):
        return False
    tables = (f"NOT EXISTS (SELECT FROM {relation(contract, table)})" for table in contract.stored_tables)
    return bool(await connection.fetchval(f"SELECT {' AND '.join(tables)}"))


def _drop_keys(contract: Contract, star: FoundStar) -> Iterator[str]:
    """Statements that drop the keys and foreign keys of Starlift. Those of others stay, and those of calendars: see copying."""
    for foreign in star.foreign_keys:
        yield f"ALTER TABLE {quoted(contract.warehouse_schema, foreign.table)} DROP CONSTRAINT {quoted(foreign.name)}"
    for table in contract.warehouse_tables:
        names = set() if isinstance(table, Calendar) else {key.name for key in key_constraints(table)}
        for index in star.indexes[table.name]:
            if index.name in names and index.is_constraint:
                yield f"ALTER TABLE {relation(contract, table)} DROP CONSTRAINT {quoted(index.name)}"
            elif index.name in names:
                yield f"DROP INDEX {quoted(contract.warehouse_schema, index.name)}"


async def end_if_complete(transaction: Transaction, contract: Contract) -> None:
    """End the bulk load that stands if every batch of its run is loaded.

    Raises: ServerBusyError while others hold the star or one of its tables.
    """
    async with transaction() as connection:
        found = await find_bulk_load(connection, contract)
        if found is None or not await has_every_batch(connection, contract, found.source_name, found.run):
            return
    await end(transaction, contract)


async def end(transaction: Transaction, contract: Contract) -> None:
    """End the recorded bulk load. Raises: ServerBusyError while others hold the star or its tables."""
    is_whole = await _has_true_references(transaction, contract)
    async with transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", contract.own_lock(STAR_LOCK))
        found = await find_bulk_load(connection, contract)
        if found is None:  # another loader has ended it
            return
        await connection.execute(f"SET LOCAL lock_timeout = '{READERS_LIMIT.seconds}s'")
        await connection.execute(f"DELETE FROM {contract.own(BULK_LOAD)}")
        await _build_keys(connection, contract)
        for table in () if is_whole else contract.warehouse_tables:
            await insert_referred(Staged(connection), contract, table, contract.facts)
        for table in contract.remodelled_tables:
            await connection.execute(update_deleted_at(contract, table, every_key=True))
        if await has_every_batch(connection, contract, found.source_name, found.run):
            await connection.execute(contract.own(_END_COMPARISONS), found.source_name, found.run)
        await connection.execute(contract.own(_MOVE_TO_LEDGER))
        for table in contract.warehouse_tables:
            if isinstance(table, Dimension) and table.versions is not None:
                await connection.execute(add_missing_versions(contract, table, table.versions))
        await _add_key_constraints(connection, contract)  # last, for from here until the commit readers wait
    _log.info("bulk_load_ended", run=found.run)


async def _has_true_references(transaction: Transaction, contract: Contract) -> bool:
    """If every batch is loaded, build the keys and the foreign keys; return whether each reference leads to a row."""
    async with transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", contract.own_lock(STAR_LOCK))
        found = await find_bulk_load(connection, contract)
        if found is None or not await has_every_batch(connection, contract, found.source_name, found.run):
            return False
        await connection.execute(f"SET LOCAL lock_timeout = '{READERS_LIMIT.seconds}s'")
        await _build_keys(connection, contract)
        await add_foreign_keys(connection, contract)
    return await validate_foreign_keys(transaction, contract)


async def _build_keys(connection: asyncpg.Connection, contract: Contract) -> None:
    """Build the indexes of the missing keys, which merges and foreign keys need; readers keep reading."""
    for table, statement in await _missing_keys(connection, contract, _INDEX):
        try:
            async with connection.transaction():
                await connection.execute(statement)
        except asyncpg.UniqueViolationError:
            await connection.execute(delete_duplicates(contract, table))
            await connection.execute(statement)


async def _add_key_constraints(connection: asyncpg.Connection, contract: Contract) -> None:
    """Make constraints of the indexes. If readers don't release a table, its constraint comes when a loader starts."""
    for table, statement in await _missing_keys(connection, contract, _CONSTRAINT):
        try:
            async with connection.transaction():
                await connection.execute(statement)
        except asyncpg.LockNotAvailableError:
            _log.warning("key_constraint_waits", table=table.name)


async def _missing_keys(
    connection: asyncpg.Connection, contract: Contract, first_words: str
) -> list[tuple[WarehouseTable, str]]:
    """The statements with these first words for the keys that are missing, although the bulk load may still stand."""
    star = replace(await read_star(connection, contract), is_bulk_loading=False)
    return [
        (table, statement)
        for table in contract.warehouse_tables
        for change in key_changes(contract, table, star)
        for statement in change.statements
        if statement.startswith(first_words)
    ]
