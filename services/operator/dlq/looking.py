"""Looking at dead letters: what there is, what one of them holds, and what a replay would do. Nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from contracts.failure import FailureRecord
from contracts.objects import ObjectRef
from services.operator.dlq.filters import Filter
from services.operator.dlq.hold import Hold, holding
from services.operator.dlq.letters import Letter
from services.operator.system import System
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.ledger import loaded_batches
from shared.queue import require_sendable

REPLAYS_MAXIMUM = 3  # of one message, without force
LEDGER_TIMEOUT = timedelta(seconds=5)  # of a warehouse that does not answer; letters are shown without what it knows


class Group(BaseModel, frozen=True):
    """Dead letters with one fingerprint."""

    fingerprint: str
    error_type: str
    message: str  # what the failure record of the first one says
    letter: str  # SQS's id of the first one
    problem: str | None  # why that one can't go back
    first_failed_at: datetime
    last_failed_at: datetime
    count: int = 0
    unsendable: int = 0  # how many of them can't go back
    loaded: int | None = None  # of how many the batch is in the warehouse by now; None: the warehouse could not be asked


class Pile(BaseModel, frozen=True):
    """The dead letters of one service."""

    service: str
    letters: int  # that were seen
    in_hand_elsewhere: int  # about how many others held, so that they were not seen
    oldest: datetime | None  # when a letter first failed
    groups: tuple[Group, ...]  # the most frequent first


class Reference(ObjectRef):
    """An object that a message refers to."""

    problem: str | None  # what is wrong with it, and what to do


class LetterView(BaseModel, frozen=True):
    """A dead letter with all that is known of it."""

    letter: str  # SQS's id
    service: str
    body: str  # as it was received
    message: Any  # the body as JSON; null for other text
    problem: str | None  # why it can't go back
    failure: FailureRecord
    sent_at: datetime  # when it came into the dead-letter queue
    receive_count: int  # looks at it, also by people
    attributes: dict[str, str]
    loaded: bool | None  # whether its batch is in the warehouse by now; null: it has none, or the warehouse could not be asked
    snapshot_at: str | None  # when its rows were read, in ISO 8601
    objects: tuple[Reference, ...]


class Decision(BaseModel, frozen=True):
    """What a replay would do with a letter."""

    letter: str  # SQS's id
    service: str
    event: str | None  # id of the message
    type: str | None  # of the message
    run: int | None
    error: str  # type of the error
    replays: int  # how often it was replayed
    decision: Literal["send", "skip"]
    because: str | None  # why it is skipped


class Plan(BaseModel, frozen=True):
    """What a replay would do with the letters of one service."""

    service: str
    decisions: tuple[Decision, ...]
    in_hand_elsewhere: int  # about how many others held, so that it is not known what would become of them


async def matching(
    system: System, hold: Hold, chosen: Filter, limit: int | None = None, *, patience: timedelta = timedelta(0)
) -> AsyncIterator[Letter]:
    """The letters that `chosen` matches, `limit` at most; `hold.elsewhere` then counts those that could not be looked at."""
    count = 0
    loaded = await _loaded(system, None) if chosen.loaded else set()  # all at once: a question for each letter takes an hour
    async for letter in hold.letters(patience=patience):
        if chosen.matches(letter) and (not chosen.loaded or letter.batch_id in loaded):
            yield letter
            count += 1
            if count == limit:
                hold.elsewhere = 0
                return


async def survey(system: System, service: str) -> Pile:
    """Look through the dead letters of a service."""
    groups: dict[str, Group] = {}
    batches: dict[str, list[UUID | None]] = {}
    async with holding(system, service) as hold:
        async for letter in hold.letters():
            key = letter.failure.fingerprint
            groups[key] = _grown(groups.get(key), letter)
            batches.setdefault(key, []).append(letter.batch_id)
        elsewhere = hold.elsewhere
    loaded = await _loaded_if_known(system, {one for some in batches.values() for one in some})
    if loaded is not None:
        for key, ids in batches.items():
            groups[key] = groups[key].model_copy(update={"loaded": sum(one in loaded for one in ids)})
    return Pile(
        service=service,
        letters=sum(group.count for group in groups.values()),
        in_hand_elsewhere=elsewhere,
        oldest=min((group.first_failed_at for group in groups.values()), default=None),
        groups=tuple(sorted(groups.values(), key=lambda group: -group.count)),
    )


def _grown(group: Group | None, letter: Letter) -> Group:
    """The group with one more letter, or a new one."""
    failure = letter.failure
    group = group or Group(
        fingerprint=failure.fingerprint,
        error_type=failure.error_type,
        message=failure.message,
        letter=letter.id,
        problem=letter.problem,
        first_failed_at=failure.first_failed_at,
        last_failed_at=failure.last_failed_at,
    )
    grown = {
        "count": group.count + 1,
        "unsendable": group.unsendable + (letter.problem is not None),
        "first_failed_at": min(group.first_failed_at, failure.first_failed_at),
        "last_failed_at": max(group.last_failed_at, failure.last_failed_at),
    }
    return group.model_copy(update=grown)


async def find(system: System, beginning: str, limit: int) -> list[Letter]:
    """The letters, of every service, whose id (SQS's, or the message's) begins so; `limit` of them."""
    found: list[Letter] = []
    for service in system.dead_letters:
        async with holding(system, service) as hold:
            found += [one async for one in matching(system, hold, Filter(ids=(beginning,)), limit - len(found))]
        if len(found) >= limit:
            break
    return found


async def described(system: System, letter: Letter) -> LetterView:
    """All that is known of a letter; the objects that it refers to are read and checked."""
    loaded = None if letter.batch_id is None else await _loaded_if_known(system, [letter.batch_id])
    return LetterView(
        letter=letter.id,
        service=letter.service,
        body=letter.delivery.body,
        message=letter.document,
        problem=letter.problem,
        failure=letter.failure,
        sent_at=letter.delivery.sent_at,
        receive_count=letter.delivery.receive_count,
        attributes=dict(letter.delivery.attributes),
        loaded=None if loaded is None else bool(loaded),
        snapshot_at=letter.snapshot_at,
        objects=tuple([Reference(**ref.model_dump(), problem=await _problem(system, ref)) for ref in letter.objects()]),
    )


async def plan(system: System, service: str, chosen: Filter, limit: int | None = None, *, force: bool = False) -> Plan:
    """What a replay would do with the letters of a service."""
    async with holding(system, service) as hold:
        decisions = [_decision(one, force=force) async for one in matching(system, hold, chosen, limit)]
        return Plan(service=service, decisions=tuple(decisions), in_hand_elsewhere=hold.elsewhere)


def _decision(letter: Letter, *, force: bool) -> Decision:
    because = reason_to_skip(letter, force=force)
    return Decision(
        letter=letter.id,
        service=letter.service,
        event=letter.event_id,
        type=letter.type,
        run=letter.run,
        error=letter.failure.error_type,
        replays=letter.failure.replays,
        decision="send" if because is None else "skip",
        because=because,
    )


def reason_to_skip(letter: Letter, *, force: bool) -> str | None:
    """Why a letter is not replayed; None: it is."""
    if letter.problem is not None:
        return letter.problem
    if letter.failure.replays >= REPLAYS_MAXIMUM and not force:
        return f"it was replayed {letter.failure.replays} times already; find out why it fails, or pass --force"
    outgoing = letter.outgoing
    try:
        require_sendable(letter.service, outgoing)
    except PermanentError as error:
        return str(error)
    return None


async def _loaded(system: System, batches: Collection[UUID | None] | None) -> set[UUID]:
    """The batches that are in the warehouse: those of `batches`, or all."""
    wanted = None if batches is None else [one for one in batches if one is not None]
    if wanted == []:
        return set()
    async with system.warehouse.transaction(readonly=True) as connection:
        return await loaded_batches(connection, system.contract, wanted)


async def _loaded_if_known(system: System, batches: Collection[UUID | None]) -> set[UUID] | None:
    """As `_loaded`; None when the warehouse can't be asked: dead letters are looked at because something does not work."""
    try:
        async with asyncio.timeout(LEDGER_TIMEOUT.total_seconds()):
            return await _loaded(system, batches)
    except (DependencyDownError, PermanentError, TransientError, TimeoutError):
        return None


async def _problem(system: System, ref: ObjectRef) -> str | None:
    """What is wrong with an object, and what to do."""
    try:
        await system.objects.get(ref)
    except (
        PermanentError,
        TransientError,
        DependencyDownError,
    ) as error:  # a bucket that does not exist is a dependency that is down
        return str(error)
    return None
