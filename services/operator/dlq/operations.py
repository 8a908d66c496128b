"""Replay, edit, discard and restore: hold the letters, archive them, send, delete.

In this order, so that a letter is always somewhere: a process that is killed leaves in the queue what it had not deleted, and
running the same command again continues with that. What was sent and not deleted is then sent twice, which the load absorbs
(docs/decisions/0010).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.dead_letters import Archived, End, Kind, archive_key
from contracts.failure import FAILURE_ATTRIBUTE
from contracts.messages import encode
from services.operator.dlq.audit import Audited, Author, Record, Removed, archived
from services.operator.dlq.filters import Filter
from services.operator.dlq.hold import PATIENCE, PAUSE, TRIES, Hold, holding, persistently
from services.operator.dlq.letters import Letter, letter_of, validated
from services.operator.dlq.looking import matching, reason_to_skip
from services.operator.dlq.watch import StoppedError, Watch
from services.operator.errors import UsageError
from services.operator.system import System
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import BATCH_MAXIMUM, Outgoing, Queue, requests_of, require_sendable
from shared.wire_form import attributes_beside

ARCHIVE_LETTERS = 200  # in one object
ARCHIVE_BYTES = 4 * 1024 * 1024  # likewise: what is in memory at once
LOST = "no longer held: another command may hold it"
REFUSED = "SQS did not take it; run the command again"
GONE = "no longer in the archive; `starlift resend` sends lost batches"
STILL_THERE = "sent but not deleted: it may be sent again"

Report = Callable[[int, int], None]  # letters done, of how many


@dataclass(frozen=True, slots=True)
class Task:
    """What to do with which dead letters of a service."""

    kind: Kind  # a replay, an edit or a discard
    chosen: Filter
    limit: int | None = None  # letters at most
    rate: float = 10.0  # of a replay, letters a second
    canary: int = 0  # of a replay: how many go first, alone; the others follow when these are loaded
    force: bool = False  # replay even letters that were replayed too often
    instead: Outgoing | None = None  # of an edit: what takes the place of the letter


async def carry_out(
    system: System, service: str, task: Task, author: Author, report: Report = lambda _done, _all: None
) -> Audited:
    """Replay, edit or discard the letters that the task's filter matches; letters that arrive later are left alone.

    Raises: what queues and objects raise; nothing is lost then, and the same task again continues with the letters left.
    """
    is_replay = task.kind is Kind.REPLAY
    target = {Kind.REPLAY: system.queues[service], Kind.EDIT: system.dead_letters[service], Kind.DISCARD: None}[task.kind]
    record = await Record.begin(
        system,
        task.kind,
        service,
        author,
        filter=task.chosen.model_dump(mode="json", exclude_defaults=True),
        limit=task.limit,
        rate=task.rate if is_replay else None,
        canary=task.canary,
        force=task.force,
    )
    work = _Work(record, task, report, target, Watch(system, service, task.canary) if is_replay else None)
    end, detail = None, ""
    try:
        async with holding(system, service) as hold:
            await work.choose(hold)
            if hold.elsewhere:
                detail = f"other commands held {hold.elsewhere:,} more, which were not examined"
            try:
                await work.do(hold)
            except StoppedError as error:
                end, detail = End.STOPPED, "; ".join(filter(None, (str(error), detail)))
    except BaseException as error:
        await record.interrupted(error)
        raise
    return await record.end(end, detail)


def edited(letter: Letter, document: Any) -> Outgoing:
    """The dead letter with another message in it. Raises: UsageError if its service can't work on that."""
    message, problem = validated(letter.service, json.dumps(document))
    if message is None:
        raise UsageError(f"the edited message can't go back to {letter.service}: {problem}")
    body, attributes = encode(message), letter.delivery.attributes
    record = {name: value for name, value in attributes.items() if name == FAILURE_ATTRIBUTE}
    outgoing = Outgoing(body, attributes_beside(body, record, attributes))
    try:
        require_sendable(letter.service, outgoing)
    except PermanentError as error:
        raise UsageError(str(error)) from error
    return outgoing


