"""Who did what to dead letters, when and why, and the letters as they were: kept in the landing bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contracts.dead_letters import (
    BEGUN_PREFIX,
    ENDED_PREFIX,
    Archived,
    End,
    Ended,
    Kind,
    Operation,
    archive_key,
    archive_prefix,
    begun_key,
    ended_key,
    from_lines,
    new_operation_id,
    to_lines,
)
from services.operator.dlq.hold import holding
from services.operator.dlq.letters import Letter
from services.operator.errors import NotFoundError, OperatorError
from services.operator.system import System
from shared.errors import PermanentError
from shared.reading import all_of
from shared.stored_documents import read_stored

NOT_REACHED = "not reached before the operation ended"
NOT_KNOWN = "left, or unknown: the operation was interrupted"
_DONE = frozenset(kind.done for kind in Kind)
Document = TypeVar("Document")


@dataclass(frozen=True, slots=True)
class Author:
    """Who does something, and why: the audit keeps both."""

    operator: str
    reason: str = ""


class Audited(Operation):
    """An operation and how it ended."""

    ended: Ended | None = None  # None: it is running, or was killed


@dataclass(frozen=True, slots=True)
class Removed:
    """Letters that were in the dead-letter queue of a service, as they were."""

    service: str
    letters: AsyncIterator[Archived]
    expected: frozenset[str] = frozenset()  # SQS's ids of those that must be among them


@dataclass
class Record:
    """What is kept of one operation while it runs. Only this process writes it, and no object of it twice."""

    system: System
    operation: Operation
    outcomes: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # ids by what became of them
    parts: list[list[str]] = field(default_factory=list)  # ids of the letters in each archive object

    @classmethod
    async def begin(cls, system: System, kind: Kind, service: str, author: Author, **asked: Any) -> Record:
        """Keep what is asked, before anything is done."""
        began_at = system.clock()
        operation = Operation(
            id=new_operation_id(began_at),
            kind=kind,
            service=service,
            operator=author.operator,
            reason=author.reason,
            began_at=began_at,
            **asked,
        )
        await system.objects.put(_bucket(system), begun_key(operation.id), operation.model_dump_json().encode())
        return cls(system, operation)

    async def archive(self, letters: Sequence[Letter]) -> None:
        """Keep letters as they are."""
        key = archive_key(self.operation.id, len(self.parts))
        await self.system.objects.put(_bucket(self.system), key, to_lines(letter.archived for letter in letters))
        self.parts.append([letter.id for letter in letters])

    async def end(self, end: End | None = None, detail: str = "") -> Audited:
        """Keep how it ended. Without an `end`: done, partly done, or there was nothing to do, as the outcomes say."""
        known = {one for ids in self.outcomes.values() for one in ids}
        rest = NOT_KNOWN if end is End.INTERRUPTED else NOT_REACHED
        self.outcomes[rest] += [one for part in self.parts for one in part if one not in known]
        outcomes = {outcome: tuple(ids) for outcome, ids in self.outcomes.items() if ids}
        done = Kind(self.operation.kind).done
        counts = {done: len(outcomes.get(done, ())), "left": sum(len(ids) for name, ids in outcomes.items() if name != done)}
        if end is None:
            end = End.PARTIAL if counts["left"] or detail else End.DONE if counts[done] else End.NOTHING
        counts = {name: count for name, count in counts.items() if count}
        ended = Ended(at=self.system.clock(), end=end, counts=counts, detail=detail, outcomes=outcomes)
        await self.system.objects.put(_bucket(self.system), ended_key(self.operation.id), ended.model_dump_json().encode())
        return Audited(**self.operation.model_dump(), ended=ended)

    async def interrupted(self, error: BaseException) -> None:
        """Keep that a person or an error ended it, if that is still possible, and add to the error what to do."""
        with suppress(Exception):
            await self.end(End.INTERRUPTED, f"by {type(error).__qualname__}")
        error.add_note("nothing is lost, it is safe to run the command again")


async def audit(system: System, beginning: str = "") -> list[Audited]:
    """Every operation whose id begins so and that the landing bucket still has, oldest first.

    Raises: DamagedDocumentError.
    """
    begun = await system.objects.keys(_bucket(system), f"{BEGUN_PREFIX}{beginning}")
    keys = await system.objects.keys(_bucket(system), f"{ENDED_PREFIX}{beginning}")
    endings = await all_of(keys, lambda key: _read(system, key, Ended.model_validate_json))
    ended = dict(zip(keys, endings, strict=True))
    operations = await all_of(begun, lambda key: _read(system, key, Operation.model_validate_json))
    found = [Audited(**one.model_dump(), ended=ended.get(ended_key(one.id))) for one in operations if one is not None]
    return sorted(found, key=lambda one: (one.began_at, one.id))


async def archived(system: System, key: str) -> list[Archived]:
    """The letters in one archive object. Raises: DamagedDocumentError, PermanentError."""
    letters = await _read(system, key, from_lines)
    if letters is None:
        raise PermanentError(f"'{_bucket(system)}/{key}' is gone, and the letters in it; `starlift resend` sends lost batches")
    return letters


async def removed(system: System, beginning: str) -> Removed:
    """What an operation took from the dead-letter queue.

    An operation that was killed or interrupted, or is of an earlier build, has removed what it archived and what is no longer
    in the queue. Raises: NotFoundError; OperatorError while others hold letters, which may be some of these.
    """
    found = await audit(system, beginning)
    if len(found) != 1:
        text = f"'{beginning}' is not a file, and {len(found)} operations have ids that begin with it; see `starlift dlq audit`"
        raise NotFoundError(text)
    (operation,) = found
    ended = operation.ended
    if ended is not None and ended.end != End.INTERRUPTED and ended.outcomes is not None:
        wanted = frozenset(one for outcome in _DONE for one in ended.outcomes.get(outcome, ()))
        return Removed(operation.service, _letters(system, operation.id, wanted.__contains__), wanted)
    async with holding(system, operation.service) as hold:
        there = {letter.id async for letter in hold.letters()}
    if hold.elsewhere:
        raise OperatorError(
            f"operation {operation.id} was interrupted, and others hold {hold.elsewhere:,} letters of {operation.service}, "
            "perhaps some that it left; try again when they have finished, or, if they were killed, in a minute"
        )
    return Removed(operation.service, _letters(system, operation.id, lambda one: one not in there))


async def _letters(system: System, operation: str, is_wanted: Callable[[str], bool]) -> AsyncIterator[Archived]:
    """Each once: an earlier build that was killed may have archived a letter twice."""
    seen: set[str] = set()
    for key in await system.objects.keys(_bucket(system), archive_prefix(operation)):
        for letter in await archived(system, key):
            if is_wanted(letter.message_id) and letter.message_id not in seen:
                seen.add(letter.message_id)
                yield letter


async def _read(system: System, key: str, parse: Callable[[bytes], Document]) -> Document | None:
    found = await system.objects.read(_bucket(system), key)
    if found is None:
        return None
    remedy = "restore its former version, or delete it: it is the audit, no letter depends on it"
    if parse is from_lines:
        remedy = "restore its former version; where the bucket keeps none, `starlift resend` sends batches that were lost"
    return read_stored(parse, f"{_bucket(system)}/{key}", found.body, what="document about dead letters", remedy=remedy)


def _bucket(system: System) -> str:
    return system.settings.landing_bucket
