"""Asking for a run, and waiting until it and every run before it are loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Mode, RowsOf, Trigger, encode
from contracts.state import Manifest
from services.operator.errors import NotLoadedError
from services.operator.progress import DeadMessages, dead_questions, not_in_ledger, read_progress
from services.operator.system import System
from shared.clock import pause
from shared.envelope import opening
from shared.ledger import last_comparisons, open_questions

LOOK_AROUND = timedelta(seconds=2)  # dead letters and the gaps of earlier runs cost more requests than a look at the ledger
SOURCE = "starlift/operator"

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class Request:
    """A run that was asked for; `after` is the highest run number before it."""

    command: IngestSource
    after: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a wait is for: `manifest` is None until the run has been read; `missing` are batches of it and of earlier runs.

    If the command took several runs, one for each delivery, the manifest is that of the last one with the batches of all.

    `unanswered` are the warehouse tables whose keys the run compares, and of which rows may be gone that are not marked yet.
    """

    manifest: Manifest | None = None
    missing: tuple[BatchIngested, ...] = ()
    unanswered: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Which runs are not loaded yet."""
        if self.manifest is None:
            return "the run has not been read yet"
        runs = {self.manifest.run, *(batch.data.run for batch in self.manifest.batches)}
        own = [batch for batch in self.missing if batch.data.run in runs]
        earlier = sorted({batch.data.run for batch in self.missing} - runs)
        total = len(self.manifest.batches)
        text = f"run {self.manifest.run}: {total - len(own)} of {total} batches loaded"
        if not self.missing and self.unanswered:
            return f"{text}; rows of {', '.join(self.unanswered)} are looked up at the source"
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

    Of a run that compares keys the rows that are gone are marked by then.

    Raises: NotLoadedError when the request or a missing batch is a dead letter, or `limit` is over.
    """
    wait = _Wait(system, request, on_progress)
    after = f"not loaded after {limit.total_seconds():g} s"
    return await _until(wait.loaded, wait.look_around, limit, lambda: f"{after}: {wait.waiting.sentence}")


async def wait_until_in_ledger(system: System, batches: list[UUID], *, limit: timedelta) -> None:
    """Return when each of the batches is loaded.

    Raises: NotLoadedError when one of them is a dead letter, or `limit` is over.
    """
    missing, dead = batches, DeadMessages(system)

    async def loaded() -> list[UUID] | None:
        nonlocal missing
        missing = await not_in_ledger(system, missing)
        return None if missing else batches

    late = f"of {len(batches)} batches are not loaded after {limit.total_seconds():g} s"
    await _until(loaded, lambda: dead.require_none(missing), limit, lambda: f"{len(missing)} {late}")


async def resend_missing(system: System) -> int:
    """Send every batch again that was announced and is not loaded; return how many.

    One that is still on its way is loaded once all the same.
    """
    async with system.warehouse.transaction(readonly=True) as warehouse:
        progress = await read_progress(system, warehouse)
    batches = (*progress.superseded, *progress.missing)
    for batch in batches:
        await system.queues["remodelling"].send(encode(batch))
    return len(batches)


async def _until(
    loaded: Callable[[], Awaitable[Loaded | None]],
    look_around: Callable[[], Awaitable[None]],
    limit: timedelta,
    late: Callable[[], str],
) -> Loaded:
    """Call `loaded` until it returns something, with a `pause`; call `look_around` after the first call, and now and then.

    Raises: NotLoadedError with the sentence `late` when `limit` is over; what `look_around` raises.
    """
    clock = asyncio.get_running_loop().time
    began = due = clock()
    try:
        async with asyncio.timeout(limit.total_seconds()):
            while (found := await loaded()) is None:
                if clock() >= due:
                    due = clock() + max(LOOK_AROUND, 5 * pause(clock() - began)).total_seconds()
                    await look_around()
                await asyncio.sleep(pause(clock() - began).total_seconds())
            return found
    except TimeoutError:
        raise NotLoadedError(f"{late()}; check `starlift status` for stopped services and waiting messages") from None


