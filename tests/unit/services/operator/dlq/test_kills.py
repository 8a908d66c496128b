"""A process that is killed anywhere: from one call on nothing of it reaches the world any more. Then `resume`."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from contracts.messages import decode, encode
from services.operator.dlq import actions
from services.operator.dlq.actions import Replay
from services.operator.dlq.filters import Filter
from services.operator.dlq.lock import LIFE, LockedError
from services.operator.dlq.operation import End, Kind, Operation, Step
from services.operator.system import System
from shared.testing import loop_now
from tests.fixtures.virtual_clock import run_on_virtual_clock
from tests.unit.services.operator.dlq.scene import ANN, SERVICE, Graves, ids_of, on_loop_clock
from tests.unit.services.operator.scene import ingested

LETTERS, LIMIT = 9, 7
EFFECTS = frozenset({"receive", "delete", "set_visibility", "send_all", "put", "replace"})
SLOW = Replay(rate=4.0)  # batches of four: a kill between them


class KilledError(BaseException):
    """No code of ours may catch it."""


@dataclass
class Life:
    """Ends at the n-th effect: `is_before` it, or when it has happened and nobody has been told."""

    effect: int
    is_before: bool
    seen: int = 0
    is_over: bool = False

    async def live(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.require()
        is_last = name in EFFECTS and self.seen == self.effect
        self.seen += name in EFFECTS
        self.is_over |= is_last and self.is_before
        self.require()
        result = await call()
        self.is_over |= is_last
        self.require()
        return result

    def require(self) -> None:
        if self.is_over:
            raise KilledError


class Mortal:
    """A queue or an object store in the hands of a process that will be killed."""

    def __init__(self, target: object, life: Life) -> None:
        self._target, self._life = target, life

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not inspect.iscoroutinefunction(method):
            return method
        return lambda *given, **named: self._life.live(name, lambda: method(*given, **named))


def mortal(system: System, life: Life) -> System:
    def each(some: Any) -> Any:
        return {name: Mortal(one, life) for name, one in some.items()}

    return replace(
        system,
        queues=each(system.queues),
        dead_letters=each(system.dead_letters),
        move_tasks=each(system.move_tasks),
        objects=Mortal(system.objects, life),
    )


async def killed(graves: Graves, operation: Operation, life: Life) -> bool:
    """Whether it was killed, and did not come to its end before."""
    try:
        await actions.do(mortal(graves.system, life), operation)
    except KilledError:
        return True
    return False


async def resumed(graves: Graves) -> bool:
    """Another process goes on, as soon as the lock of the killed one has ended."""
    found = await actions.interrupted(graves.system)
    if not found:
        return False
    if "dead-letters/locks/remodelling.json" in graves.objects.buckets["landing"]:
        with pytest.raises(LockedError, match="wait until they have"):
            await actions.resume(graves.system, found[0], ANN)
    await asyncio.sleep(LIFE.total_seconds() + 6)
    await actions.resume(graves.system, found[0], ANN)
    return True


def at_every_effect(monkeypatch: pytest.MonkeyPatch, play: Callable[[Life], Awaitable[bool]]) -> int:
    """Play it once for each point at which a process can be killed; how many there are."""
    on_loop_clock(monkeypatch)
    for effect in range(1000):
        for is_before in (True, False):
            if not run_on_virtual_clock(play(Life(effect, is_before))):  # type: ignore[arg-type]
                return effect
    raise AssertionError("it never ends")


async def set_up() -> tuple[Graves, list[str], list[str]]:
    """Letters that a replay of run 7 is about, among others; and the ids of both."""
    graves = Graves()
    wanted, others = graves.bury(LETTERS, run=7), graves.bury(3, run=8)
    return graves, wanted, others


async def replayed_in_doubt(graves: Graves) -> set[str]:
    """The messages of letters that the journal calls SENDING."""
    if not await actions.interrupted(graves.system):
        return set()
    journal = await graves.journal()
    bodies = {one.message_id: one.body for one in graves.dead.messages}
    return {str(decode(bodies[one]).id) for one in journal.at(Step.SENDING)}


async def die_again(graves: Graves) -> list[str]:
    """What has come through dies again, and nobody has chosen that: the ids of the new letters."""
    before = set(ids_of(graves.dead.messages))
    for message in graves.alive.sent:
        graves.die(decode(message.body))
    return [one for one in ids_of(graves.dead.messages) if one not in before]


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_a_replay_loses_nothing_and_doubles_only_what_was_being_sent(
    monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    async def play(life: Life) -> bool:
        graves, _, others = await set_up()
        messages = {str(decode(body).id) for body in graves.dead.bodies[:LETTERS]}
        operation = actions.replay_operation(SERVICE, Filter(runs=(7, 7)), ANN, SLOW, limit)
        if not await killed(graves, operation, life):
            return False
        in_doubt = await replayed_in_doubt(graves)
        newcomers = await die_again(graves)
        if not await resumed(graves):
            assert len(set(graves.replayed)) in (0, limit or LETTERS)
            assert len(graves.dead.messages) == LETTERS + 3 - len(set(graves.replayed)) + len(newcomers)
            return True
        (pair,) = await actions.audit(graves.system)
        assert pair[1] is not None
        assert (pair[1].end, pair[1].counts) == (End.DONE, {"deleted": limit or LETTERS})
        sent = Counter(graves.replayed)
        assert sent.keys() <= messages
        assert len(sent) == (limit or LETTERS)
        assert {one for one, count in sent.items() if count > 1} <= in_doubt
        assert max(sent.values()) <= 2
        assert {*others, *newcomers} <= set(ids_of(graves.dead.messages))
        assert graves.hidden() == []
        return True

    assert at_every_effect(monkeypatch, play) > 15


def test_a_discard_loses_nothing_and_all_of_it_can_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(life: Life) -> bool:
        graves, _, others = await set_up()
        before = {one.message_id: (one.body, dict(one.attributes)) for one in graves.dead.messages}
        if not await killed(graves, actions.discard_operation(SERVICE, Filter(runs=(7, 7)), ANN), life):
            return False
        if not await resumed(graves) and graves.keys("ended") == []:
            assert len(graves.dead.messages) == LETTERS + 3
            return True
        assert ids_of(graves.dead.messages) == others
        assert graves.alive.sent == []
        kept = [one async for one in await actions.removed(graves.system, await graves.operation())]
        assert {one.message_id: (one.body, one.attributes) for one in kept} == {
            one: told for one, told in before.items() if one not in others
        }
        assert len(kept) == LETTERS
        return True

    assert at_every_effect(monkeypatch, play) > 10


def test_an_edited_letter_is_there_and_its_original_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    edited = encode(ingested(99))

    async def play(life: Life) -> bool:
        graves, wanted, _ = await set_up()
        original = graves.dead.messages[LETTERS - 1].body
        operation = Operation(
            id="1", kind=Kind.EDIT, service=SERVICE, operator="ann", reason="", began_at=loop_now(),
            filter=Filter(ids=(wanted[-1],)), limit=1, body=edited,
        )  # fmt: skip
        if not await killed(graves, operation, life):
            return False
        in_doubt = await replayed_in_doubt(graves)
        if not await resumed(graves) and graves.keys("ended") == []:
            assert graves.dead.bodies.count(original) == 1
            return True
        assert graves.dead.bodies.count(original) == 0
        assert 1 <= graves.dead.bodies.count(edited) <= 1 + len(in_doubt)
        assert [one.body async for one in await actions.removed(graves.system, operation)] == [original]
        assert len(graves.dead.messages) - graves.dead.bodies.count(edited) == LETTERS + 2
        return True

    assert at_every_effect(monkeypatch, play) > 10


def test_a_restore_that_is_killed_says_what_it_has_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be resumed, and above all not as if it were a replay: that would empty the queue."""

    async def play(life: Life) -> bool:
        graves, _, _ = await set_up()
        await graves.discard()
        discarded = await graves.operation()
        await asyncio.sleep(1)

        async def restore(system: System) -> None:
            await actions.restore(system, SERVICE, await actions.removed(system, discarded), ANN)

        try:
            await restore(mortal(graves.system, life))
        except KilledError:
            pass
        else:
            return False
        assert await actions.interrupted(graves.system) == []
        told = {} if (await graves.operation()) == discarded else await graves.steps()
        put_back = len(graves.dead.messages)
        assert sum(step == "sent" for step in told.values()) <= put_back
        assert put_back <= sum(step in {"sent", "sending"} for step in told.values())
        await asyncio.sleep(LIFE.total_seconds() + 6)
        await restore(graves.system)
        assert len(graves.dead.messages) == put_back + LETTERS + 3
        return True

    assert at_every_effect(monkeypatch, play) > 5
