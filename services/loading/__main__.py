"""Starts loading: `python -m services.loading`."""

from __future__ import annotations

import sys
from contextlib import aclosing
from functools import partial

from services.loading.handler import Dependencies, handle
from services.loading.settings import LoadingSettings
from services.loading.warehouse import Warehouse
from shared.database_url import database_url
from shared.postgres import Database
from shared.service import consume, open_world, run_service


async def serve(settings: LoadingSettings) -> None:
    """Build what batches need, and consume until told to stop."""
    url = await database_url(
        "warehouse", url=settings.warehouse_url, secret_id=settings.warehouse_secret, region=settings.region
    )
    pool = Database("warehouse", url, connections=settings.slots + 1, writes=True)
    async with open_world(settings) as world, aclosing(pool) as database:
        deps = Dependencies(world.objects, Warehouse(database, settings.contract), settings.contract)
        buckets = (settings.processed_bucket,)
        await consume(settings, world, partial(handle, deps=deps), buckets, {"warehouse": database.probe})


if __name__ == "__main__":
    sys.exit(run_service(LoadingSettings, serve))