async def put_back(system: System, removed: Removed, author: Author) -> Audited:
    """Put letters back into a service's dead-letter queue. Killed and run again, it puts some of them back twice."""
    record = await Record.begin(system, Kind.RESTORE, removed.service, author)
    seen: set[str] = set()
    batch: list[Archived] = []

    async def send_batch() -> None:
        taken = await send(system.dead_letters[removed.service], [Outgoing(one.body, one.attributes) for one in batch])
        for one, is_taken in zip(batch, taken, strict=True):
            record.outcomes[Kind.RESTORE.done if is_taken else REFUSED].append(one.message_id)
        batch.clear()

    try:
        async for letter in removed.letters:
            batch.append(letter)
            seen.add(letter.message_id)
            if len(batch) == BATCH_MAXIMUM:
                await send_batch()
        await send_batch()
    except BaseException as error:
        await record.interrupted(error)
        raise
    record.outcomes[GONE] += sorted(removed.expected - seen)
    return await record.end()


async def send(queue: Queue, messages: Sequence[Outgoing]) -> list[bool]:
    """Whether SQS took each of the messages, after a few tries. Raises: what the last try raised."""
    taken = [False] * len(messages)
    for tries_left in reversed(range(TRIES)):
        open_places = [place for place, is_taken in enumerate(taken) if not is_taken]
        places = iter(open_places)
        try:
            for request in requests_of([messages[place] for place in open_places]):
                for sent_id, place in zip(await queue.send_all(request), places, strict=False):
                    taken[place] = sent_id is not None
        except (TransientError, DependencyDownError):
            if not tries_left:
                raise
        if all(taken) or not tries_left:
            break
        await asyncio.sleep(PAUSE.total_seconds())
    return taken


@dataclass
class _Work:
    """One operation on the letters of one queue; without a `target` they are only deleted."""

    record: Record
    task: Task
    report: Report
    target: Queue | None
    watch: Watch | None
    _next_send: float = 0.0

    async def choose(self, hold: Hold) -> None:
        """Hold and archive the letters that match, and hand the others back."""
        letters, byte_count = list[Letter](), 0
        async for letter in matching(self.record.system, hold, self.task.chosen, self.task.limit, patience=PATIENCE):
            reason = reason_to_skip(letter, force=self.task.force) if self.watch else None
            if reason is not None:
                self.record.outcomes[reason].append(letter.id)
                continue
            letters.append(letter)
            byte_count += len(letter.delivery.body)
            if len(letters) >= ARCHIVE_LETTERS or byte_count >= ARCHIVE_BYTES:
                await self.record.archive(letters)
                letters, byte_count = [], 0
        if letters:
            await self.record.archive(letters)
        await hold.hand_back(but=[one for part in self.record.parts for one in part])

    async def do(self, hold: Hold) -> None:
        """Read the letters from the archive, a part at a time, and handle them in batches. Raises: StoppedError."""
        total, done = sum(map(len, self.record.parts)), 0
        if self.watch and total:
            await persistently(self.watch.begin)
        for number in range(len(self.record.parts)):
            letters = [
                letter_of(one) for one in await archived(self.record.system, archive_key(self.record.operation.id, number))
            ]
            while letters:
                batch = letters[: self._batch_size()]
                letters = letters[len(batch) :]
                await self._handle(batch, hold)
                done += len(batch)
                self.report(done, total)
                if self.watch and (self.watch.sent >= self.task.canary or done == total):
                    await self.watch.await_canaries()
                if self.watch:
                    await self.watch.require_no_refill()

    def _batch_size(self) -> int:
        """How many a kill may cause to be sent twice: ten, or a quarter of what a second takes. Canaries go alone."""
        if self.watch is None:
            return ARCHIVE_LETTERS
        rate, canaries = self.task.rate, self.task.canary - self.watch.sent
        size = int(max(1, min(rate, max(BATCH_MAXIMUM, rate / 4), ARCHIVE_LETTERS)))
        return min(size, canaries) if canaries > 0 else size

    async def _handle(self, batch: Sequence[Letter], hold: Hold) -> None:
        """Send and delete a batch, which is archived; of a replay never more than `rate` a second."""
        if self.watch:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self._next_send - now)
            self._next_send = max(now, self._next_send) + len(batch) / self.task.rate
        outcomes, done = self.record.outcomes, self.task.kind.done
        outcomes[LOST] += [one.id for one in batch if one.id not in hold]
        letters = [one for one in batch if one.id in hold]
        if self.target is not None:
            taken = await send(self.target, [self.task.instead or one.outgoing for one in letters])
            outcomes[REFUSED] += [one.id for one, is_taken in zip(letters, taken, strict=True) if not is_taken]
            letters = [one for one, is_taken in zip(letters, taken, strict=True) if is_taken]
        if self.watch:
            self.watch.note_sent(letters)
        deleted = await hold.delete([one.id for one in letters])
        for one in letters:
            outcomes[done if one.id in deleted else STILL_THERE if self.target else LOST].append(one.id)
