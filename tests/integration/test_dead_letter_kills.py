"""SIGKILL at each state of the journal, on real queues and a real bucket; then `resume`."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections import Counter
from dataclasses import dataclass

import pytest

from contracts.messages import decode
from infra.local.localstack import LocalStack
from services.operator.dlq import actions, hold, lock
from services.operator.dlq.actions import Replay
from services.operator.dlq.filters import Filter
from services.operator.dlq.lock import LockedError
from services.operator.dlq.operation import Author, End, Operation, Step
from services.operator.system import System
from shared.service import Clients, open_clients
from tests.fixtures.limits import HANG_S
from tests.fixtures.localstack import REGION
from tests.integration.dead_letter_process import POINTS, Point, in_a_hurry, work
from tests.integration.dead_letter_stand import SERVICE, Stand, drained, letters, stands_on, system_of

pytestmark = pytest.mark.localstack
CHOSEN, OTHERS, NEWCOMERS = 12, 3, 2
AT_ONCE = 6
BOB = Author("bob", "test")
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.integration.dead_letter_process"])


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, names in ((hold, ["VISIBILITY_MINIMUM"]), (lock, ["LIFE", "RENEWAL", "CLOCK_SKEW"])):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))  # undone at the end
    in_a_hurry()


@pytest.fixture
def stands(localstack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> list[Stand]:
    made = stands_on(localstack, len(POINTS))
    for name, value in made[0].aws.items():
        monkeypatch.setenv(name, value)
    return made


@dataclass(frozen=True)
class Left:
    """What a killed process has left."""

    point: Point
    is_begun: bool
    is_chosen: bool
    steps: Counter[str]
    in_doubt: frozenset[str]  # ids of letters that the journal calls SENDING


async def kill(stand: Stand, operation: Operation, point: Point) -> None:
    """A process that begins with the operation, and ends by SIGKILL."""
    process = _PROCESSES.Process(target=work, args=(stand.values, stand.aws, operation.model_dump_json(), point))
    process.start()
    await asyncio.to_thread(process.join, HANG_S)
    assert process.exitcode == -signal.SIGKILL, f"{point}: {process.exitcode}"


async def look(system: System, operation: Operation, point: Point) -> Left:
    begun = [one.id for one, _ in await actions.audit(system)]
    journal = await actions.journal_of(system, operation)
    return Left(
        point,
        is_begun=operation.id in begun,
        is_chosen=journal.is_chosen,
        steps=Counter(line.step.value for line in journal.lines.values()),
        in_doubt=frozenset(journal.at(Step.SENDING)),
    )


async def resume(system: System, operation: Operation) -> None:
    """As soon as the lock of the killed one has ended."""
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                await actions.resume(system, operation, BOB)
            except LockedError as error:
                if "has ended operation" in str(error):
                    return
                await asyncio.sleep(0.2)
            else:
                return


async def play(stand: Stand, clients: Clients, point: Point) -> Left:
    """Letters, a kill, letters that match and arrive too late, a resume; nothing is lost, nothing is doubled without reason."""
    system = system_of(stand, clients)
    dead = system.dead_letters[SERVICE]
    chosen, others, newcomers = letters(CHOSEN, run=7), letters(OTHERS, run=8), letters(NEWCOMERS, run=7)
    ids = await dead.send_all(chosen)
    await dead.send_all(others)
    events = {str(one): str(decode(letter.body).id) for one, letter in zip(ids, chosen, strict=True)}
    operation = actions.replay_operation(SERVICE, Filter(runs=(7, 7)), Author("ann", "test"), Replay(rate=20.0))
    await kill(stand, operation, point)
    left = await look(system, operation, point)
    await dead.send_all(newcomers)
    expected = set(events.values())
    if left.is_begun:
        await resume(system, operation)
        ((_, ended),) = await actions.audit(system)
        assert ended is not None
        late = 0 if left.is_chosen else NEWCOMERS
        assert (ended.end, ended.counts) == (End.DONE, {"deleted": CHOSEN + late}), point
        expected |= set() if left.is_chosen else {str(decode(one.body).id) for one in newcomers}
    else:
        expected = set()
    sent = Counter(str(decode(one.body).id) for one in await drained(system.queues[SERVICE]))
    assert sent.keys() == expected, point
    assert {one for one, count in sent.items() if count > 1} <= {events[one] for one in left.in_doubt}, point
    assert max(sent.values(), default=1) <= 2, point
    await asyncio.sleep(0 if left.is_begun else 3)  # nobody waits for what such a process hides
    stayed = {one.body for one in await drained(dead)}
    everything = {one.body for one in (*chosen, *others, *newcomers)}
    assert stayed == {body for body in everything if str(decode(body).id) not in expected}, point
    return left


async def test_wherever_it_is_killed_nothing_is_lost_and_only_what_was_being_sent_is_doubled(stands: list[Stand]) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    async with open_clients(REGION) as clients:

        async def in_turn(stand: Stand, point: Point) -> Left:
            async with turns:
                return await play(stand, clients, point)

        found = await asyncio.gather(*(in_turn(stand, point) for stand, point in zip(stands, POINTS, strict=True)))
    for left in found:
        print(f"{left.point!s:<24} {dict(left.steps)}{', all chosen' if left.is_chosen else ''}")  # noqa: T201
    assert any(left.in_doubt for left in found)
    assert {left.is_chosen for left in found} == {True, False}
