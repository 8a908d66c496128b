"""Carrying out an operation on the dead letters of one service: send, delete, watch, each step journalled first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from services.operator.dlq.calls import PAUSE, TRIES, persistently, shares, tens, together
from services.operator.dlq.choosing import ARCHIVE_LETTERS, LOST, Choice, out_of_reach, reason_to_skip
from services.operator.dlq.hold import PATIENCE, Hold, holding
from services.operator.dlq.journal import Journal, doubts
from services.operator.dlq.letters import Archived, Letter
from services.operator.dlq.lock import LockedError, locked
from services.operator.dlq.operation import RESUMABLE, Author, End, Ended, Kind, Operation, Step
from services.operator.dlq.watch import Fate, Watch
from services.operator.system import System
from shared.errors import DependencyDownError, TransientError
from shared.queue import BATCH_MAXIMUM, Outgoing, Queue, requests_of

REFILL_MINIMUM = 5  # dead letters that may fall while we replay
REFILL_SHARE = 0.10  # or this part of what was sent
LOOKS_EVERY = timedelta(seconds=2)
CANARY_INTERVAL = timedelta(milliseconds=500)
CANARY_LIMIT = timedelta(minutes=10)  # five attempts with their backoff take less

Report = Callable[[int, int], None]  # letters done, of how many


class StoppedError(Exception):
    """A safety limit: going on would do harm. Recovery: find out why the letters die again."""


async def carry_out(system: System, operation: Operation, report: Report, resumed_by: Author | None = None) -> Ended:
    """Do what `operation` asks for with the letters that its filter matches, from the start or from where it was interrupted.

    Raises: LockedError, when somebody else or SQS itself moves these letters; every error of queues and objects, after which
    it can be resumed.
    """
    if operation.kind not in RESUMABLE:
        raise ValueError(f"a {operation.kind} moves no chosen letters; it is carried out elsewhere")
    service, bucket = operation.service, system.settings.landing_bucket
    async with locked(system.objects, bucket, operation):
        await require_no_move(system, service)
        journal = Journal(system.objects, bucket, operation)
        if resumed_by is None:
            await journal.begin()
        elif await journal.has_ended():
            raise LockedError(f"somebody else has ended operation {operation.id} meanwhile; nothing is left to resume")
        else:
            await journal.load()
            await journal.go_on(resumed_by.operator, resumed_by.reason)
        with _resumable(operation):
            in_doubt = await doubts(system.objects, bucket, service, but=operation.id)
            async with holding(system.dead_letters[service]) as hold:
                elsewhere = await Choice(operation, journal, hold, in_doubt).make(resumed=resumed_by is not None)
                return await _Work(system, operation, journal, hold, Watch(system, service), report).finish(elsewhere)


@contextmanager
def _resumable(operation: Operation) -> Iterator[None]:
    """What fails inside says how to go on."""
    try:
        yield
    except LockedError:
        raise
    except Exception as error:
        error.add_note(f"nothing is lost, `starlift dlq resume {operation.id}` goes on")
        raise


async def require_no_move(system: System, service: str) -> None:
    """Raises: LockedError."""
    if await system.move_tasks[service].is_running():
        raise LockedError(f"SQS itself moves the dead letters of {service}; wait until its move task has ended, or cancel it")


async def send_ten(queue: Queue, messages: Mapping[str, Outgoing]) -> tuple[list[str], bool]:
    """Those that SQS took, after a few tries, and whether it may have taken some twice. Raises: what the last try raised."""
    left, is_doubtful = dict(messages), False
    for tries_left in reversed(range(TRIES)):
        try:
            names = iter(list(left))
            for request in requests_of(list(left.values())):
                ids = await queue.send_all(request)
                for sent_id, one in zip(ids, names, strict=False):
                    if sent_id is not None:
                        del left[one]
        except (TransientError, DependencyDownError) as error:
            is_doubtful |= isinstance(error, DependencyDownError)  # throttled, SQS has done nothing
            if not tries_left:
                raise
        if not left or not tries_left:
            break
        await asyncio.sleep(PAUSE.total_seconds())
    return [one for one in messages if one not in left], is_doubtful


@dataclass
class _Work:
    system: System
    operation: Operation
    journal: Journal
    hold: Hold
    watch: Watch
    report: Report
    _sent: int = 0
    _canaries: list[Letter] = field(default_factory=list)
    _archived: dict[str, Archived] = field(default_factory=dict)
    _next_send: float = 0.0
    _next_look: float = 0.0

    async def finish(self, elsewhere: int) -> Ended:
        """Delete what was sent before an interruption; send and delete the rest. `elsewhere`: letters out of reach."""
        await self._delete(self.journal.at(Step.SENT))
        try:
            await self._work_off()
        except StoppedError as error:
            await self.journal.stop(str(error))
        if self.journal.stopped:
            await self.journal.skip(self.journal.at(Step.ARCHIVED, Step.SENDING), "the operation was stopped before")
        await self._delete_the_rest()
        if self.journal.stopped:
            return await self.journal.end(End.STOPPED, self.journal.stopped)
        end = end_of(self.journal, Step.DELETED)
        if not elsewhere:
            return await self.journal.end(end)
        detail = f"others had {elsewhere:,} more in hand, which were not looked at"
        return await self.journal.end(End.PARTIAL, detail)

    async def _work_off(self) -> None:
        """Raises: StoppedError."""
        pending = [] if self.journal.stopped else self.journal.at(Step.ARCHIVED, Step.SENDING)
        pending.sort(key=lambda one: self.journal.lines[one].archive or 0)
        is_replay = self.operation.kind is Kind.REPLAY
        if is_replay and pending:
            await persistently(self.watch.begin)
        done = 0
        while done < len(pending):
            batch = pending[done : done + self._batch_size()]
            await self._pace(len(batch))
            await self._move(batch)
            done += len(batch)
            self.report(self.journal.count(Step.DELETED), len(self.journal.lines))
            if self._canaries and (self._sent >= self.operation.canary or done == len(pending)):
                await self._wait_for_canaries()
            if is_replay:
                await self._require_no_refill()

    def _batch_size(self) -> int:
        """What a kill leaves in doubt at most: ten, or a quarter of what a second takes. Canaries go alone."""
        rate, canaries = self.operation.rate, self.operation.canary - self._sent
        size = int(max(1, min(rate, max(BATCH_MAXIMUM, rate / 4), ARCHIVE_LETTERS)))
        return min(size, canaries) if canaries > 0 else size

    async def _pace(self, count: int) -> None:
        """Never more than `rate` a second."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_send - loop.time())
        self._next_send = loop.time() + count / self.operation.rate

    async def _move(self, batch: Sequence[str]) -> None:
        await self.journal.skip([one for one in batch if one not in self.hold], LOST)
        ours = [one for one in batch if one in self.hold]
        await self._delete(ours if self.operation.kind is Kind.DISCARD else await self._send(ours))

    async def _send(self, ids: Sequence[str]) -> list[str]:
        """Those that SQS took."""
        letters = await self._sendable(ids)
        await self.journal.reach(Step.SENDING, letters)
        sent: list[str] = []
        doubtful: list[str] = []
        for share in await together(self._send_share(letters, share) for share in shares(letters)):
            for taken, is_doubtful in share:
                (doubtful if is_doubtful else sent).extend(taken)
        await self.journal.reach(Step.SENT, sent)
        await self.journal.reach(Step.SENT, doubtful, "perhaps twice: an answer of SQS was lost")
        sent += doubtful
        refused = [one for one in letters if one not in sent]
        await self.journal.reach(Step.FAILED, refused, "SQS did not take it; replay it again")
        for one in sent:
            self.watch.note_sent(letters[one])
        if self._sent < self.operation.canary:
            self._canaries += [letters[one] for one in sent]
        self._sent += len(sent)
        return sent

    async def _send_share(self, letters: Mapping[str, Letter], ids: Sequence[str]) -> list[tuple[list[str], bool]]:
        tens_of_them = ({one: self._outgoing(letters[one]) for one in some} for some in tens(ids))
        return [await send_ten(self._queue, outgoing) for outgoing in tens_of_them]

    async def _sendable(self, ids: Sequence[str]) -> dict[str, Letter]:
        """The letters, from the archive. Another build may have chosen one that this build refuses."""
        letters = {archived.message_id: archived.letter() for archived in await self._read(ids)}
        if self.operation.kind is Kind.REPLAY:
            for letter in list(letters.values()):
                if reason := reason_to_skip(letter, force=self.operation.force):
                    await self.journal.skip([letter.id], reason)
                    del letters[letter.id]
        return letters

    @property
    def _queue(self) -> Queue:
        queues = self.system.dead_letters if self.operation.kind is Kind.EDIT else self.system.queues
        return queues[self.operation.service]

    def _outgoing(self, letter: Letter) -> Outgoing:
        body = self.operation.body
        return letter.outgoing if body is None else Outgoing(body, letter.delivery.attributes)

    async def _delete(self, letters: Sequence[str]) -> None:
        deleted = await persistently(lambda: self.hold.delete(letters))
        await self.journal.reach(Step.DELETED, deleted)

    async def _delete_the_rest(self) -> None:
        """What was to be deleted, and could not be: it was shown again, somebody else may have it. Raises: LockedError."""
        step = Step.ARCHIVED if self.operation.kind is Kind.DISCARD else Step.SENT
        await self._delete(self.journal.at(step))
        left = self.journal.at(step)
        if not left:
            return
        async for _ in self.hold.letters(patience=PATIENCE):
            if all(one in self.hold for one in left):
                break
        await self._delete(left)
        left = self.journal.at(step)
        if left and self.hold.elsewhere:
            raise out_of_reach(self.operation, len(left))
        await self.journal.reach(Step.DELETED, left, "was no longer there")

    async def _read(self, letters: Sequence[str]) -> list[Archived]:
        """The archived letters; one archive object is in memory at a time."""
        for one in letters:
            if one not in self._archived:
                wanted = {known: archived for known, archived in self._archived.items() if known in letters}
                loaded = await self.journal.archived(self.journal.lines[one].archive or 0)
                self._archived = wanted | {archived.message_id: archived for archived in loaded}
        return [self._archived[one] for one in letters]

    async def _wait_for_canaries(self) -> None:
        """Until each is loaded. Raises: StoppedError."""
        deadline = asyncio.get_running_loop().time() + CANARY_LIMIT.total_seconds()
        while True:
            fates = await persistently(self._fates)
            dead = [letter for letter, fate in fates if fate is Fate.DEAD_AGAIN]
            if dead:
                raise StoppedError(f"a canary died again (message {dead[0].event_id}); the others stay where they are")
            self._canaries = [letter for letter, fate in fates if fate is Fate.ON_ITS_WAY]
            if not self._canaries:
                return
            if asyncio.get_running_loop().time() > deadline:
                limit = f"{CANARY_LIMIT.total_seconds() / 60:g} minutes"
                raise StoppedError(f"{len(self._canaries)} canaries are neither loaded nor dead after {limit}; see `status`")
            await asyncio.sleep(CANARY_INTERVAL.total_seconds())

    async def _fates(self) -> list[tuple[Letter, Fate]]:
        await self.watch.look()
        return [(letter, await self.watch.fate(letter)) for letter in self._canaries]

    async def _require_no_refill(self) -> None:
        """Raises: StoppedError."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_look:
            return
        await persistently(self.watch.look)
        self._next_look = loop.time() + LOOKS_EVERY.total_seconds()
        fallen = len(self.watch.fallen)
        if fallen > max(REFILL_MINIMUM, REFILL_SHARE * self._sent):
            raise StoppedError(f"{fallen} dead letters fell while {self._sent} were replayed; the others stay")


def end_of(journal: Journal, aim: Step) -> End:
    """How an operation ended that meant to bring every letter to `aim`."""
    steps = set(journal.counts)
    if not steps:
        return End.NOTHING
    return End.DONE if steps == {aim.value} else End.PARTIAL
