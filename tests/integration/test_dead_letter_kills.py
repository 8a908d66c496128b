"""SIGKILL at each point of a replay, on real queues and a real bucket; then the same replay again."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections import Counter

import pytest

from contracts.dead_letters import End
from contracts.messages import decode
from infra.local.localstack import LocalStack
from services.operator.dlq import hold
from services.operator.dlq.audit import audit
from services.operator.dlq.operations import carry_out
from services.operator.system import System
from shared.service import Clients, open_clients
from tests.fixtures.limits import HANG_S
from tests.fixtures.localstack import REGION
from tests.integration.dead_letter_process import ANN, POINTS, SERVICE, TASK, VISIBILITY, Point, in_a_hurry, work
from tests.integration.dead_letter_stand import Stand, drained, letters, stands_on, system_of

pytestmark = pytest.mark.localstack
CHOSEN, OTHERS = 12, 3
BATCH = 10  # at this rate
AT_ONCE = 6
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.integration.dead_letter_process"])


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "VISIBILITY_MINIMUM", hold.VISIBILITY_MINIMUM)  # undone at the end
    in_a_hurry()


@pytest.fixture
def stands(localstack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> list[Stand]:
    made = stands_on(localstack, len(POINTS))
    for name, value in made[0].aws.items():
        monkeypatch.setenv(name, value)
    return made


async def kill(stand: Stand, point: Point) -> None:
    """Run a process that begins to replay and ends by SIGKILL."""
    process = _PROCESSES.Process(target=work, args=(stand.values, stand.aws, point))
    process.start()
    await asyncio.to_thread(process.join, HANG_S)
    assert process.exitcode == -signal.SIGKILL, f"{point}: {process.exitcode}"


async def ended_in(system: System) -> list[str | None]:
    return [one.ended.end if one.ended else None for one in await audit(system)]


async def play(stand: Stand, clients: Clients, point: Point) -> int:
    """Replay letters, kill the replay and repeat it; nothing is lost. Returns how many messages were sent twice."""
    system = system_of(stand, clients)
    dead = system.dead_letters[SERVICE]
    chosen, others = letters(CHOSEN, run=7), letters(OTHERS, run=8)
    await dead.send_all(chosen)
    await dead.send_all(others)
    await kill(stand, point)
    assert await ended_in(system) == [End.DONE if point.what == "ended/" else None], point
    await asyncio.sleep(VISIBILITY.total_seconds())
    await carry_out(system, SERVICE, TASK, ANN)
    assert (await ended_in(system))[-1] == (End.NOTHING if point.what == "ended/" else End.DONE), point
    sent = Counter(str(decode(one.body).id) for one in await drained(system.queues[SERVICE]))
    assert sent.keys() == {str(decode(one.body).id) for one in chosen}, point
    assert max(sent.values()) <= 2, point
    assert {one.body for one in await drained(dead)} == {one.body for one in others}, point
    return sum(count > 1 for count in sent.values())


async def test_a_replay_killed_anywhere_loses_nothing_and_doubles_only_the_batch_being_sent(
    stands: list[Stand],
) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    async with open_clients(REGION) as clients:

        async def in_turn(stand: Stand, point: Point) -> int:
            async with turns:
                return await play(stand, clients, point)

        found = await asyncio.gather(*(in_turn(stand, point) for stand, point in zip(stands, POINTS, strict=True)))
    doubled = {str(point): count for point, count in zip(POINTS, found, strict=True) if count}
    print(f"sent twice: {doubled}")  # noqa: T201
    assert doubled == {"after send_all": BATCH}
