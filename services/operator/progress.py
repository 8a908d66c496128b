"""How far the warehouse has come: the manifests of the landing bucket against its ledger, and what is a dead letter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from contracts.messages import BatchIngested, LookUpKeys, Role
from contracts.state import Checkpoint, Manifest
from services.operator.dlq.hold import holding
from services.operator.errors import NotLoadedError
from services.operator.system import System
from shared.ledger import LoadedRun, OpenQuestion, loaded_batches, loaded_runs
from shared.reading import AT_ONCE, all_of
from shared.source_store import SourceStore

OVERDUE = timedelta(minutes=5)  # for a batch to be on its way


@dataclass(frozen=True, slots=True)
class Gap:
    """A run with batches that are not loaded."""

    manifest: Manifest
    missing: tuple[BatchIngested, ...]
    since: int | None  # the horizon of the run before it; None if that run's manifest has expired
    is_overdue: bool  # whether its batches were announced longer than OVERDUE ago: they are lost, or dead letters

    @property
    def tables(self) -> frozenset[str]:
        """The source tables whose rows the missing batches bring."""
        extracts = (extract for batch in self.missing for extract in batch.data.extracts)
        return frozenset(extract.table for extract in extracts if extract.role is Role.BASE)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the warehouse has come."""

    consistent_through: Manifest | None  # of the last run up to which every manifest is loaded; None before the first load
    missing: tuple[BatchIngested, ...]  # batches that were announced and are not loaded
    checkpoint: Checkpoint | None  # of the last completed run; None before the first
    overdue: int = 0  # how many of the missing batches are overdue
    superseded: tuple[BatchIngested, ...] = ()  # never loaded, but a later full run is: missing from the history only
    gaps: tuple[Gap, ...] = ()  # the missing batches by run
    loaded: int = 0  # the highest completed run of which nothing is missing, whatever is missing of earlier runs

    @property
    def newest(self) -> int:
        """The highest run that is known to have ended; 0 before the first."""
        ended = [
            *(gap.manifest.run for gap in self.gaps),
            *(one.run for one in (self.checkpoint, self.consistent_through) if one),
        ]
        return max(ended, default=0)

    @property
    def fresh_as_of(self) -> datetime | None:
        """The source's time up to which every committed change is in the warehouse; None before the first load.

        An idle source leaves no manifests, only a newer checkpoint.
        """
        if self.checkpoint is not None and not self.missing and self.consistent_through is not None:
            return self.checkpoint.snapshot.taken_at
        return None if self.consistent_through is None else self.consistent_through.snapshot.taken_at


async def read_progress(system: System, warehouse: asyncpg.Connection, *, since: int = 1) -> Progress:
    """Compare every manifest that the landing bucket still has with the ledger that `warehouse` sees.

    However old a gap is, what comes after it is not consistent: a batch may be a dead letter for a fortnight. A caller that
    knows a run through which everything is loaded passes it as `since`: listing 90 days of a run a minute takes 130 requests.
    """
    store = system.store
    # The state first: a run writes its manifest before it, so no checkpoint is read whose manifest is not seen.
    checkpoint = await store.find_checkpoint()
    runs = await store.manifest_runs(after=since - 1)
    ledger = await loaded_runs(warehouse, system.contract, store.source, runs[0] if runs else 0)
    gaps, superseded, parts = await _gaps(store, runs, ledger, system.clock() - OVERDUE)
    missing = tuple(batch for gap in gaps for batch in gap.missing)
    whole = [run for run in runs if run not in parts and (not gaps or run < gaps[0].manifest.run)]
    # An idle source leaves no manifests, only a newer checkpoint.
    ended = {*runs, *([checkpoint.run] if checkpoint is not None else [])} - parts
    return Progress(
        consistent_through=await store.read_manifest(whole[-1]) if whole else None,
        missing=missing,
        checkpoint=checkpoint,
        overdue=sum(len(gap.missing) for gap in gaps if gap.is_overdue),
        superseded=superseded,
        gaps=gaps,
        loaded=max(ended - {gap.manifest.run for gap in gaps}, default=0),
    )


