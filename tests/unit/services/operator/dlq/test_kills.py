"""A process that is killed at any point, after which none of its calls has an effect; then the same command again."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from contracts.dead_letters import End, Kind
from contracts.messages import decode, encode
from services.operator.dlq.audit import audit, removed
from services.operator.dlq.filters import Filter
from services.operator.dlq.looking import find
from services.operator.dlq.operations import Task, carry_out, edited, put_back
from services.operator.system import System
from tests.fixtures.virtual_clock import run_on_virtual_clock
from tests.unit.services.operator.dlq.scene import ANN, SERVICE, DeadScene, ended_of, ids_of

LETTERS, BATCH = 9, 4
EFFECTS = frozenset({"receive", "delete", "set_visibility", "send_all", "put"})
CHOSEN = Filter(runs=(7, 7))
HIDDEN_S = 61  # a killed process hides its letters for a minute


class KilledError(BaseException):
    """Must not be caught by our code."""


@dataclass
class Life:
    """Ends at the n-th effect: just before it (`is_before`), or after it but before the process learns of it."""

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

    objects: Any = Mortal(system.objects, life)
    return replace(system, queues=each(system.queues), dead_letters=each(system.dead_letters), objects=objects)


async def is_killed(work: Awaitable[object]) -> bool:
    """True if it was killed before it ended."""
    try:
        await work
    except KilledError:
        return True
    return False


def at_every_effect(play: Callable[[Life], Awaitable[bool]]) -> int:
    """Play it once for each point at which a process can be killed; return their number."""
    for effect in range(1000):
        for is_before in (True, False):
            if not run_on_virtual_clock(play(Life(effect, is_before))):  # type: ignore[arg-type]
                return effect
    raise AssertionError("it never ends")


def set_up() -> tuple[DeadScene, list[str], list[str]]:
    """Put letters for an operation among others; return the ids of both."""
    scene = DeadScene()
    return scene, scene.add(LETTERS, run=7), scene.add(3, run=8)


@pytest.mark.parametrize("limit", [None, 7])
def test_a_killed_and_rerun_replay_loses_nothing_and_duplicates_at_most_one_batch(limit: int | None) -> None:
    async def play(life: Life) -> bool:
        scene, letters, others = set_up()
        messages = {str(decode(body).id) for body in scene.dead.bodies[:LETTERS]}
        task = Task(Kind.REPLAY, CHOSEN, limit, rate=BATCH)
        if not await is_killed(carry_out(mortal(scene.system, life), SERVICE, task, ANN)):
            return False
        sent = set(scene.replayed)
        before = set(ids_of(scene.dead.messages))
        still_there = {str(decode(one.body).id) for one in scene.dead.messages} & messages
        assert sent | still_there == messages  # a letter is always somewhere
        assert len(sent & still_there) <= BATCH
        await asyncio.sleep(HIDDEN_S)
        ended = ended_of(await carry_out(scene.system, SERVICE, replace(task, limit=None), ANN))
        assert ended.counts.get("replayed", 0) == len(before & set(letters))
        assert set(scene.replayed) == messages
        assert max(scene.replayed.values()) <= 2
        assert scene.replayed.total() - LETTERS == len(sent & still_there)
        assert ids_of(scene.dead.messages) == others
        assert scene.hidden() == []
        return True

    assert at_every_effect(play) >= 10


def test_a_killed_discard_loses_nothing_and_can_be_restored_completely() -> None:
    async def play(life: Life) -> bool:
        scene, letters, others = set_up()
        before = {one.body: dict(one.attributes) for one in scene.dead.messages}
        task = Task(Kind.DISCARD, CHOSEN)
        if not await is_killed(carry_out(mortal(scene.system, life), SERVICE, task, ANN)):
            return False
        await asyncio.sleep(HIDDEN_S)
        left = set(ids_of(scene.dead.messages)) & set(letters)
        await carry_out(scene.system, SERVICE, task, ANN)
        assert ids_of(scene.dead.messages) == others
        assert scene.alive.sent == []
        counts = [(await scene.restore(one.id)).counts.get("restored", 0) for one in await audit(scene.system)]
        assert {one.body: dict(one.attributes) for one in scene.dead.messages} == before
        assert counts[-1] == len(left)
        return True

    assert at_every_effect(play) > 6


def test_a_killed_edit_loses_neither_the_original_nor_the_edited_letter() -> None:
    async def play(life: Life) -> bool:
        scene, letters, _ = set_up()
        (letter,) = await find(scene.system, letters[-1], 1)
        original, instead = letter.delivery.body, edited(letter, letter.document | {"source": "ann"})
        task = Task(Kind.EDIT, Filter(ids=(letter.id,)), limit=1, instead=instead)
        if not await is_killed(carry_out(mortal(scene.system, life), SERVICE, task, ANN)):
            return False
        await asyncio.sleep(HIDDEN_S)
        there = scene.dead.bodies.count(original), scene.dead.bodies.count(instead.body)
        assert there in ((1, 0), (1, 1), (0, 1))
        for operation in await audit(scene.system):
            taken = await removed(scene.system, operation.id)
            assert [one.body async for one in taken.letters] == [original] * (there == (0, 1))
        ended = ended_of(await carry_out(scene.system, SERVICE, task, ANN))
        assert ended.end == (End.NOTHING if there == (0, 1) else End.DONE)
        assert scene.dead.bodies.count(original) == 0
        assert scene.dead.bodies.count(instead.body) == 1 + (there == (1, 1))
        assert encode(decode(instead.body)) == instead.body
        return True

    assert at_every_effect(play) > 6


def test_a_killed_and_rerun_restore_puts_everything_back() -> None:
    """Letters that the killed operation had already restored are in the queue twice; their ids make that harmless."""

    async def play(life: Life) -> bool:
        scene, _, _ = set_up()
        before = set(scene.dead.bodies)
        await scene.discard()
        discarded = (await scene.latest()).id
        taken = await removed(scene.system, discarded)
        if not await is_killed(put_back(mortal(scene.system, life), taken, ANN)):
            return False
        put = len(scene.dead.messages)
        await scene.restore(discarded)
        assert set(scene.dead.bodies) == before
        assert len(scene.dead.messages) == LETTERS + 3 + put
        return True

    assert at_every_effect(play) >= 3
