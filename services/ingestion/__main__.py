"""Start ingestion: `python -m services.ingestion`."""

from __future__ import annotations

import sys
from contextlib import aclosing
from functools import partial

from yarl import URL

from services.ingestion.api.client import Client
from services.ingestion.api.credentials import secrets_below
from services.ingestion.api.deliveries import ApiDeliveries
from services.ingestion.delivered_source import DeliveredSource
from services.ingestion.dropzone import DropZone
from services.ingestion.handler import Dependencies, handle, handle_chunk
from services.ingestion.postgres_source import PostgresSource
from services.ingestion.settings import IngestionSettings
from services.ingestion.source import BatchLimits
from shared.database_url import database_url
from shared.each_source import serve_each
from shared.postgres import Database
from shared.service import SHARED_SLOTS, World, consume, open_worlds, run_service
from shared.source_store import SourceStore


async def serve(settings: IngestionSettings) -> None:
    """Build what runs need, and consume until SIGTERM."""
    async with open_worlds(settings) as worlds:
        await serve_each(settings, worlds, _serve)


async def _serve(settings: IngestionSettings, world: World) -> None:
    if settings.contract.is_delivered(settings.source_name):
        await _serve_deliveries(settings, world)
    else:
        await _serve_database(settings, world)


async def _serve_deliveries(settings: IngestionSettings, world: World) -> None:
    contract, store = settings.contract.part(settings.source_name), _store(settings, world)
    deliveries: DropZone | ApiDeliveries = DropZone(world.objects, settings.landing_bucket, contract.source_tables)
    if any(table.dataset is not None and table.dataset.request is not None for table in contract.source_tables):
        proxy = settings.api_proxy.get_secret_value() if settings.api_proxy else None
        secret = secrets_below(settings.api_secrets, settings.region)

        def client(origin: URL, requests_per_minute: int) -> Client:
            return Client(origin, settings.api_allow, requests_per_minute, proxy)

        deliveries = ApiDeliveries(contract.source_tables, client, secret, world.objects, settings.landing_bucket)
    deps = Dependencies(
        source=DeliveredSource(contract, deliveries, store),
        store=store,
        remodelling=world.require_next_queue(),
        limits=BatchLimits(rows=settings.batch_rows),
    )
    probes = {"api": deliveries.probe} if isinstance(deliveries, ApiDeliveries) else {}
    await consume(settings, world, partial(handle, deps=deps), (settings.landing_bucket,), probes)


async def _serve_database(settings: IngestionSettings, world: World) -> None:
    read_url = partial(
        database_url, "source", url=settings.source_url, secret_id=settings.source_secret, region=settings.region
    )
    pool = Database("source", await read_url(), connections=settings.slots + SHARED_SLOTS + 1, reread=read_url)
    async with aclosing(pool) as database:
        deps = Dependencies(
            source=PostgresSource(database, settings.contract.part(settings.source_name)),
            store=_store(settings, world),
            remodelling=world.require_next_queue(),
            limits=BatchLimits(rows=settings.batch_rows),
            chunks=world.shared,
            compare_keys_every=settings.compare_keys_every,
        )
        own, share = partial(handle, deps=deps), partial(handle_chunk, deps=deps)
        await consume(settings, world, own, (settings.landing_bucket,), {"source": database.probe}, share=share)


def _store(settings: IngestionSettings, world: World) -> SourceStore:
    return SourceStore(world.objects, settings.source_name, settings.landing_bucket, settings.processed_bucket)


if __name__ == "__main__":
    sys.exit(run_service(IngestionSettings, serve))
