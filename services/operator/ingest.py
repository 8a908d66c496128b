"""Asking for a run, and waiting until it and every run before it are loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Mode, RowsOf, Trigger, encode
from contracts.state import Manifest
from services.operator.dead_messages import DeadMessages
from services.operator.errors import NotLoadedError
from services.operator.progress import not_in_ledger, read_progress
from services.operator.system import System
from shared.envelope import opening

POLL = timedelta(milliseconds=200)
LOOK_AROUND = timedelta(seconds=2)  # dead letters and the gaps of earlier runs cost more requests than a look at the ledger
SOURCE = "starlift/operator"
ASK_STATUS = "look at `starlift status`: are the services up, are messages waiting?"


@dataclass(frozen=True, slots=True)
class Request:
    """A run that was asked for; `after` is the highest run number before it."""

    command: IngestSource
    after: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a wait is for: `manifest` is None until the run has been read; `missing` are batches of it and of earlier runs."""

    manifest: Manifest | None = None
    missing: tuple[BatchIngested, ...] = ()

    @property
    def sentence(self) -> str:
        """Which runs are not loaded yet."""
        if self.manifest is None:
            return "the run has not been read yet"
        own = [batch for batch in self.missing if batch.data.run == self.manifest.run]
        earlier = sorted({batch.data.run for batch in self.missing} - {self.manifest.run})
        total = len(self.manifest.batches)
        text = f"run {self.manifest.run}: {total - len(own)} of {total} batches loaded"
        if not earlier:
            return text
        others = f" and {len(earlier) - 1} more" if earlier[1:] else ""
        return f"{text}; before it {len(self.missing) - len(own)} missing, of run {earlier[0]}{others}"


async def request_run(
    system: System,
    mode: Mode = Mode.CHANGES,
    trigger: Trigger = Trigger.OPERATOR,
    *,
    compare_keys: bool = False,
    believe_empty: bool = False,
    reread: tuple[RowsOf, ...] = (),
) -> Request:
    """Send the command for a run to the ingestion queue."""
    after = await system.store.highest_run()
    data = IngestSourceData(
        source_name=system.settings.source_name,
        mode=mode,
        trigger=trigger,
        compare_keys=compare_keys,
        believe_empty=believe_empty,
        reread=reread,
    )
    request = Request(IngestSource(**opening(SOURCE), data=data), after)
    await system.queues["ingestion"].send(encode(request.command))
    return request


async def wait_until_loaded(
    system: System, request: Request, *, limit: timedelta, on_progress: Callable[[Waiting], None] = lambda _: None
) -> Manifest:
    """Wait until the run and every run before it are loaded, so that all commits before the request are; return its manifest.

    Raises: NotLoadedError when the request or a missing batch is a dead letter, or `limit` is over.
    """
    wait = _Wait(system, request)
    try:
        async with asyncio.timeout(limit.total_seconds()):
            async for is_due in _polls():
                manifest = await wait.look(look_around=is_due)
                on_progress(wait.waiting)
                if manifest is not None:
                    return manifest
    except TimeoutError:
        text = f"not loaded after {limit.total_seconds():g} s: {wait.waiting.sentence}; {ASK_STATUS}"
        raise NotLoadedError(text) from None
    raise AssertionError("the polls never end by themselves")


async def wait_until_in_ledger(system: System, batches: list[UUID], *, limit: timedelta) -> None:
    """Return when each of the batches is loaded.

    Raises: NotLoadedError when one of them is a dead letter, or `limit` is over.
    """
    missing, dead = batches, DeadMessages(system)
    try:
        async with asyncio.timeout(limit.total_seconds()):
            async for is_due in _polls():
                missing = await not_in_ledger(system.warehouse, missing)
                if not missing:
                    return
                if is_due:
                    await _require_none(dead, missing)
    except TimeoutError:
        still = f"{len(missing)} of {len(batches)} batches are not loaded after {limit.total_seconds():g} s"
        raise NotLoadedError(f"{still}; {ASK_STATUS}") from None


async def resend_missing(system: System) -> int:
    """Send every batch again that was announced and is not loaded; return how many.

    One that is still on its way is loaded once all the same.
    """
    async with system.warehouse.transaction(readonly=True) as warehouse:
        progress = await read_progress(system.store, warehouse)
    batches = (*progress.superseded, *progress.missing)
    for batch in batches:
        await system.queues["remodelling"].send(encode(batch))
    return len(batches)


async def _polls() -> AsyncIterator[bool]:
    """Yield once every POLL, forever; True, also the first time, when dead letters and earlier runs are due for a look."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        is_due = loop.time() >= due
        if is_due:
            due = loop.time() + LOOK_AROUND.total_seconds()
        yield is_due
        await asyncio.sleep(POLL.total_seconds())


async def _require_none(dead: DeadMessages, wanted: Iterable[UUID]) -> None:
    """Raises: NotLoadedError naming a dead letter that holds one of the messages or batches."""
    for one in (await dead.find(wanted)).values():
        what = "the request for this run" if one.run is None else f"a batch of run {one.run}"
        raise NotLoadedError(
            f"{what} is not loaded: it is dead letter {one.letter} of {one.service}; "
            f"`starlift dlq show {one.letter}` prints why, "
            f"`starlift dlq replay {one.service} --execute` sends it again once the cause is fixed"
        )


class _Wait:
    """One wait for a run; it remembers what it has read, so that a look costs one query of the ledger.

    Runs hold the lease one after the other, so no manifest of an earlier run appears once the run's own is there.
    """

    def __init__(self, system: System, request: Request) -> None:
        self.waiting = Waiting()
        self._system = system
        self._request = request
        self._seen = request.after  # no manifest up to this run is the awaited one
        self._whole_through = 1
        self._dead = DeadMessages(system)

    async def look(self, *, look_around: bool) -> Manifest | None:
        """The manifest when nothing is missing any more. Raises: NotLoadedError."""
        manifest = self.waiting.manifest
        if manifest is None:
            manifest = await self._find_manifest()
            look_around |= manifest is not None
        if manifest is None:
            if look_around:
                await _require_none(self._dead, [self._request.command.id])
            return None
        missing = await (self._gaps(manifest) if look_around else self._still_missing())
        self.waiting = Waiting(manifest, missing)
        if missing and look_around:
            await _require_none(self._dead, [batch.data.batch_id for batch in missing])
        return None if missing else manifest

    async def _find_manifest(self) -> Manifest | None:
        ended = await self._system.store.manifests_after(self._seen)
        self._seen = ended[-1].run if ended else self._seen
        return next((one for one in ended if one.requested_by == self._request.command.id), None)

    async def _gaps(self, manifest: Manifest) -> tuple[BatchIngested, ...]:
        """The missing batches that the run needs; a full run, itself or a later loaded one, makes earlier runs needless."""
        async with self._system.warehouse.transaction(readonly=True) as warehouse:
            progress = await read_progress(self._system.store, warehouse, since=self._whole_through)
        if progress.consistent_through is not None:
            self._whole_through = progress.consistent_through.run
        first = manifest.run if manifest.is_full else 0
        return tuple(batch for batch in progress.missing if first <= batch.data.run <= manifest.run)

    async def _still_missing(self) -> tuple[BatchIngested, ...]:
        missing = {batch.data.batch_id: batch for batch in self.waiting.missing}
        return tuple(missing[one] for one in await not_in_ledger(self._system.warehouse, list(missing)))
