"""Carrying out an operation on the dead letters of one service: send, delete, watch, each step journalled first."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from contracts.messages import Message
from services.operator.dlq.choosing import Choice
from services.operator.dlq.hold import Hold, holding
from services.operator.dlq.journal import End, Ended, Journal, Kind, Operation, Step
from services.operator.dlq.letters import Archived
from services.operator.dlq.lock import LockedError, locked
from services.operator.dlq.watch import Fate, Watch
from services.operator.system import System
from shared.errors import DependencyDownError, TransientError
from shared.queue import BATCH_MAXIMUM, Outgoing

REFILL_MINIMUM = 5  # dead letters that may fall while we replay
REFILL_SHARE = 0.10  # or this part of what was sent
WATCH_INTERVAL = timedelta(seconds=2)
CANARY_INTERVAL = timedelta(milliseconds=500)
CANARY_LIMIT = timedelta(minutes=10)  # five attempts with their backoff take less
SEND_TRIES = 5
SEND_PAUSE = timedelta(seconds=1)

Report = Callable[[int, int], None]  # letters done, of how many


class StoppedError(Exception):
    """A safety limit: going on would do harm. Recovery: find out why the letters die again."""


def new_operation_id(at: datetime) -> str:
    """Sorts by time; two at once differ."""
    return f"{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


async def carry_out(system: System, operation: Operation, report: Report, *, resumed: bool = False) -> Ended:
    """Do what `operation` asks for with the letters that its filter matches, from the start or from where it was interrupted.

    Raises: LockedError, when somebody else or SQS itself moves these letters; every error of queues and objects, after which
    it can be resumed.
    """
    service, bucket = operation.service, system.settings.landing_bucket
    async with locked(system.objects, bucket, service, operation=operation.id, operator=operation.operator):
        if await system.move_tasks[service].is_running():
            raise LockedError(f"SQS itself moves the dead letters of {service}; wait for its move task, or cancel it")
        journal = Journal(system.objects, bucket, operation)
        await (journal.load() if resumed else journal.begin())
        async with holding(system.dead_letters[service]) as hold:
            await Choice(operation, journal, hold).make(resumed=resumed)
            work = _Work(system, operation, journal, hold, Watch(system, operation.began_at), report)
            try:
                await work.finish()
            except StoppedError as stop:
                return await journal.end(End.STOPPED, str(stop))
        return await journal.end(_end_of(journal))


def _end_of(journal: Journal) -> End:
    steps = set(journal.counts)
    if not steps:
        return End.NOTHING
    return End.DONE if steps == {Step.DELETED.value} else End.PARTIAL


@dataclass
class _Work:
    system: System
    operation: Operation
    journal: Journal
    hold: Hold
    watch: Watch
    report: Report
    _sent: int = 0
    _canaries: list[Message] = field(default_factory=list)
    _archived: dict[str, Archived] = field(default_factory=dict)
    _next_send: float = 0.0
    _next_look: float = 0.0

    async def finish(self) -> None:
        """Delete what was sent before an interruption; send and delete the rest. Raises: StoppedError."""
        await self._delete(self.journal.at(Step.SENT))
        await self.watch.begin()
        for batch in self._batches():
            await self._pace(len(batch))
            await self._move(batch)
            self.report(self.journal.counts.get(Step.DELETED, 0), len(self.journal.lines))
            if self._canaries and self._sent >= self.operation.canary:
                await self._wait_for_canaries()
            await self._require_no_refill()

    def _batches(self) -> Iterator[list[str]]:
        """Ids in the order of their archives, ten at most and a second's worth at most; canaries first."""
        size = max(1, min(BATCH_MAXIMUM, int(self.operation.rate)))
        pending = sorted(self.journal.at(Step.ARCHIVED, Step.SENDING), key=lambda one: self.journal.lines[one].archive or 0)
        for part in (pending[: self.operation.canary], pending[self.operation.canary :]):
            for start in range(0, len(part), size):
                yield part[start : start + size]

    async def _pace(self, count: int) -> None:
        """Never more than `rate` a second."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next_send - loop.time()))
        self._next_send = max(self._next_send, loop.time()) + count / self.operation.rate

    async def _move(self, batch: Sequence[str]) -> None:
        ours = [one for one in batch if one in self.hold.receipts]
        await self.journal.reach(Step.SKIPPED, set(batch) - set(ours), "somebody else has it in hand")
        letters = await self._read(ours)
        outgoing = {archived.message_id: self._outgoing(archived) for archived in letters}
        messages = {one: message for one, message in outgoing.items() if message is not None}
        if messages:
            await self.journal.reach(Step.SENDING, messages)
            taken = dict(zip(messages, await self._send_all(list(messages.values())), strict=True))
            await self.journal.reach(Step.SENT, [one for one, sent_id in taken.items() if sent_id is not None])
            refused = [one for one, sent_id in taken.items() if sent_id is None]
            await self.journal.reach(Step.FAILED, refused, "SQS did not take it; replay it again")
            ours = [one for one in ours if one not in refused]
            self._note_canaries([archived for archived in letters if archived.message_id not in refused])
            self._sent += len(ours)
        await self._delete(ours)

    async def _send_all(self, messages: list[Outgoing]) -> list[str | None]:
        """Again after a failure that may pass: what was sent twice loads once. Raises: what the last try raised."""
        service, is_edit = self.operation.service, self.operation.kind is Kind.EDIT
        queue = (self.system.dead_letters if is_edit else self.system.queues)[service]
        for _ in range(SEND_TRIES - 1):
            try:
                return await queue.send_all(messages)
            except (TransientError, DependencyDownError):
                await asyncio.sleep(SEND_PAUSE.total_seconds())
        return await queue.send_all(messages)

    def _outgoing(self, archived: Archived) -> Outgoing | None:
        match self.operation.kind:
            case Kind.REPLAY:
                return archived.letter().outgoing
            case Kind.EDIT:
                return Outgoing(self.operation.body or archived.body, archived.attributes)
            case Kind.DISCARD | Kind.RESTORE | Kind.NATIVE:
                return None

    async def _delete(self, letters: Sequence[str]) -> None:
        kept = await self.hold.delete(letters)
        deleted = [one for one in letters if one not in kept]
        await self.journal.reach(Step.DELETED, deleted)
        service = self.operation.service
        self.watch.deleted[service] = self.watch.deleted.get(service, 0) + len(deleted)

    async def _read(self, letters: Sequence[str]) -> list[Archived]:
        """The archived letters; one archive object is in memory at a time."""
        for one in letters:
            if one not in self._archived:
                wanted = {known: archived for known, archived in self._archived.items() if known in letters}
                loaded = await self.journal.archived(self.journal.lines[one].archive or 0)
                self._archived = wanted | {archived.message_id: archived for archived in loaded}
        return [self._archived[one] for one in letters]

    def _note_canaries(self, letters: Sequence[Archived]) -> None:
        if self._sent < self.operation.canary:
            self._canaries += [message for archived in letters if (message := archived.letter().message) is not None]

    async def _wait_for_canaries(self) -> None:
        deadline = asyncio.get_running_loop().time() + CANARY_LIMIT.total_seconds()
        while self._canaries:
            newcomers = await self.watch.newcomers()
            fates = [(message, await self.watch.fate(message, newcomers)) for message in self._canaries]
            dead = [message for message, fate in fates if fate is Fate.DEAD_AGAIN]
            if dead:
                raise StoppedError(f"a canary died again (message {dead[0].id}); the others stay where they are")
            self._canaries = [message for message, fate in fates if fate is Fate.ON_ITS_WAY]
            if self._canaries and asyncio.get_running_loop().time() > deadline:
                limit = f"{CANARY_LIMIT.total_seconds() / 60:g} minutes"
                raise StoppedError(f"{len(self._canaries)} canaries are neither loaded nor dead after {limit}; see `status`")
            await asyncio.sleep(CANARY_INTERVAL.total_seconds() if self._canaries else 0)

    async def _require_no_refill(self) -> None:
        loop = asyncio.get_running_loop()
        if self.operation.kind is not Kind.REPLAY or loop.time() < self._next_look:
            return
        newcomers = len(await self.watch.newcomers())
        self._next_look = loop.time() + WATCH_INTERVAL.total_seconds()
        if newcomers > max(REFILL_MINIMUM, REFILL_SHARE * self._sent):
            raise StoppedError(f"{newcomers} dead letters fell while {self._sent} were replayed; the others stay")
