"""What can be done with dead letters, for the command line and whoever else asks: each call is one operation on one queue."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.messages import encode
from services.operator.dlq.choosing import matching, reason_to_skip
from services.operator.dlq.filters import Filter
from services.operator.dlq.journal import End, Ended, Journal, Kind, Operation, Step, operations
from services.operator.dlq.letters import Archived, Letter, now, validated
from services.operator.dlq.lock import LockedError, locked
from services.operator.dlq.operation import Report, carry_out, new_operation_id
from services.operator.system import System
from shared.queue import BATCH_MAXIMUM, Outgoing


class UnsendableError(Exception):
    """An edited message is not one that its service can work on. Recovery: correct it, as the text says."""


class NoSuchOperationError(Exception):
    """There is no such operation, or none that could be resumed. Recovery: `starlift dlq audit` lists them."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who does something, and why: both are kept."""

    operator: str
    reason: str = ""


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


async def plan(
    system: System, service: str, chosen: Filter, *, limit: int | None = None, force: bool = False
) -> AsyncIterator[Decision]:
    """What `replay` would do, letter by letter. Changes nothing."""
    async for letter in matching(system, service, chosen, limit):
        yield Decision(letter, reason_to_skip(letter, force=force))


def replay_operation(service: str, chosen: Filter, author: Author, how: Replay, limit: int | None = None) -> Operation:
    """The operation that sends dead letters back to their service's queue."""
    return _operation(
        Kind.REPLAY, service, author, filter=chosen, limit=limit, rate=how.rate, canary=how.canary, force=how.force
    )


def discard_operation(service: str, chosen: Filter, author: Author, limit: int | None = None) -> Operation:
    """The operation that archives dead letters and deletes them."""
    return _operation(Kind.DISCARD, service, author, filter=chosen, limit=limit, rate=float(BATCH_MAXIMUM * 100))


def edit_operation(letter: Letter, document: Any, author: Author) -> Operation:
    """The operation that puts a changed message in the place of a dead letter. Raises: UnsendableError."""
    message, problem = validated(letter.service, json.dumps(document))
    if message is None:
        raise UnsendableError(f"the edited message can't go back to {letter.service}: {problem}")
    return _operation(Kind.EDIT, letter.service, author, filter=Filter(ids=(letter.id,)), limit=1, body=encode(message))


async def do(system: System, operation: Operation, report: Report = lambda _done, _all: None) -> Ended:
    """Carry an operation out. Raises: LockedError; errors of queues and objects, after which it can be resumed."""
    return await carry_out(system, operation, report)


async def resume(system: System, operation: Operation, report: Report = lambda _done, _all: None) -> Ended:
    """Go on with an interrupted operation. Raises: as `do`."""
    return await carry_out(system, operation, report, resumed=True)


async def interrupted(system: System, beginning: str = "") -> list[Operation]:
    """The operations that have not ended, oldest first: they run, or were interrupted."""
    return [one for one, ended in await audit(system) if ended is None and one.id.startswith(beginning)]


async def audit(system: System) -> list[tuple[Operation, Ended | None]]:
    """Every operation of the last 90 days, oldest first."""
    return await operations(system.objects, system.settings.landing_bucket)


async def journal_of(system: System, operation: Operation) -> Journal:
    """What an operation did with each letter."""
    journal = Journal(system.objects, system.settings.landing_bucket, operation)
    await journal.load()
    return journal


async def archived(system: System, beginning: str) -> list[Archived]:
    """The letters that an operation removed from their queue. Raises: NoSuchOperationError."""
    found = [one for one, _ in await audit(system) if one.id.startswith(beginning)]
    if len(found) != 1:
        raise NoSuchOperationError(f"{len(found)} operations begin with '{beginning}'; `starlift dlq audit` lists them")
    journal = await journal_of(system, found[0])
    numbers = sorted({line.archive for line in journal.lines.values() if line.archive is not None})
    removed = set(journal.at(Step.DELETED))
    letters = {letter.message_id: letter for number in numbers for letter in await journal.archived(number)}
    return [letter for one, letter in letters.items() if one in removed]


async def restore(system: System, letters: Iterable[Archived], author: Author) -> Mapping[str, int]:
    """Put letters back into the dead-letter queues they came from; how many, by service."""
    by_service: dict[str, list[Archived]] = {}
    for letter in letters:
        by_service.setdefault(letter.service, []).append(letter)
    for service, ours in by_service.items():
        journal = await _begun(system, _operation(Kind.RESTORE, service, author))
        for start in range(0, len(ours), BATCH_MAXIMUM):
            batch = ours[start : start + BATCH_MAXIMUM]
            ids = await system.dead_letters[service].send_all([Outgoing(one.body, one.attributes) for one in batch])
            for letter, sent_id in zip(batch, ids, strict=True):
                await journal.reach(Step.SENT if sent_id else Step.FAILED, [letter.message_id])
        await journal.end(End.PARTIAL if journal.at(Step.FAILED) else End.DONE)
    return {service: len(ours) for service, ours in by_service.items()}


async def move_natively(system: System, service: str, author: Author, rate: float) -> None:
    """Let SQS move every letter of a service by itself. Raises: LockedError."""
    operation = _operation(Kind.NATIVE, service, author, rate=rate)
    bucket = system.settings.landing_bucket
    async with locked(system.objects, bucket, service, operation=operation.id, operator=author.operator):
        if await system.move_tasks[service].is_running():
            raise LockedError(f"SQS moves the dead letters of {service} already; wait until its move task has ended")
        journal = await _begun(system, operation)
        await system.move_tasks[service].start(max(1, int(rate)))
        await journal.end(End.DONE, "SQS moves them by itself, and keeps no record of which")


async def _begun(system: System, operation: Operation) -> Journal:
    journal = Journal(system.objects, system.settings.landing_bucket, operation)
    await journal.begin()
    return journal


def _operation(kind: Kind, service: str, author: Author, **more: Any) -> Operation:
    at = now()
    return Operation(
        id=new_operation_id(at), kind=kind, service=service, operator=author.operator, reason=author.reason, began_at=at, **more
    )
