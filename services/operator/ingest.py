"""Asking for a run, and waiting until it is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from contracts.messages import IngestSource, IngestSourceData, Mode, RowsOf, Trigger, encode
from contracts.state import Manifest
from services.operator.progress import highest_run, manifests_after, missing_batches, not_in_ledger, read_progress
from services.operator.system import System
from shared.envelope import opening

POLL = timedelta(milliseconds=200)
SOURCE = "starlift/operator"
DEAD_LETTER_FELL = "a message became a dead letter before the run was loaded; `starlift dlq list` says which, and why"
ASK_STATUS = "look at `starlift status`: are the services up, are messages waiting?"


class RunNotLoadedError(Exception):
    """A run was asked for and is not in the warehouse. Recovery: the text says."""


@dataclass(frozen=True, slots=True)
class Request:
    """A run that was asked for: `after` is the highest run number before it, `dead_letters` how many there were then."""

    command: IngestSource
    after: int
    dead_letters: int


async def request_run(
    system: System,
    mode: Mode = Mode.CHANGES,
    trigger: Trigger = Trigger.OPERATOR,
    *,
    compare_keys: bool = False,
    believe_empty: bool = False,
    reread: tuple[RowsOf, ...] = (),
) -> Request:
    """Put the command into the ingestion queue."""
    settings = system.settings
    after = await highest_run(system.objects, settings.landing_bucket, settings.source_name)
    data = IngestSourceData(
        source_name=settings.source_name,
        mode=mode,
        trigger=trigger,
        compare_keys=compare_keys,
        believe_empty=believe_empty,
        reread=reread,
    )
    request = Request(IngestSource(**opening(SOURCE), data=data), after, await dead_letter_count(system))
    await system.queues["ingestion"].send(encode(request.command))
    return request


async def wait_until_loaded(
    system: System, request: Request, *, limit: timedelta, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Manifest:
    """The manifest of the run, once each of its batches is in the ledger. `on_progress` hears loaded batches of how many.

    Raises: RunNotLoadedError when a message became a dead letter meanwhile, or `limit` is over.
    """
    settings = system.settings
    manifest: Manifest | None = None
    seen = request.after
    try:
        async with asyncio.timeout(limit.total_seconds()):
            async for _ in _looks(system, request.dead_letters):
                if manifest is None:
                    ended = await manifests_after(system.objects, settings.landing_bucket, settings.source_name, seen)
                    manifest = next((one for one in ended if one.requested_by == request.command.id), None)
                    seen = ended[-1].run if ended else seen
                if manifest is not None:
                    missing = await missing_batches(system.warehouse, manifest)
                    on_progress(len(manifest.batches) - len(missing), len(manifest.batches))
                    if not missing:
                        return manifest
    except TimeoutError:
        where = "is read, but not loaded" if manifest else "was not read"
        raise RunNotLoadedError(f"the run {where} after {limit.total_seconds():g} s; {ASK_STATUS}") from None
    raise AssertionError("the looks never end by themselves")


async def wait_until_in_ledger(system: System, batches: list[UUID], *, limit: timedelta, dead_before: int) -> None:
    """Return when each of the batches is loaded.

    Raises: RunNotLoadedError when there are more dead letters than `dead_before`, or `limit` is over.
    """
    try:
        async with asyncio.timeout(limit.total_seconds()):
            async for _ in _looks(system, dead_before):
                if not await not_in_ledger(system.warehouse, batches):
                    return
    except TimeoutError:
        raise RunNotLoadedError(f"not every batch is loaded after {limit.total_seconds():g} s; {ASK_STATUS}") from None


async def _looks(system: System, dead_before: int) -> AsyncIterator[None]:
    """Again and again, until a dead letter falls. Raises: RunNotLoadedError."""
    while True:
        yield
        if await dead_letter_count(system) > dead_before:
            raise RunNotLoadedError(DEAD_LETTER_FELL)
        await asyncio.sleep(POLL.total_seconds())


async def resend_missing(system: System) -> int:
    """Send every batch again that was announced and is not loaded; how many. One still on its way loads once all the same."""
    settings = system.settings
    async with system.warehouse.connection() as warehouse:
        progress = await read_progress(system.objects, settings.landing_bucket, settings.source_name, warehouse)
    batches = (*progress.superseded, *progress.missing)
    for batch in batches:
        await system.queues["remodelling"].send(encode(batch))
    return len(batches)


async def dead_letter_count(system: System) -> int:
    """Dead letters of all three services."""
    depths = await asyncio.gather(*(queue.depth() for queue in system.dead_letters.values()))
    return sum(depth.visible + depth.in_flight for depth in depths)
