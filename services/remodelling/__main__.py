"""Start remodelling: `python -m services.remodelling`."""

from __future__ import annotations

import sys
from functools import partial

from services.remodelling.handler import Dependencies, handle
from services.remodelling.settings import RemodellingSettings
from shared.service import consume, open_world, run_service


async def serve(settings: RemodellingSettings) -> None:
    """Build what batches need, and consume until SIGTERM."""
    async with open_world(settings) as world:
        deps = Dependencies(world.objects, world.require_next_queue(), settings.contract, settings.processed_bucket)
        await consume(settings, world, partial(handle, deps=deps), (settings.landing_bucket, settings.processed_bucket))


if __name__ == "__main__":
    sys.exit(run_service(RemodellingSettings, serve))
