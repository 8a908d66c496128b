"""What stops a replay: a canary that dies again or never arrives, and a dead-letter queue that fills again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from contracts.messages import BatchIngested, encode
from services.operator.dlq import actions
from services.operator.dlq.actions import Replay
from services.operator.dlq.execution import CANARY_LIMIT
from services.operator.dlq.filters import Filter
from services.operator.dlq.operation import End, Ended
from shared.testing import Partial, connection_reset
from tests.unit.services.operator.dlq.scene import Graves, bury, failure, on_loop_clock
from tests.unit.services.operator.scene import ingested, remodelled

pytestmark = pytest.mark.virtual_clock
CAREFUL = Replay(rate=1000.0, canary=2)


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


async def test_all_go_when_the_canaries_are_loaded() -> None:
    graves = Graves()
    graves.bury(30)
    seen: list[int] = []

    def load(batch: BatchIngested) -> None:
        seen.append(len(graves.alive.sent))
        graves.ledger.load(batch)

    async with graves.serving(load):
        ended = await graves.replay(how=CAREFUL)
    assert (ended.end, ended.counts) == (End.DONE, {"deleted": 30})
    assert seen[:2] == [2, 2]  # nothing else was sent before


async def test_a_canary_that_dies_again_stops_it_and_the_others_stay() -> None:
    graves = Graves()
    letters = graves.bury(30)
    async with graves.serving(graves.die):
        ended = await graves.replay(how=CAREFUL)
    assert ended.end is End.STOPPED
    assert ended.counts == {"deleted": 2, "skipped": 28}
    assert ended.detail.startswith("a canary died again (message ")
    lines = (await graves.journal()).lines
    assert {lines[one].detail for one in letters[2:]} == {"the operation was stopped before"}
    assert len(graves.dead.messages) == 30
    assert graves.hidden() == []
    assert await actions.interrupted(graves.system) == []


async def test_a_canary_s_batch_that_dies_further_down_stops_it() -> None:
    graves = Graves()
    graves.bury(5)

    def remodel(batch: BatchIngested) -> None:
        graves.die(remodelled(batch), "loading")

    async with graves.serving(remodel):
        ended = await graves.replay(how=CAREFUL)
    assert ended.end is End.STOPPED
    assert ended.detail.startswith("a canary died again")


async def test_letters_that_were_there_before_are_no_canary_s_death() -> None:
    """The same message twice among the dead, and its batch, from long ago, in the loading service's, too."""
    graves = Graves()
    first = ingested(7)
    bury(graves.dead, encode(first), encode(first), record=failure(replays=1))
    bury(graves.dead_letters["loading"], encode(remodelled(first)))
    async with graves.serving(graves.ledger.load):
        ended = await graves.replay(how=Replay(rate=1000.0, canary=1), limit=1)
    assert ended.end is End.DONE
    assert len(graves.dead.messages) == 1


async def test_a_canary_that_kills_its_process_is_recognised_by_its_replay() -> None:
    """SQS moves it by itself: the failure record is the one that the replay sent."""
    graves = Graves()
    graves.bury(5)

    async def move() -> None:
        await graves.alive.receive(1, wait=timedelta(seconds=20), visibility=timedelta(0))
        graves.dead.messages.append(graves.alive.messages.pop())

    moving = asyncio.create_task(move())
    ended = await graves.replay(how=Replay(rate=1000.0, canary=1))
    await moving
    assert ended.end is End.STOPPED
    assert ended.detail.startswith("a canary died again")


async def test_a_canary_that_never_arrives_stops_it_in_the_end() -> None:
    graves = Graves()
    graves.bury(5)
    ended = await graves.replay(how=CAREFUL)
    assert ended.end is End.STOPPED
    assert ended.detail == "2 canaries are neither loaded nor dead after 10 minutes; see `status`"
    assert asyncio.get_running_loop().time() == pytest.approx(CANARY_LIMIT.total_seconds(), abs=10)
    assert len(graves.alive.sent) == 2


