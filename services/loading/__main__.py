"""Start loading: `python -m services.loading`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from functools import partial

import structlog

from services.loading.handler import Dependencies, handle, keep_comparing_keys
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.settings import LoadingSettings
from shared.database_url import database_url
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.postgres import Database
from shared.service import consume, open_world, run_service
from shared.star_schema.evolution import SCHEMA_DEPENDENCY

_log = structlog.stdlib.get_logger()


async def serve(settings: LoadingSettings) -> None:
    """Build what batches need, and consume until stopped."""
    read_url = partial(
        database_url, "warehouse", url=settings.warehouse_url, secret_id=settings.warehouse_secret, region=settings.region
    )
    pool = Database("warehouse", await read_url(), connections=settings.slots + 1, writes=True, reread=read_url)
    async with open_world(settings) as world, aclosing(pool) as database:
        warehouse = PostgresWarehouse(database, settings.contract)
        deps = Dependencies(world.objects, warehouse, settings.contract, world.require_next_queue())
        buckets = (settings.processed_bucket,)
        conditions = {SCHEMA_DEPENDENCY: warehouse.ensure_schema}
        async with asyncio.TaskGroup() as group:
            group.create_task(_check_schema(warehouse))
            comparing = group.create_task(keep_comparing_keys(deps))
            await consume(settings, world, partial(handle, deps=deps), buckets, {"warehouse": database.probe}, conditions)
            comparing.cancel()


async def _check_schema(warehouse: PostgresWarehouse) -> None:
    """Log an obstacle before the first batch meets it; batches wait until it is removed."""
    try:
        await warehouse.ensure_schema()
    except (DependencyDownError, TransientError, PermanentError) as error:
        _log.warning("schema_not_ready", reason=str(error))


if __name__ == "__main__":
    sys.exit(run_service(LoadingSettings, serve))
