"""How the star is migrated to the contract: one transaction per change, none of which waits long for its lock.

A waiting request for an exclusive lock makes every later reader wait behind it. So it is given up after LOCK_LIMIT and repeated
later; in between, readers read and the loaders of the previous build load.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.warehouse import APPLIED_CONTRACT, CREATE_OWN_TABLES, OWN_TABLES
from services.loading.evolution import Change, SchemaNotReadyError, changes
from services.loading.schema import QUERIES
from services.loading.star import read_star
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.ledger import applied_contracts
from shared.lock_waits import LockWait, lock_waits
from shared.postgres import Database
from shared.sql import literal
from shared.warehouse_types import require_types

# An advisory lock: loads share it, a schema change or a key comparison holds it alone. Without it an ALTER TABLE, which
# locks a fact and then its dimension, and a load, which goes the other way, run into a deadlock.
SCHEMA_LOCK = 0x57A2_11F7
LOCK_LIMIT = timedelta(seconds=3)
LOADS_LIMIT = timedelta(seconds=30)  # for loads under way to end: only other loads wait behind them
LOOK_EVERY = timedelta(seconds=1)  # at the holders of a lock

_REFUSED = (
    asyncpg.DependentObjectsStillExistError,
    asyncpg.DuplicateTableError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.NotNullViolationError,
    asyncpg.WrongObjectTypeError,
)

log = structlog.get_logger()


class SchemaLockedError(SchemaNotReadyError):
    """Another session holds a lock. Recovery: wait until that session ends its transaction, or end it."""


async def bring_up_to_date(database: Database, contract: Contract) -> None:
    """Carry out every change that the star needs; if it needs none, nothing is locked.

    Raises: SchemaNotReadyError, DependencyDownError, TransientError, PermanentError.
    """
    while (change := await next_change(database, contract)) is not None:
        await _carry_out(database, contract, change)
        log.info("schema_changed", subject=change.subject)


async def next_change(database: Database, contract: Contract) -> Change | None:
    """The first change that the star needs. Raises: SchemaNotReadyError if any change can't be made."""
    async with database.transaction() as connection, _classed("the schema"):
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT.seconds}s'")
        return await _next_change(connection, contract)


async def _next_change(connection: asyncpg.Connection, contract: Contract) -> Change | None:
    """Find every obstacle before anything is changed."""
    missing = "SELECT bool_or(to_regclass(name) IS NULL) FROM unnest($1::text[]) AS name"
    if await connection.fetchval(missing, OWN_TABLES):
        return Change("schema 'starlift'", (CREATE_OWN_TABLES,))
    await _refuse_second_star(connection, contract)
    await _refuse_foreign_tables(connection, contract)
    try:
        await require_types(connection, contract)
    except PermanentError as error:
        raise SchemaNotReadyError(str(error)) from error
    found = changes(contract, await read_star(connection, contract))
    if found:
        return found[0]
    if (await applied_contracts(connection)).get(contract.name) == contract.fingerprint:
        return None
    values = f"{literal(contract.name)}, {literal(contract.fingerprint)}"
    applied = (
        f"INSERT INTO {APPLIED_CONTRACT} (name, fingerprint) VALUES ({values}) "
        "ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint, applied_at = clock_timestamp()"
    )
    return Change(f"the record of contract '{contract.name}'", (applied,))


async def _carry_out(database: Database, contract: Contract, change: Change) -> None:
    waits: list[LockWait] = []
    try:
        async with (
            database.transaction() as connection,
            _classed(change.subject),
            logged_waits(database, connection, waits, subject=change.subject),
        ):
            await connection.execute(f"SET LOCAL lock_timeout = '{LOADS_LIMIT.seconds}s'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT.seconds}s'")
            if await _next_change(connection, contract) == change:  # otherwise another loader made it first
                for statement in change.statements:
                    await connection.execute(statement)
    except SchemaLockedError as error:
        holders = f"; it is held by {'; '.join(map(str, waits))}" if waits else ""
        raise SchemaLockedError(f"{error}{holders}") from error


@asynccontextmanager
async def _classed(subject: str) -> AsyncIterator[None]:
    """Raises: SchemaNotReadyError, whose text contains names but no values."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise SchemaLockedError(
            f"changing {subject} of the warehouse waits for a lock, and will be tried again until the session that holds "
            "it ends its transaction"
        ) from error
    except asyncpg.UniqueViolationError as error:
        raise SchemaNotReadyError(
            f"{subject} of the warehouse can't be made again while several rows have the same key; keep one of each, that "
            "with the highest _run, delete the others, and the loader goes on by itself"
        ) from error
    except _REFUSED as error:
        detail = f" ({error.detail})" if isinstance(error, asyncpg.DependentObjectsStillExistError) else ""
        raise SchemaNotReadyError(
            f"{subject} of the warehouse can't be changed: {error.args[0]}{detail}; remove the obstacle, and the loader "
            "goes on by itself"
        ) from error


@asynccontextmanager
async def logged_waits(
    database: Database, connection: asyncpg.Connection, waits: list[LockWait], **subject: str
) -> AsyncIterator[None]:
    """Log each holder of a lock that the transaction inside waits for, once; `waits` are those of the last look."""
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    looking = asyncio.create_task(_look(database, pid, waits, subject))
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _look(database: Database, pid: int, waits: list[LockWait], subject: dict[str, str]) -> None:
    logged: set[int] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        try:
            async with database.connection() as connection:
                waits[:] = await lock_waits(connection, pid) or waits
        except (DependencyDownError, TransientError):  # every connection is busy; an outage shows in the session itself
            continue
        for wait in waits:
            if wait.pid not in logged:
                logged.add(wait.pid)
                log.warning("lock_awaited", holder=str(wait), holder_pid=wait.pid, **subject)


async def _refuse_second_star(connection: asyncpg.Connection, contract: Contract) -> None:
    """Tombstones and key comparisons belong to a database's only star. Raises: SchemaNotReadyError."""
    other = next((name for name in await applied_contracts(connection) if name != contract.name), None)
    if other is not None:
        raise SchemaNotReadyError(
            f"the warehouse holds the star of contract '{other}'; give contract '{contract.name}' a database of its own or, if "
            f"it is the same contract renamed, update {APPLIED_CONTRACT}"
        )


async def _refuse_foreign_tables(connection: asyncpg.Connection, contract: Contract) -> None:
    """A table of the same name that Starlift did not make stays untouched. Raises: SchemaNotReadyError."""
    names = [table.name for table in contract.warehouse_tables]
    foreign = await connection.fetch(QUERIES["foreign_tables.sql"], contract.warehouse_schema, names)
    if foreign:
        found = ", ".join(f"'{row['name']}'" for row in foreign)
        raise SchemaNotReadyError(
            f"schema '{contract.warehouse_schema}' of the warehouse has tables that Starlift did not make ({found}); move them "
            "away, or give Starlift an empty database"
        )