async def test_canaries_are_counted_when_they_are_sent_not_when_they_are_tried() -> None:
    graves = Graves()
    graves.bury(12)
    graves.alive.faults.during(0, 5.5, Partial(), "send_all")  # one alone is always refused
    with_one = Replay(rate=1000.0, canary=1)
    async with graves.serving(graves.die):
        ended = await graves.replay(how=with_one)
    assert ended.end is End.STOPPED
    assert ended.counts == {"failed": 1, "deleted": 1, "skipped": 10}


async def test_fewer_letters_than_canaries_are_waited_for_all_the_same() -> None:
    graves = Graves()
    graves.bury(2)
    async with graves.serving(graves.die):
        ended = await graves.replay(how=Replay(rate=1000.0, canary=10))
    assert ended.end is End.STOPPED


async def test_a_moment_without_an_answer_does_not_end_the_watch() -> None:
    graves = Graves()
    graves.bury(5)
    graves.dead_letters["loading"].faults.during(0, 3, connection_reset(), "depth")
    async with graves.serving(graves.ledger.load):
        assert (await graves.replay(how=CAREFUL)).end is End.DONE


async def replay_slowly(graves: Graves, count: int, deaths: int, rate: float = 10.0) -> Ended:
    """The first `deaths` of `count` letters die again."""
    graves.bury(count)
    left = [deaths]

    def work(batch: BatchIngested) -> None:
        left[0] -= 1
        if left[0] >= 0:
            graves.die(batch)

    async with graves.serving(work):
        return await graves.replay(how=Replay(rate=rate))


async def test_a_refill_by_more_than_five_stops_it() -> None:
    graves = Graves()
    ended = await replay_slowly(graves, 100, 6)
    assert ended.end is End.STOPPED
    assert "6 dead letters fell while " in ended.detail
    assert ended.counts["deleted"] <= 30


async def test_five_deaths_are_borne() -> None:
    assert (await replay_slowly(Graves(), 40, 5)).end is End.DONE


async def test_of_many_a_tenth_is_borne_and_no_more() -> None:
    graves = Graves()
    graves.bury(300)

    def dying(share: int) -> Callable[[BatchIngested], None]:
        """From the hundredth on one in `share` dies."""
        numbers = count(1)

        def work(batch: BatchIngested) -> None:
            number = next(numbers)
            if number > 100 and number % share == 0:
                graves.die(batch)

        return work

    async with graves.serving(dying(11)):
        assert (await graves.replay(how=Replay(rate=50.0))).end is End.DONE
    graves.dead.messages.clear()
    graves.bury(300, run=2)
    async with graves.serving(dying(2)):
        ended = await graves.replay(how=Replay(rate=50.0))
    assert ended.end is End.STOPPED
    fell, sent = (int(word) for word in ended.detail.split() if word.isdigit())
    assert fell > max(5, 0.1 * sent)


async def test_what_others_let_fall_is_no_refill_of_ours() -> None:
    """Letters that a colleague restores, or hands back after a look, while the replay goes on."""
    graves = Graves()
    graves.bury(20, run=8)
    await graves.dead.receive(10, wait=timedelta(0), visibility=timedelta(seconds=3))
    await graves.dead.receive(10, wait=timedelta(0), visibility=timedelta(seconds=3))

    async def restore() -> None:
        await asyncio.sleep(6)
        graves.bury(20, run=9)
        bury(graves.dead_letters["loading"], *(encode(remodelled(ingested(9, index))) for index in range(20)))

    graves.bury(50)
    restoring = asyncio.create_task(restore())
    async with graves.serving(graves.ledger.load):
        ended = await graves.replay(Filter(runs=(1, 1)), Replay(rate=10.0))
    await restoring
    assert (ended.end, ended.counts) == (End.DONE, {"deleted": 50})


async def test_more_than_a_tenth_of_many_stops_it() -> None:
    graves = Graves()
    graves.bury(400)
    numbers = count(1)

    def work(batch: BatchIngested) -> None:
        if (number := next(numbers)) > 100 and number % 6 == 0:  # 11 % of 300, 12.5 % of 400
            graves.die(batch)

    async with graves.serving(work):
        ended = await graves.replay(how=Replay(rate=50.0))
    assert ended.end is End.STOPPED
