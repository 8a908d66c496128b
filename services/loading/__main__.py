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
from shared.each_source import serve_each
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.postgres import Database
from shared.service import World, consume, open_worlds, run_service
from shared.star_schema.evolution import SCHEMA_DEPENDENCY

_log = structlog.stdlib.get_logger()


async def serve(settings: LoadingSettings) -> None:
    """Build what batches need, and consume until stopped."""
    read_url = partial(
        database_url, "warehouse", url=settings.warehouse_url, secret_id=settings.warehouse_secret, region=settings.region
    )
    connections = settings.slots * len(settings.by_source()) + 1
    pool = Database("warehouse", await read_url(), connections=connections, writes=True, reread=read_url)
    async with open_worlds(settings) as worlds, aclosing(pool) as database:
        warehouse = PostgresWarehouse(database, settings.contract)
        ingestion = {name: world.require_next_queue() for name, world in worlds.items()}
        main = settings.source_name
        deps = Dependencies(worlds[main].objects, warehouse, settings.contract, ingestion[main], ingestion)
        conditions = {SCHEMA_DEPENDENCY: warehouse.ensure_schema}

        async def consume_of_source(own: LoadingSettings, world: World) -> None:
            buckets, databases = (own.processed_bucket,), {"warehouse": database.probe}
            await consume(own, world, partial(handle, deps=deps), buckets, databases, conditions)

        async with asyncio.TaskGroup() as group:
            group.create_task(_check_schema(warehouse))
            comparing = group.create_task(keep_comparing_keys(deps))
            await serve_each(settings, worlds, consume_of_source)
            comparing.cancel()


async def _check_schema(warehouse: PostgresWarehouse) -> None:
    """Log an obstacle before the first batch meets it; batches wait until it is removed."""
    try:
        await warehouse.ensure_schema()
    except (DependencyDownError, TransientError, PermanentError) as error:
        _log.warning("schema_not_ready", reason=str(error))


if __name__ == "__main__":
    sys.exit(run_service(LoadingSettings, serve))
