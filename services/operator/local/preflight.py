"""Checks of a person's own databases, made before anything starts, so that a refusal is one sentence and exit code 2."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from contextlib import aclosing, suppress
from datetime import timedelta

import asyncpg
from pydantic import SecretStr

from contracts.contract import Contract
from infra.local.processes import python
from services.operator.errors import UsageError
from shared.catalog import read_source_facts
from shared.errors import PermanentError
from shared.ledger import applied_contracts
from shared.postgres import Database
from shared.warehouse_fit import require_own_tables, require_types

CHECK_LIMIT = timedelta(minutes=2)  # of a process that has to start first
VERSION_MINIMUM = 13  # pg_current_snapshot()


async def require_databases(source_url: str | None, warehouse_url: str | None, contract: Contract) -> None:
    """Check the databases whose URLs were given. Raises: UsageError for one that is refused; DependencyDownError."""
    try:
        if source_url is not None:
            await check_source(source_url, contract)
        if warehouse_url is not None:
            await check_warehouse(warehouse_url, contract)
    except PermanentError as error:
        raise UsageError(str(error)) from error


async def check_source(url: str, contract: Contract) -> None:
    """Check that the source is reachable and new enough, and answers every query that a run begins with.

    Raises: DependencyDownError, PermanentError (SourceMismatchError names table and column).
    """
    async with (
        aclosing(Database("source", SecretStr(url), connections=1)) as database,
        database.transaction(isolation="repeatable_read", readonly=True) as connection,
    ):
        _require_version("source", connection)
        await read_source_facts(connection, contract)


async def check_warehouse(url: str, contract: Contract) -> None:
    """Check that the warehouse is reachable and new enough, that the role may create the star, and that its names are free.

    Raises: DependencyDownError, PermanentError.
    """
    pool = Database("warehouse", SecretStr(url), connections=1)
    async with aclosing(pool) as database, database.transaction(readonly=True) as connection:
        _require_version("warehouse", connection)
        if not await connection.fetchval("SELECT has_database_privilege(current_database(), 'CREATE')"):
            raise PermanentError("the warehouse role may not create schemas; GRANT CREATE ON DATABASE … to it")
        may_create = await connection.fetchval(
            "SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1", contract.warehouse_schema
        )
        if may_create is False:  # None: there is no such schema yet
            raise PermanentError(
                f"the warehouse role may not create tables; GRANT CREATE ON SCHEMA {contract.warehouse_schema} to it"
            )
        if not await connection.fetchval("SELECT has_database_privilege(current_database(), 'TEMPORARY')"):
            raise PermanentError("the warehouse role may not create temporary tables; GRANT TEMPORARY ON DATABASE … to it")
        await require_own_tables(connection, contract)
        await require_types(connection, contract)


async def is_shaped_otherwise(url: str, contract: Contract) -> bool:
    """Whether the warehouse holds a star that does not follow this contract. Raises: DependencyDownError, PermanentError."""
    async with aclosing(Database("warehouse", SecretStr(url), connections=1)) as database, database.connection() as connection:
        known = await applied_contracts(connection)
        return bool(known) and list(known.values()) != [contract.fingerprint]


def require_schema(environment: Mapping[str, str]) -> None:
    """Ask the loader's migration whether the warehouse can follow the contract. Raises: PermanentError with its message."""
    checked = subprocess.run(  # noqa: S603 (our own module)
        python("services.loading.migrate", "--check"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=CHECK_LIMIT.total_seconds(),
    )
    if checked.returncode != 0:
        last = (checked.stdout or checked.stderr).strip().rpartition("\n")[2]
        with suppress(ValueError, KeyError):
            last = json.loads(last)["error"]
        raise PermanentError(last)


def _require_version(name: str, connection: asyncpg.Connection) -> None:
    version = connection.get_server_version()
    if version.major < VERSION_MINIMUM:
        raise PermanentError(f"the {name} is PostgreSQL {version.major}; Starlift needs {VERSION_MINIMUM} or newer")
