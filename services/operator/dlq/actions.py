"""What can be done with dead letters, for the command line and whoever else asks: each call is one operation on one queue."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from contracts.messages import encode
from services.operator.dlq.choosing import Matching, matching, reason_to_skip
from services.operator.dlq.execution import Report, carry_out, end_of, require_no_move, send_ten
from services.operator.dlq.filters import Filter
from services.operator.dlq.journal import Journal, doubts, operations
from services.operator.dlq.letters import Archived, Letter, validated
from services.operator.dlq.lock import locked
from services.operator.dlq.operation import (
    MAY_CHOOSE,
    RESUMABLE,
    Author,
    End,
    Ended,
    Kind,
    Operation,
    Step,
    new_operation_id,
    now,
)
from services.operator.system import System
from shared.errors import PermanentError
from shared.queue import BATCH_MAXIMUM, Outgoing, require_sendable

DISCARD_RATE = 1000.0  # letters a second


class UnsendableError(Exception):
    """An edited message is not one that its service can work on. Recovery: correct it, as the text says."""


class NoSuchOperationError(Exception):
    """There is no such operation, or none of which this can be asked. Recovery: as the text says."""


@dataclass(frozen=True, slots=True)
class Replay:
    """How to replay: `rate` letters a second, the first `canary` of them alone; `force` past the cap on replays."""

    rate: float = 10.0
    canary: int = 0
    force: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What a replay would do with a letter: send it to its service's queue, unless there is a reason to skip it."""

    letter: Letter
    skipped_because: str | None


@dataclass(frozen=True)
class Plan:
    """What a replay would do, letter by letter; `doubts` are those that another operation may have sent."""

    letters: Matching
    doubts: Mapping[str, str]
    force: bool

    async def __aiter__(self) -> AsyncIterator[Decision]:
        """Look once."""
        async for letter in self.letters:
            yield Decision(letter, self.doubts.get(letter.id) or reason_to_skip(letter, force=self.force))

    @property
    def elsewhere(self) -> int:
        """How many others had in hand when we had looked at all, so that nobody knows what would become of them."""
        return self.letters.elsewhere


@asynccontextmanager
async def plan(
    system: System, service: str, chosen: Filter, *, limit: int | None = None, force: bool = False
) -> AsyncIterator[Plan]:
    """What a replay would do. Changes nothing."""
    in_doubt = await doubts(system.objects, system.settings.landing_bucket, service)
    async with matching(system, service, chosen, limit) as letters:
        yield Plan(letters, in_doubt, force)


def replay_operation(service: str, chosen: Filter, author: Author, how: Replay, limit: int | None = None) -> Operation:
    """The operation that sends dead letters back to their service's queue."""
    return _operation(
        Kind.REPLAY, service, author, filter=chosen, limit=limit, rate=how.rate, canary=how.canary, force=how.force
    )


def discard_operation(service: str, chosen: Filter, author: Author, limit: int | None = None) -> Operation:
    """The operation that archives dead letters and deletes them."""
    return _operation(Kind.DISCARD, service, author, filter=chosen, limit=limit, rate=DISCARD_RATE)


def edit_operation(letter: Letter, document: Any, author: Author) -> Operation:
    """The operation that puts a changed message in the place of a dead letter. Raises: UnsendableError."""
    message, problem = validated(letter.service, json.dumps(document))
    if message is None:
        raise UnsendableError(f"the edited message can't go back to {letter.service}: {problem}")
    body = encode(message)
    try:
        require_sendable(letter.service, body, timedelta(0), letter.delivery.attributes)
    except PermanentError as error:
        raise UnsendableError(str(error)) from error
    return _operation(Kind.EDIT, letter.service, author, filter=Filter(ids=(letter.id,)), limit=1, body=body)


async def do(system: System, operation: Operation, report: Report = lambda _done, _all: None) -> Ended:
    """Carry an operation out. Raises: LockedError; errors of queues and objects, after which it can be resumed."""
    return await carry_out(system, operation, report)


async def resume(system: System, operation: Operation, author: Author, report: Report = lambda _done, _all: None) -> Ended:
    """Go on with an interrupted operation; who does is kept. Raises: as `do`."""
    return await carry_out(system, operation, report, author)


