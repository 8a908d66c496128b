"""What stops a replay: a canary that dies again or never arrives, and a dead-letter queue that fills again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from contracts.dead_letters import End, Ended
from contracts.messages import BatchIngested, encode
from services.operator.dlq.audit import NOT_REACHED
from services.operator.dlq.filters import Filter
from services.operator.dlq.watch import CANARY_LIMIT
from shared.testing import Partial, connection_reset
from tests.unit.services.operator.dlq.scene import DeadScene, failure, put_dead
from tests.unit.services.operator.scene import ingested, remodelled

pytestmark = pytest.mark.virtual_clock


async def test_all_go_when_the_canaries_are_loaded() -> None:
    scene = DeadScene()
    scene.add(30)
    seen: list[int] = []

    def load(batch: BatchIngested) -> None:
        seen.append(len(scene.alive.sent))
        scene.ledger.load(batch)

    async with scene.serving(load):
        ended = await scene.replay(canary=2)
    assert (ended.end, ended.counts) == (End.DONE, {"replayed": 30})
    assert seen[:2] == [2, 2]  # nothing else was sent before


async def test_a_canary_that_dies_again_stops_it_and_the_others_stay() -> None:
    scene = DeadScene()
    letters = scene.add(30)
    async with scene.serving(scene.die):
        ended = await scene.replay(canary=2)
    assert ended.end == End.STOPPED
    assert ended.counts == {"replayed": 2, "left": 28}
    assert ended.detail.startswith("a canary died again (message ")
    assert ended.outcomes == {"replayed": tuple(letters[:2]), NOT_REACHED: tuple(letters[2:])}
    assert len(scene.dead.messages) == 30
    assert scene.hidden() == []


async def test_a_canary_s_batch_that_dies_further_down_stops_it() -> None:
    scene = DeadScene()
    scene.add(5)

    def remodel(batch: BatchIngested) -> None:
        scene.die(remodelled(batch), "loading")

    async with scene.serving(remodel):
        ended = await scene.replay(canary=2)
    assert ended.end == End.STOPPED
    assert ended.detail.startswith("a canary died again")


async def test_letters_that_were_there_before_are_no_canary_s_death() -> None:
    """The same message twice among the dead, and its batch, from long ago, also in the loading service's."""
    scene = DeadScene()
    first = ingested(7)
    put_dead(scene.dead, encode(first), encode(first), record=failure(replays=1))
    put_dead(scene.dead_letters["loading"], encode(remodelled(first)))
    async with scene.serving(scene.ledger.load):
        ended = await scene.replay(canary=1, limit=1)
    assert ended.end == End.DONE
    assert len(scene.dead.messages) == 1


async def test_a_canary_that_kills_its_process_is_recognised_by_its_replay() -> None:
    """SQS moves it by itself: the failure record is the one that the replay sent."""
    scene = DeadScene()
    scene.add(5)

    async def move() -> None:
        await scene.alive.receive(1, wait=timedelta(seconds=20), visibility=timedelta(0))
        scene.dead.messages.append(scene.alive.messages.pop())

    moving = asyncio.create_task(move())
    ended = await scene.replay(canary=1)
    await moving
    assert ended.end == End.STOPPED
    assert ended.detail.startswith("a canary died again")


async def test_a_canary_that_never_arrives_stops_it_in_the_end() -> None:
    scene = DeadScene()
    scene.add(5)
    ended = await scene.replay(canary=2)
    assert ended.end == End.STOPPED
    assert ended.detail == "2 canaries are neither loaded nor dead after 10 minutes; see `status`"
    assert asyncio.get_running_loop().time() == pytest.approx(CANARY_LIMIT.total_seconds(), abs=10)
    assert len(scene.alive.sent) == 2


