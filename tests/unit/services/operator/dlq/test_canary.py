"""The stops of a replay: a canary that dies again or never arrives, and a dead-letter queue that fills again.

A replay counts as its own dead the letters that record it, and batches that were not there before.
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


async def test_all_letters_are_replayed_once_the_canaries_are_loaded() -> None:
    scene = DeadScene()
    scene.add(30)
    seen: list[int] = []

    def load(batch: BatchIngested) -> None:
        seen.append(len(scene.alive.sent))
        scene.ledger.load(batch)

    async with scene.serving(load):
        ended = await scene.replay(canary=2)
    assert (ended.end, ended.counts) == (End.DONE, {"replayed": 30})
    assert seen[:2] == [2, 2]  # nothing else was sent earlier


async def test_a_canary_that_dies_again_stops_the_replay_and_the_others_stay() -> None:
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


async def test_a_stopped_replay_also_lists_the_letters_it_did_not_examine() -> None:
    scene = DeadScene()
    scene.add(5)
    await scene.dead.receive(1, wait=timedelta(0), visibility=timedelta(minutes=10))
    async with scene.serving(scene.die):
        ended = await scene.replay(canary=1)
    assert ended.end == End.STOPPED
    assert ended.detail.endswith("the other letters stay in the queue; other commands held 1 more, which were not examined")


async def test_a_canary_s_batch_that_dies_downstream_stops_the_replay() -> None:
    scene = DeadScene()
    scene.add(5)

    def remodel(batch: BatchIngested) -> None:
        scene.die(remodelled(batch), "loading")

    async with scene.serving(remodel):
        ended = await scene.replay(canary=2)
    assert ended.end == End.STOPPED
    assert ended.detail.startswith("a canary died again")


async def test_letters_from_before_the_replay_do_not_count_as_a_canary_s_death() -> None:
    """The same message is already in the dead-letter queue, and its batch in that of loading, both from long ago."""
    scene = DeadScene()
    first = ingested(7)
    put_dead(scene.dead, encode(first), encode(first), record=failure(replays=1))
    put_dead(scene.dead_letters["loading"], encode(remodelled(first)))
    async with scene.serving(scene.ledger.load):
        ended = await scene.replay(canary=1, limit=1)
    assert ended.end == End.DONE
    assert len(scene.dead.messages) == 1


async def test_a_canary_that_kills_its_process_is_recognised_by_its_replay_count() -> None:
    """SQS moves it by itself, so its failure record is the one that the replay sent."""
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


async def test_a_canary_that_never_arrives_stops_the_replay_in_the_end() -> None:
    scene = DeadScene()
    scene.add(5)
    ended = await scene.replay(canary=2)
    assert ended.end == End.STOPPED
    assert ended.detail == "2 canaries are neither loaded nor dead after 10 minutes; see `status`"
    assert asyncio.get_running_loop().time() == pytest.approx(CANARY_LIMIT.total_seconds(), abs=10)
    assert len(scene.alive.sent) == 2


async def test_canaries_are_counted_when_sent_and_not_when_attempted() -> None:
    scene = DeadScene()
    scene.add(12)
    scene.alive.faults.during(0, 5.5, Partial(), "send_all")  # one alone is always refused
    async with scene.serving(scene.die):
        ended = await scene.replay(canary=1)
    assert ended.end == End.STOPPED
    assert ended.counts == {"replayed": 1, "left": 11}


async def test_fewer_letters_than_canaries_are_awaited_as_canaries() -> None:
    scene = DeadScene()
    scene.add(2)
    async with scene.serving(scene.die):
        ended = await scene.replay(canary=10)
    assert ended.end == End.STOPPED


async def test_a_short_outage_does_not_end_the_watch() -> None:
    scene = DeadScene()
    scene.add(5)
    scene.dead_letters["loading"].faults.during(0, 3, connection_reset(), "depth")
    async with scene.serving(scene.ledger.load):
        assert (await scene.replay(canary=2)).end == End.DONE


def dying(is_death: Callable[[int], bool], scene: DeadScene) -> Callable[[BatchIngested], None]:
    """A service in which the n-th message dies or succeeds."""
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
async def test_a_refill_by_more_than_five_plus_ten_percent_stops_the_replay(
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


async def test_letters_added_by_others_do_not_count_as_a_refill() -> None:
    """A colleague restores letters, or hands them back after a look, while the replay goes on."""
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
    """A watch that began before the letter of a batch was sent as a canary."""
    watch = Watch(scene.system, SERVICE, canary=1)
    await watch.begin()
    watch.note_sent([read_letter(SERVICE, Delivery("1", encode(batch), "", 1, EPOCH, EPOCH))])
    return watch


@pytest.mark.parametrize("replays", [1, 2])
async def test_a_dead_canary_counts_as_dead_even_if_it_was_loaded_or_replayed_by_another(replays: int) -> None:
    scene = DeadScene()
    scene.ledger.load(batch := ingested(7))
    watch = await watching(scene, batch)
    put_dead(scene.dead, encode(batch), record=failure(replays=replays))
    with pytest.raises(StoppedError, match="a canary died again"):
        await watch.await_canaries()


@pytest.mark.parametrize("service", [SERVICE, "loading"])
async def test_an_earlier_copy_of_a_canary_does_not_count_as_its_death(service: str) -> None:
    scene = DeadScene()
    batch = ingested(7)
    twin = encode(batch) if service == SERVICE else encode(remodelled(batch))
    put_dead(scene.dead_letters[service], twin, record=failure(replays=0))
    watch = await watching(scene, batch)
    put_dead(scene.dead_letters[service], encode(ingested(9)))  # the count changes, so the watch reads the queue
    waiting = asyncio.create_task(watch.await_canaries())
    await asyncio.sleep(30)
    assert not waiting.done()
    scene.ledger.load(batch)
    await waiting