async def audit(system: System, beginning: str = "") -> list[tuple[Operation, Ended | None]]:
    """Every operation that the landing bucket still has, oldest first; None: it has not ended, it runs or was interrupted."""
    every = await operations(system.objects, system.settings.landing_bucket)
    return [pair for pair in every if pair[0].id.startswith(beginning)]


async def interrupted(system: System, beginning: str = "") -> list[Operation]:
    """The operations that can be resumed, oldest first, and those that run.

    Raises: NoSuchOperationError if there are such, and only a newer build understands them.
    """
    unended = [one for one, ended in await audit(system, beginning) if ended is None]
    found = [one for one in unended if one.kind in RESUMABLE]
    newer = [one.id for one in unended if one.kind is Kind.UNKNOWN]
    if newer and not found:
        raise NoSuchOperationError(f"operation {newer[0]} is of a newer build; resume it with that build")
    return found


async def journal_of(system: System, operation: Operation) -> Journal:
    """What an operation did with each letter."""
    journal = Journal(system.objects, system.settings.landing_bucket, operation)
    await journal.load()
    return journal


async def removed(system: System, operation: Operation) -> AsyncIterator[Archived]:
    """The letters that an operation took from their queue, as they were.

    Raises: NoSuchOperationError while it has not ended: it may have removed more than its journal says.
    """
    journal = await journal_of(system, operation)
    if operation.kind in MAY_CHOOSE and not await journal.has_ended():
        raise NoSuchOperationError(
            f"what operation {operation.id} has removed is known when it has ended, and it has not ended; "
            f"`starlift dlq resume {operation.id}` first"
        )
    return _deleted(journal)


async def _deleted(journal: Journal) -> AsyncIterator[Archived]:
    """Each once: a kill between archiving letters and writing it down leaves two copies of them."""
    numbers = {one: journal.lines[one].archive for one in journal.at(Step.DELETED)}
    for number in sorted({number for number in numbers.values() if number is not None}):
        for letter in await journal.archived(number):
            if numbers.get(letter.message_id) == number:
                yield letter


async def restore(system: System, service: str, letters: AsyncIterator[Archived], author: Author) -> tuple[Operation, Ended]:
    """Put letters back into a service's dead-letter queue. Killed on its way it has put back those that its journal names.

    Raises: LockedError.
    """
    operation = _operation(Kind.RESTORE, service, author)
    async with locked(system.objects, system.settings.landing_bucket, operation):
        journal = await _begun(system, operation)
        batch: list[Archived] = []
        async for letter in letters:
            if len(batch) == BATCH_MAXIMUM or any(letter.message_id == one.message_id for one in batch):
                await _put_back(system, batch, journal)
                batch = []
            batch.append(letter)
        await _put_back(system, batch, journal)
        return operation, await journal.end(end_of(journal, Step.SENT))


async def _put_back(system: System, letters: Sequence[Archived], journal: Journal) -> None:
    outgoing = {letter.message_id: Outgoing(letter.body, letter.attributes) for letter in letters}
    await journal.reach(Step.SENDING, outgoing)
    sent, _ = await send_ten(system.dead_letters[journal.operation.service], outgoing)
    await journal.reach(Step.SENT, sent)
    await journal.reach(Step.FAILED, outgoing.keys() - set(sent), "SQS did not take it; restore it again")


async def move_natively(system: System, service: str, author: Author, rate: float) -> tuple[Operation, Ended]:
    """Let SQS move every letter of a service by itself. Raises: LockedError."""
    operation = _operation(Kind.NATIVE, service, author, rate=rate)
    async with locked(system.objects, system.settings.landing_bucket, operation):
        await require_no_move(system, service)
        journal = await _begun(system, operation)
        await system.move_tasks[service].start(max(1, int(rate)))
        return operation, await journal.end(End.DONE, "SQS moves them by itself, and keeps no record of which")


async def _begun(system: System, operation: Operation) -> Journal:
    journal = Journal(system.objects, system.settings.landing_bucket, operation)
    await journal.begin()
    return journal


def _operation(kind: Kind, service: str, author: Author, **more: Any) -> Operation:
    at = now()
    return Operation(
        id=new_operation_id(at), kind=kind, service=service, operator=author.operator, reason=author.reason, began_at=at, **more
    )
