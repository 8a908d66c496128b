"""What lies in the dead-letter queues: how much, since when, and which failures they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from contracts.objects import ObjectRef
from services.operator.dlq.choosing import matching
from services.operator.dlq.filters import Filter
from services.operator.dlq.hold import holding
from services.operator.dlq.letters import Letter, read_letter
from services.operator.system import System
from shared.errors import DependencyDownError, PermanentError


@dataclass
class Group:
    """Letters that died of the same error at the same place; `letter` is one of them, `message` what its record says."""

    fingerprint: str
    error_type: str
    message: str
    letter: str
    first_failed_at: datetime
    last_failed_at: datetime
    count: int = 0
    unsendable: int = 0

    def add(self, letter: Letter) -> None:
        """Count one more."""
        self.count += 1
        self.unsendable += letter.problem is not None
        self.first_failed_at = min(self.first_failed_at, letter.failure.first_failed_at)
        self.last_failed_at = max(self.last_failed_at, letter.failure.last_failed_at)


@dataclass
class Pile:
    """The dead letters of one service, in groups by fingerprint. `elsewhere` is how many others had in hand, about."""

    service: str
    seen: int = 0
    elsewhere: int = 0
    oldest: datetime | None = None
    groups: dict[str, Group] = field(default_factory=dict)

    def add(self, letter: Letter) -> None:
        """Sort in one more."""
        failure = letter.failure
        self.seen += 1
        self.oldest = min(self.oldest or failure.first_failed_at, failure.first_failed_at)
        group = self.groups.get(failure.fingerprint)
        if group is None:
            group = self.groups[failure.fingerprint] = Group(
                failure.fingerprint,
                failure.error_type,
                failure.message,
                letter.id,
                failure.first_failed_at,
                failure.last_failed_at,
            )
        group.add(letter)


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that a message refers to; `problem` says what is wrong with it."""

    ref: ObjectRef
    problem: str | None


async def survey(system: System, service: str) -> Pile:
    """Look through the dead letters of a service. Each is hidden from others while we look, and then handed back."""
    pile = Pile(service)
    async with holding(system.dead_letters[service]) as hold:
        async for delivery in hold.letters():
            pile.add(read_letter(service, delivery))
        pile.elsewhere = hold.elsewhere
    return pile


async def find(system: System, beginning: str, limit: int) -> list[Letter]:
    """The letters, of every service, whose id (SQS's, or the message's) begins so; `limit` of them."""
    found: list[Letter] = []
    for service in system.dead_letters:
        async with matching(system, service, Filter(ids=(beginning,)), limit - len(found)) as letters:
            found += [letter async for letter in letters]
        if len(found) >= limit:
            break
    return found


async def references(system: System, letter: Letter) -> list[Reference]:
    """Every object that a letter's message refers to, read and checked, one after another."""
    return [Reference(ref, await _problem(system, ref)) for ref in _distinct(letter)]


def _distinct(letter: Letter) -> Iterator[ObjectRef]:
    seen: set[tuple[str, str]] = set()
    for ref in letter.objects():
        if (ref.bucket, ref.key) not in seen:
            seen.add((ref.bucket, ref.key))
            yield ref


async def _problem(system: System, ref: ObjectRef) -> str | None:
    try:
        await system.objects.get(ref)
    except (PermanentError, DependencyDownError) as error:  # a bucket that does not exist is a dependency that is down
        return str(error)
    return None
