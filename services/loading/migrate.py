"""Migrate the warehouse's schema to this build's contract: one transaction per change, none of which waits long for its lock.

`python -m services.loading.migrate` migrates and exits. A deployment runs it before the first loader of a new build starts; the
loaders of the previous build keep loading and leave a new column NULL. With `--check` it changes nothing, and exits with 1 if
objects of others, or a type that may lose a value, are in the way. Loaders also migrate, when they start.

A waiting request for an exclusive lock makes every later reader wait behind it. So it is given up after LOCK_LIMIT and repeated
later; in between, readers read and loaders load.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial

import asyncpg
import structlog

from contracts.contract import Contract
from contracts.warehouse import APPLIED_CONTRACT, STAR_LOCK
from services.loading.bulk_load import end_if_complete
from services.loading.settings import LoadingSettings
from shared.database_url import database_url
from shared.ledger import applied_contracts
from shared.lock_waits import LockWait, log_lock_waits
from shared.postgres import Database
from shared.service import run_service
from shared.sql import literal
from shared.star_schema.evolution import Change, SchemaNotReadyError, changes
from shared.star_schema.own_tables import own_changes
from shared.star_schema.star import read_star
from shared.warehouse_fit import missing_types, names_taken

LOCK_LIMIT = timedelta(seconds=3)
LOADS_LIMIT = timedelta(seconds=30)  # for loads under way to end: only other loads wait behind them
PATIENCE = timedelta(minutes=10)  # of the command, while another session holds a lock
PAUSE = timedelta(seconds=10)  # between two attempts of the command, so that others get the lock

_REFUSED = (
    asyncpg.DependentObjectsStillExistError,
    asyncpg.DuplicateTableError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.NotNullViolationError,
    asyncpg.WrongObjectTypeError,
)

_log = structlog.stdlib.get_logger()


class SchemaLockedError(SchemaNotReadyError):
    """Another session holds a lock. Recovery: wait until that session ends its transaction, or end it."""


async def migrate(settings: LoadingSettings, *, is_check: bool = False) -> None:
    """Change what differs; while another session holds a lock, try again for PATIENCE. With `is_check`, change nothing.

    Raises: SchemaNotReadyError, DependencyDownError, TransientError, PermanentError.
    """
    contract = settings.contract
    url = await database_url(
        "warehouse", url=settings.warehouse_url, secret_id=settings.warehouse_secret, region=settings.region
    )
    async with aclosing(Database("warehouse", url, connections=2, writes=True)) as database:
        if is_check:
            await next_change(database, contract)
            return
        deadline = asyncio.get_running_loop().time() + PATIENCE.total_seconds()
        while True:
            try:
                await migrate_schema(database, contract)
                break
            except SchemaLockedError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
                _log.warning("schema_not_ready", reason=str(error))
            await asyncio.sleep(PAUSE.total_seconds())
    _log.info("warehouse_migrated", contract=contract.name, fingerprint=contract.fingerprint)


async def migrate_schema(database: Database, contract: Contract) -> None:
    """Carry out every change that the star needs; if it needs none, nothing is locked.

    Raises: SchemaNotReadyError, DependencyDownError, TransientError, PermanentError.
    """
    while (change := await next_change(database, contract)) is not None:
        await _carry_out(database, contract, change)
        _log.info("schema_changed", subject=change.subject)
    await end_if_complete(database.transaction, contract)  # a loader may have crashed before


async def next_change(database: Database, contract: Contract) -> Change | None:
    """The first change that the star needs. Raises: SchemaNotReadyError if any change can't be made."""
    async with database.transaction() as connection, _classed_errors("the schema"):
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT.seconds}s'")
        return await _next_change(connection, contract)


async def _next_change(connection: asyncpg.Connection, contract: Contract) -> Change | None:
    """Find every obstacle before anything is changed."""
    if own := await own_changes(connection, contract):
        return own[0]
    applied = await applied_contracts(connection, contract)
    problems = [
        *await names_taken(connection, contract, applied),
        *await missing_types(connection, contract),
    ]
    if problems:
        raise SchemaNotReadyError("; ".join(problems))
    found = changes(contract, await read_star(connection, contract))
    if found:
        return found[0]
    if applied.get(contract.name) == contract.fingerprint:
        return None
    record = (
        f"INSERT INTO {contract.own(APPLIED_CONTRACT)} (name, fingerprint) "
        f"VALUES ({literal(contract.name)}, {literal(contract.fingerprint)}) "
        "ON CONFLICT (name) DO UPDATE SET fingerprint = excluded.fingerprint, applied_at = clock_timestamp()"
    )
    return Change(f"the record of contract '{contract.name}'", (record,))


async def _carry_out(database: Database, contract: Contract, change: Change) -> None:
    async with (
        database.transaction() as connection,
        log_lock_waits(database, connection, subject=change.subject) as waits,
        _classed_errors(change.subject, waits),
    ):
        await connection.execute(f"SET LOCAL lock_timeout = '{LOADS_LIMIT.seconds}s'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", contract.own_lock(STAR_LOCK))
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_LIMIT.seconds}s'")
        if await _next_change(connection, contract) == change:  # otherwise another loader made it first
            for statement in change.statements:
                await connection.execute(statement)


@asynccontextmanager
async def _classed_errors(subject: str, waits: Sequence[LockWait] = ()) -> AsyncIterator[None]:
    """Raises: SchemaNotReadyError, whose text contains names but no values. That of a lock names its holders in `waits`."""
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        holders = f"; it is held by {'; '.join(map(str, waits))}" if waits else ""
        raise SchemaLockedError(
            f"changing {subject} of the warehouse waits for a lock, and will be tried again until the session that holds "
            f"it ends its transaction{holders}"
        ) from error
    except asyncpg.UniqueViolationError as error:
        raise SchemaNotReadyError(
            f"{subject} of the warehouse can't be created again while several rows have the same key; for each key, keep the "
            "row with the highest _run and delete the others; the loader then continues by itself"
        ) from error
    except _REFUSED as error:
        detail = f" ({error.detail})" if isinstance(error, asyncpg.DependentObjectsStillExistError) else ""
        raise SchemaNotReadyError(
            f"{subject} of the warehouse can't be changed: {error.args[0]}{detail}; remove the obstacle, and the loader "
            "continues by itself"
        ) from error


if __name__ == "__main__":
    sys.exit(run_service(LoadingSettings, partial(migrate, is_check="--check" in sys.argv[1:])))
