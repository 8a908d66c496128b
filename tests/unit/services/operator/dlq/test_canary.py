"""The stops of a replay: a canary that dies again or never arrives, and a dead-letter queue that fills again.

A replay takes for its own dead the letters that count it, and batches that were not there before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from contracts.dead_letters import End
from contracts.messages import BatchIngested, encode
from services.operator.dlq.audit import NOT_REACHED
from services.operator.dlq.filters import Filter
from services.operator.dlq.letters import read_letter
from services.operator.dlq.watch import CANARY_LIMIT, StoppedError, Watch
from shared.queue import Delivery
from shared.testing import EPOCH, Partial, connection_reset
from tests.unit.services.operator.dlq.scene import SERVICE, DeadScene, failure, put_dead
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


async def test_a_replay_that_is_stopped_also_says_which_letters_it_did_not_look_at() -> None:
    scene = DeadScene()
    scene.add(5)
    await scene.dead.receive(1, wait=timedelta(0), visibility=timedelta(minutes=10))
    async with scene.serving(scene.die):
        ended = await scene.replay(canary=1)
    assert ended.end == End.STOPPED
    assert ended.detail.endswith("the other letters stay in the queue; other commands held 1 more, which were not examined")


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


def dying(is_death: Callable[[int], bool], scene: DeadScene) -> Callable[[BatchIngested], None]:
    """A service in which the n-th message dies, or not."""
    numbers = count(1)
    return lambda batch: scene.die(batch) if is_death(next(numbers)) else None


@pytest.mark.parametrize(
    ("letters", "rate", "is_death", "end", "most"),
    [
        (40, 10.0, lambda number: number <= 5, End.DONE, 40),
        (100, 10.0, lambda number: number <= 6, End.STOPPED, 30),
        (400, 50.0, lambda number: number > 100 and number % 11 == 0, End.DONE, 400),
        (400, 50.0, lambda number: number > 100 and number % 6 == 0, End.STOPPED, 399),  # 11 % of 300, 12.5 % of 400
    ],
    ids=["five", "six", "a tenth", "more than a tenth"],
)
async def test_a_refill_by_more_than_five_and_a_tenth_stops_it(
    letters: int, rate: float, is_death: Callable[[int], bool], end: End, most: int
) -> None:
    scene = DeadScene()
    scene.add(letters)
    async with scene.serving(dying(is_death, scene)):
        ended = await scene.replay(rate=rate)
    assert ended.end == end
    if end is End.STOPPED:
        fell, sent = (int(word) for word in ended.detail.split() if word.isdigit())
        assert fell > max(5, 0.1 * sent)
        assert ended.counts["replayed"] == sent <= most


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


async def watching(scene: DeadScene, batch: BatchIngested) -> Watch:
    """From before the letter of a batch was sent, as a canary."""
    watch = Watch(scene.system, SERVICE, canary=1)
    await watch.begin()
    watch.note_sent([read_letter(SERVICE, Delivery("1", encode(batch), "", 1, EPOCH, EPOCH))])
    return watch


@pytest.mark.parametrize("replays", [1, 2])
async def test_a_canary_that_is_dead_is_dead_though_its_batch_was_loaded_or_somebody_else_replayed_it(replays: int) -> None:
    scene = DeadScene()
    scene.ledger.load(batch := ingested(7))
    watch = await watching(scene, batch)
    put_dead(scene.dead, encode(batch), record=failure(replays=replays))
    with pytest.raises(StoppedError, match="a canary died again"):
        await watch.await_canaries()


@pytest.mark.parametrize("service", [SERVICE, "loading"])
async def test_a_twin_that_was_there_before_is_not_a_death_even_when_it_is_looked_at(service: str) -> None:
    scene = DeadScene()
    batch = ingested(7)
    twin = encode(batch) if service == SERVICE else encode(remodelled(batch))
    put_dead(scene.dead_letters[service], twin, record=failure(replays=0))
    watch = await watching(scene, batch)
    put_dead(scene.dead_letters[service], encode(ingested(9)))  # the count changes: it looks
    waiting = asyncio.create_task(watch.await_canaries())
    await asyncio.sleep(30)
    assert not waiting.done()
    scene.ledger.load(batch)
    await waiting