class _Wait:
    """One wait for a run; it remembers what it has read, so that a look costs one query of the ledger.

    Runs hold the lease one after the other, so no manifest of an earlier run appears once the run's own is there.
    """

    def __init__(self, system: System, request: Request, on_progress: Callable[[Waiting], None]) -> None:
        self.waiting = Waiting()
        self._system = system
        self._request = request
        self._on_progress = on_progress
        self._seen = request.after  # no manifest up to this run is the awaited one
        self._batches = list[BatchIngested]()  # of the runs of the command that another one follows
        self._whole_through = 1
        self._is_new = False  # the gaps were read together with the manifest
        self._dead = DeadMessages(system)

    async def loaded(self) -> Manifest | None:
        """The manifest of the run when nothing is missing any more."""
        if (manifest := self.waiting.manifest) is not None:
            missing = {batch.data.batch_id: batch for batch in self.waiting.missing}
            still = await not_in_ledger(self._system, list(missing))
            self.waiting = replace(self.waiting, missing=tuple(missing[one] for one in still))
            if not still:
                self.waiting = replace(self.waiting, unanswered=await self._unanswered(manifest))
        else:
            # A run writes its manifest before the state, which is one small object: nothing is listed until a run has ended.
            checkpoint = await self._system.store.find_checkpoint()
            last = self._seen if checkpoint is None else max(self._seen, checkpoint.run)
            ended = await self._system.store.manifests_after(self._seen) if last > self._seen else []
            self._seen = last
            for own in (one for one in ended if one.requested_by == self._request.command.id):
                self._batches += own.batches
                if not own.is_followed:
                    manifest = own.model_copy(update={"batches": tuple(self._batches)})
                    waiting = Waiting(manifest, await self._gaps(manifest), await self._unanswered(manifest))
                    self.waiting, self._is_new = waiting, True
        self._on_progress(self.waiting)
        return None if self.waiting.missing or self.waiting.unanswered else self.waiting.manifest

    async def _unanswered(self, manifest: Manifest) -> tuple[str, ...]:
        """The tables whose comparison by this run, or by a later one in its place, is not made, not whole or not answered."""
        compared_by = max((batch.data.run for batch in manifest.batches if batch.data.hashes), default=None)
        if compared_by is None:
            return ()
        async with self._system.warehouse.transaction(readonly=True) as warehouse:
            comparisons = await last_comparisons(warehouse, self._system.contract)
        made = {name: last for name, last in comparisons.items() if last.run >= compared_by}
        return tuple(name for name, last in made.items() if not last.has_found(compared_by))

    async def look_around(self) -> None:
        """Leave out batches that a loaded full run supersedes, then check the dead letters. Raises: NotLoadedError."""
        if self.waiting.manifest is None:
            await self._dead.require_none([self._request.command.id])
        else:
            if not self._is_new:
                self.waiting = replace(self.waiting, missing=await self._gaps(self.waiting.manifest))
            self._is_new = False
            await self._dead.require_none([batch.data.batch_id for batch in self.waiting.missing])
            await self._require_no_dead_question()

    async def _require_no_dead_question(self) -> None:
        if not self.waiting.unanswered:
            return
        async with self._system.warehouse.transaction(readonly=True) as warehouse:
            questions = await open_questions(warehouse, self._system.contract)
        awaited = [question for question in questions if question.table in self.waiting.unanswered]
        for letter in (await dead_questions(self._dead, self._system.store, awaited)).values():
            raise NotLoadedError(letter.sentence)

    async def _gaps(self, manifest: Manifest) -> tuple[BatchIngested, ...]:
        """The missing batches that the run needs; a full run, itself or a later loaded one, makes earlier runs needless."""
        async with self._system.warehouse.transaction(readonly=True) as warehouse:
            progress = await read_progress(self._system, warehouse, since=self._whole_through)
        if progress.consistent_through is not None:
            self._whole_through = progress.consistent_through.run
        first = manifest.run if manifest.is_full else 0
        return tuple(batch for batch in progress.missing if first <= batch.data.run <= manifest.run)
