"""One consumer for each source in one process: a source that can't be served does not delay the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

import structlog

from shared.errors import DependencyDownError, PermanentError, TransientError, decisive
from shared.service import World
from shared.settings import ServiceSettings

TRIED_AGAIN_AFTER = timedelta(minutes=1)

_log = structlog.stdlib.get_logger()
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


async def serve_each(
    settings: SettingsT, worlds: Mapping[str, World], serve: Callable[[SettingsT, World], Coroutine[None, None, None]]
) -> None:
    """Serve every source at once. One that can't be served is retried every minute, as long as another one can.

    Raises: PermanentError, TransientError, DependencyDownError of the last one that failed when none can be served.
    """
    failing = set[str]()

    async def keep_serving(name: str, own: SettingsT) -> None:
        together = worlds[name].together
        if len(worlds) > 1:
            structlog.contextvars.bind_contextvars(source=name)
        while not together.stopped.is_set():
            failing.discard(name)
            try:
                await serve(own, worlds[name])
            except (TransientError, PermanentError, DependencyDownError, ExceptionGroup) as error:
                failing.add(name)
                cause = decisive(error)
                if failing == worlds.keys() or not isinstance(cause, TransientError | PermanentError | DependencyDownError):
                    raise
                _log.error("source_failed", error=str(cause))
                with suppress(TimeoutError):
                    async with asyncio.timeout(TRIED_AGAIN_AFTER.total_seconds()):
                        await together.stopped.wait()
            else:
                return

    async with asyncio.TaskGroup() as group:
        for name, own in settings.by_source().items():
            group.create_task(keep_serving(name, own))
