"""Asking for a run, and waiting until it and every run before it are loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Mode, RowsOf, Trigger, encode
from contracts.state import Manifest
from services.operator.dlq.hold import holding
from services.operator.dlq.letters import read_letter
from services.operator.errors import NotLoadedError
from services.operator.progress import not_in_ledger, read_progress
from services.operator.system import System
from shared.envelope import opening

POLL = timedelta(milliseconds=200)
LOOK_AROUND = timedelta(seconds=2)  # dead letters and the gaps of earlier runs cost more requests than a look at the ledger
SOURCE = "starlift/operator"
_Fallen = tuple[str, int | None]  # the id of a dead letter, and the run that its message belongs to
ASK_STATUS = "look at `starlift status`: are the services up, are messages waiting?"


class RunNotLoadedError(NotLoadedError):
    """A run was asked for and is not in the warehouse. Recovery: the text says."""


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
    """Put the command into the ingestion queue."""
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

    Raises: RunNotLoadedError when a dead letter holds the request or a missing batch, or `limit` is over.
    """
    wait = _Wait(system, request)
    try:
        async with asyncio.timeout(limit.total_seconds()):
            async for is_time in _polls():
                manifest = await wait.look(look_around=is_time)
                on_progress(wait.waiting)
                if manifest is not None:
                    return manifest
    except TimeoutError:
        raise RunNotLoadedError(
            f"not loaded after {limit.total_seconds():g} s: {wait.waiting.sentence}; {ASK_STATUS}"
        ) from None
    raise AssertionError("the polls never end by themselves")


async def wait_until_in_ledger(system: System, batches: list[UUID], *, limit: timedelta) -> None:
    """Return when each of the batches is loaded.

    Raises: RunNotLoadedError when a dead letter holds one of them, or `limit` is over.
    """
    missing, dead_letters = batches, _DeadLetters(system)
    try:
        async with asyncio.timeout(limit.total_seconds()):
            async for is_time in _polls():
                missing = await not_in_ledger(system.warehouse, missing)
                if not missing:
                    return
                if is_time:
                    await dead_letters.require_none_of(missing)
    except TimeoutError:
        still = f"{len(missing)} of {len(batches)} batches are not loaded after {limit.total_seconds():g} s"
        raise RunNotLoadedError(f"{still}; {ASK_STATUS}") from None


async def resend_missing(system: System) -> int:
    """Send every batch again that was announced and is not loaded; how many. One still on its way loads once all the same."""
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
        is_time = loop.time() >= due
        if is_time:
            due = loop.time() + LOOK_AROUND.total_seconds()
        yield is_time
        await asyncio.sleep(POLL.total_seconds())


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
        self._dead_letters = _DeadLetters(system)

    async def look(self, *, look_around: bool) -> Manifest | None:
        """The manifest when nothing is missing any more. Raises: RunNotLoadedError."""
        manifest = self.waiting.manifest
        if manifest is None:
            manifest = await self._find_manifest()
            look_around |= manifest is not None
        if manifest is None:
            if look_around:
                await self._dead_letters.require_none_of([self._request.command.id])
            return None
        missing = await (self._gaps(manifest) if look_around else self._still_missing())
        self.waiting = Waiting(manifest, missing)
        if missing and look_around:
            await self._dead_letters.require_none_of(batch.data.batch_id for batch in missing)
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


class _DeadLetters:
    """What the dead-letter queues hold. A queue is read again when its count has changed or others held letters."""

    def __init__(self, system: System) -> None:
        self._queues = system.dead_letters
        self._counts: dict[str, int] = {}
        self._letters: dict[str, dict[str, _Fallen]] = {}  # by service, then by the id of the message and by that of its batch

    async def require_none_of(self, wanted: Iterable[UUID]) -> None:
        """Raises: RunNotLoadedError naming a dead letter that holds a message, or a batch, with one of these ids."""
        ids = {str(one) for one in wanted}
        for service in self._queues:
            await self._read(service)
            for name in ids & self._letters[service].keys():
                letter, run = self._letters[service][name]
                what = "the request for this run" if run is None else f"a batch of run {run}"
                raise RunNotLoadedError(
                    f"{what} is not loaded: it is dead letter {letter} of {service}; `starlift dlq show {letter}` prints why, "
                    f"`starlift dlq replay {service}` sends it again once the cause is fixed"
                )

    async def _read(self, service: str) -> None:
        queue = self._queues[service]
        depth = await queue.depth()
        count = depth.visible + depth.in_flight
        if count == self._counts.get(service):
            return
        letters: dict[str, _Fallen] = {}
        if count:
            async with holding(queue) as hold:
                async for delivery in hold.letters():
                    letter = read_letter(service, delivery)
                    names = (letter.event_id, letter.data.get("batch_id"))
                    letters |= {name: (letter.id, letter.run) for name in names if isinstance(name, str)}
            count = -1 if hold.elsewhere else count
        self._counts[service], self._letters[service] = count, letters
