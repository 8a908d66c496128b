"""Shapes the warehouse as this build's contract says, and ends: `python -m services.loading.migrate`.

A deployment runs it before the first loader of a new build starts. What can't be done is known before anything has changed,
and the loaders of the build before go on meanwhile: to them a new column stays NULL.
"""

from __future__ import annotations

import sys
from contextlib import aclosing

import structlog

from services.loading.settings import LoadingSettings
from services.loading.warehouse import Warehouse
from shared.database_url import database_url
from shared.postgres import Database
from shared.service import run_service

_log = structlog.stdlib.get_logger()


async def migrate(settings: LoadingSettings) -> None:
    """Shape it. Raises: DependencyDownError, TransientError, PermanentError."""
    url = await database_url(
        "warehouse", url=settings.warehouse_url, secret_id=settings.warehouse_secret, region=settings.region
    )
    async with aclosing(Database("warehouse", url, connections=1, writes=True)) as database:
        await Warehouse(database, settings.contract).ensure_schema()
    _log.info("warehouse_shaped", contract=settings.contract.name, fingerprint=settings.contract.fingerprint)


if __name__ == "__main__":
    sys.exit(run_service(LoadingSettings, migrate))
