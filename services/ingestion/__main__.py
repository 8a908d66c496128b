"""Start ingestion: `python -m services.ingestion`."""

from __future__ import annotations

import sys
from contextlib import aclosing
from functools import partial

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
    read_url = partial(
        database_url, "source", url=settings.source_url, secret_id=settings.source_secret, region=settings.region
    )
    pool = Database("source", await read_url(), connections=settings.slots + SHARED_SLOTS + 1, reread=read_url)
    async with aclosing(pool) as database:
        deps = Dependencies(
            source=PostgresSource(database, settings.contract.part(settings.source_name)),
            store=SourceStore(world.objects, settings.source_name, settings.landing_bucket, settings.processed_bucket),
            remodelling=world.require_next_queue(),
            limits=BatchLimits(rows=settings.batch_rows),
            chunks=world.shared,
            compare_keys_every=settings.compare_keys_every,
        )
        own, share = partial(handle, deps=deps), partial(handle_chunk, deps=deps)
        await consume(settings, world, own, (settings.landing_bucket,), {"source": database.probe}, share=share)


if __name__ == "__main__":
    sys.exit(run_service(IngestionSettings, serve))