async def _gaps(
    store: SourceStore, runs: Sequence[int], ledger: Mapping[int, LoadedRun], overdue: datetime
) -> tuple[tuple[Gap, ...], tuple[BatchIngested, ...], frozenset[int]]:
    """The runs with missing batches since the last loaded full run, the missing batches that it supersedes, and the parts.

    A part of a load has no last batch, so the ledger never calls it complete, and its manifest is read.
    """
    gaps: list[Gap] = []
    parts: set[int] = set()
    superseded: list[BatchIngested] = []
    known: dict[int, Manifest] = {}
    for place, run in enumerate(runs):
        loaded = ledger.get(run, LoadedRun(run, frozenset(), is_complete=False))
        if loaded.is_complete and not gaps:
            continue
        if run not in known:  # behind a gap each is needed: weeks of them, one by one, take minutes
            # The gap begins at the horizon of the run before.
            ahead = [one for one in runs[max(0, place - 1) : place + AT_ONCE] if one not in known]
            known |= dict(zip(ahead, await all_of(ahead, store.read_manifest), strict=True))
        manifest = known[run]
        if manifest.is_part:
            parts.add(run)
        if loaded.is_complete and manifest.is_full:
            superseded += [batch for gap in gaps for batch in gap.missing]
            gaps = []
        missing = tuple(batch for batch in manifest.batches if batch.data.batch_id not in loaded.batches)
        if missing and not loaded.is_complete:
            since = known[runs[place - 1]].snapshot.horizon if place else None
            gaps.append(Gap(manifest, missing, since, manifest.completed_at < overdue))
    return tuple(gaps), tuple(superseded), frozenset(parts)


async def not_in_ledger(system: System, wanted: Sequence[UUID]) -> list[UUID]:
    """Return those of the batches that are not loaded."""
    async with system.warehouse.transaction(readonly=True) as connection:
        loaded = await loaded_batches(connection, system.contract, wanted)
    return [batch for batch in wanted if batch not in loaded]


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message in the dead-letter queue of `service`; `letter` is SQS's id of it, `run` is None for a command."""

    service: str
    letter: str
    run: int | None
    is_question: bool = False  # of loading; any other command is the request for a run

    @property
    def sentence(self) -> str:
        """What is a dead letter, and what to do about it."""
        command = "a question about deleted rows" if self.is_question else "the request for this run"
        what = command if self.run is None else f"a batch of run {self.run}"
        return (
            f"{what} is dead letter {self.letter} of {self.service}: `starlift dlq show {self.letter}` prints why, "
            f"`starlift dlq replay {self.service} --execute` sends it again once the cause is fixed"
        )


class DeadMessages:
    """What the dead-letter queues hold, by the id of the message, by that of its batch, and by that of what it answers.

    Looking hides letters for a moment, so a queue is read again only when its count has changed, or when another command
    held letters of it. Of each queue `limit` letters are read; None: all.
    """

    def __init__(self, system: System, limit: int | None = None) -> None:
        self._system = system
        self._limit = limit
        self._counts: dict[str, int] = {}  # of the letters in each queue when it was read; -1: it has to be read again
        self._messages: dict[str, dict[str, DeadMessage]] = {}

    async def find(self, wanted: Iterable[UUID]) -> dict[UUID, DeadMessage]:
        """Those of the messages, batches and answered questions whose message is a dead letter."""
        for service in self._system.dead_letters:
            await self._read(service)
        ids = {str(one): one for one in wanted}
        return {ids[name]: found[name] for found in self._messages.values() for name in ids.keys() & found.keys()}

    async def require_none(self, wanted: Iterable[UUID]) -> None:
        """Raises: NotLoadedError naming a dead letter that holds one of the messages or batches."""
        for one in (await self.find(wanted)).values():
            raise NotLoadedError(one.sentence)

    async def _read(self, service: str) -> None:
        depth = await self._system.dead_letters[service].depth()
        count = depth.visible + depth.in_flight
        if count == self._counts.get(service):
            return
        found: dict[str, DeadMessage] = {}
        if count:
            async with holding(self._system, service) as hold:
                seen = 0
                async for letter in hold.letters():
                    if seen == self._limit:
                        break
                    seen += 1
                    names = {str(letter.event_id), str(letter.batch_id), str(letter.data.get("answers"))}
                    is_question = isinstance(letter.message, LookUpKeys)
                    found |= dict.fromkeys(names, DeadMessage(service, letter.id, letter.run, is_question=is_question))
            count = -1 if hold.elsewhere else count
        self._counts[service], self._messages[service] = count, found


async def dead_questions(dead: DeadMessages, store: SourceStore, questions: Iterable[OpenQuestion]) -> dict[str, DeadMessage]:
    """By warehouse table, a dead letter that keeps a question about its rows open: the question, or a batch of the answer."""
    wanted: dict[UUID, str] = {}
    for question in questions:
        wanted[question.id] = question.table
        # Only the last batch of an answer names the question. If that one is loaded, the run is known.
        answer = None if question.answered_by is None else await store.find_manifest(question.answered_by)
        wanted |= dict.fromkeys((batch.data.batch_id for batch in answer.batches), question.table) if answer else {}
    return {wanted[one]: letter for one, letter in (await dead.find(wanted)).items()} if wanted else {}
