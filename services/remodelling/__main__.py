"""Start remodelling: `python -m services.remodelling`."""

from __future__ import annotations

import sys
from functools import partial

from services.remodelling.handler import Dependencies, handle
from services.remodelling.settings import RemodellingSettings
from shared.each_source import serve_each
from shared.service import World, consume, open_worlds, run_service


async def serve(settings: RemodellingSettings) -> None:
    """Build what batches need, and consume until SIGTERM."""
    async with open_worlds(settings) as worlds:
        await serve_each(settings, worlds, _serve)


async def _serve(settings: RemodellingSettings, world: World) -> None:
    deps = Dependencies(world.objects, world.require_next_queue(), settings.contract, settings.processed_bucket)
    await consume(settings, world, partial(handle, deps=deps), (settings.landing_bucket, settings.processed_bucket))


if __name__ == "__main__":
    sys.exit(run_service(RemodellingSettings, serve))
