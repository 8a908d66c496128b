"""Migrate the warehouse's schema to this build's contract and exit: `python -m services.loading.migrate`.

A deployment runs it before the first loader of a new build starts. Obstacles are found before anything is changed, and the
loaders of the previous build keep loading: they leave a new column NULL. `--check` changes nothing; it exits with 1 if objects
of others, or a type that may lose a value, are in the way.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from datetime import timedelta
from functools import partial

import structlog

from contracts.contract import Contract
from services.loading.migration import SchemaLockedError, bring_up_to_date, next_change
from services.loading.settings import LoadingSettings
from shared.database_url import database_url
from shared.postgres import Database
from shared.service import run_service

PATIENCE = timedelta(minutes=10)  # with sessions that hold a lock
PAUSE = timedelta(seconds=10)  # between two attempts, so that others get the lock

_log = structlog.stdlib.get_logger()


async def migrate(settings: LoadingSettings, *, is_check: bool = False, patience: timedelta = PATIENCE) -> None:
    """Change what differs; while another session holds a lock, try again until `patience` ends.

    Raises: SchemaNotReadyError, DependencyDownError, TransientError, PermanentError.
    """
    url = await database_url(
        "warehouse", url=settings.warehouse_url, secret_id=settings.warehouse_secret, region=settings.region
    )
    async with aclosing(Database("warehouse", url, connections=2, writes=True)) as database:
        if is_check:
            await next_change(database, settings.contract)
            return
        deadline = asyncio.get_running_loop().time() + patience.total_seconds()
        while not await _is_up_to_date(database, settings.contract, deadline):  # noqa: ASYNC110 (PostgreSQL has no event for it)
            await asyncio.sleep(PAUSE.total_seconds())
    _log.info("warehouse_shaped", contract=settings.contract.name, fingerprint=settings.contract.fingerprint)


async def _is_up_to_date(database: Database, contract: Contract, deadline: float) -> bool:
    try:
        await bring_up_to_date(database, contract)
    except SchemaLockedError as error:
        if asyncio.get_running_loop().time() >= deadline:
            raise
        _log.warning("schema_not_ready", reason=str(error))
        return False
    return True


if __name__ == "__main__":
    sys.exit(run_service(LoadingSettings, partial(migrate, is_check="--check" in sys.argv[1:])))