async def test_canaries_are_counted_when_they_are_sent_not_when_they_are_tried() -> None:
    scene = DeadScene()
    scene.add(12)
    scene.alive.faults.during(0, 5.5, Partial(), "send_all")  # one alone is always refused
    async with scene.serving(scene.die):
        ended = await scene.replay(canary=1)
    assert ended.end == End.STOPPED
    assert ended.counts == {"replayed": 1, "left": 11}


async def test_fewer_letters_than_canaries_are_waited_for_all_the_same() -> None:
    scene = DeadScene()
    scene.add(2)
    async with scene.serving(scene.die):
        ended = await scene.replay(canary=10)
    assert ended.end == End.STOPPED


async def test_a_moment_without_an_answer_does_not_end_the_watch() -> None:
    scene = DeadScene()
    scene.add(5)
    scene.dead_letters["loading"].faults.during(0, 3, connection_reset(), "depth")
    async with scene.serving(scene.ledger.load):
        assert (await scene.replay(canary=2)).end == End.DONE


async def replay_slowly(scene: DeadScene, count: int, deaths: int, rate: float = 10.0) -> Ended:
    """The first `deaths` of `count` letters die again."""
    scene.add(count)
    left = [deaths]

    def work(batch: BatchIngested) -> None:
        left[0] -= 1
        if left[0] >= 0:
            scene.die(batch)

    async with scene.serving(work):
        return await scene.replay(rate=rate)


async def test_a_refill_by_more_than_five_stops_it() -> None:
    scene = DeadScene()
    ended = await replay_slowly(scene, 100, 6)
    assert ended.end == End.STOPPED
    assert "6 letters died again while " in ended.detail
    assert ended.counts["replayed"] <= 30


async def test_five_deaths_are_borne() -> None:
    assert (await replay_slowly(DeadScene(), 40, 5)).end == End.DONE


async def test_of_many_a_tenth_is_borne_and_no_more() -> None:
    scene = DeadScene()
    scene.add(300)

    def dying(share: int) -> Callable[[BatchIngested], None]:
        """From the hundredth on one in `share` dies."""
        numbers = count(1)

        def work(batch: BatchIngested) -> None:
            number = next(numbers)
            if number > 100 and number % share == 0:
                scene.die(batch)

        return work

    async with scene.serving(dying(11)):
        assert (await scene.replay(rate=50.0)).end == End.DONE
    scene.dead.messages.clear()
    scene.add(300, run=2)
    async with scene.serving(dying(2)):
        ended = await scene.replay(rate=50.0)
    assert ended.end == End.STOPPED
    fell, sent = (int(word) for word in ended.detail.split() if word.isdigit())
    assert fell > max(5, 0.1 * sent)


async def test_what_others_let_fall_is_no_refill_of_ours() -> None:
    """Letters that a colleague restores, or hands back after a look, while the replay goes on."""
    scene = DeadScene()
    scene.add(20, run=8)
    await scene.dead.receive(10, wait=timedelta(0), visibility=timedelta(seconds=3))
    await scene.dead.receive(10, wait=timedelta(0), visibility=timedelta(seconds=3))

    async def restore() -> None:
        await asyncio.sleep(6)
        scene.add(20, run=9)
        put_dead(scene.dead_letters["loading"], *(encode(remodelled(ingested(9, index))) for index in range(20)))

    scene.add(50)
    restoring = asyncio.create_task(restore())
    async with scene.serving(scene.ledger.load):
        ended = await scene.replay(Filter(runs=(1, 1)), rate=10.0)
    await restoring
    assert (ended.end, ended.counts) == (End.DONE, {"replayed": 50})


async def test_more_than_a_tenth_of_many_stops_it() -> None:
    scene = DeadScene()
    scene.add(400)
    numbers = count(1)

    def work(batch: BatchIngested) -> None:
        if (number := next(numbers)) > 100 and number % 6 == 0:  # 11 % of 300, 12.5 % of 400
            scene.die(batch)

    async with scene.serving(work):
        ended = await scene.replay(rate=50.0)
    assert ended.end == End.STOPPED
