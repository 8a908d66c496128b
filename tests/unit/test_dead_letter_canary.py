"""What stops a replay: a canary that dies again or never arrives, and a dead-letter queue that fills again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from uuid import uuid4

import pytest

from contracts.messages import (
    BatchIngested,
    BatchRemodelled,
    BatchRemodelledData,
    IngestSource,
    IngestSourceData,
    Trigger,
    encode,
)
from services.operator.dlq import actions
from services.operator.dlq.actions import Replay
from services.operator.dlq.execution import CANARY_LIMIT
from services.operator.dlq.filters import Filter
from services.operator.dlq.operation import End, Ended
from shared.envelope import caused_by, opening
from shared.testing import Partial, connection_reset
from tests.unit.dead_letter_scene import ALL, ANN, Graves, bury, failure, on_loop_clock
from tests.unit.operator_scene import BEGAN, SOURCE, ingested

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


class Commands(Graves):
    """Dead commands to read the source."""

    @staticmethod
    def command(trigger: Trigger = Trigger.OPERATOR, minutes: int = -1) -> IngestSource:
        """One that was given so many minutes after the runs here began."""
        data = IngestSourceData(source_name=SOURCE, trigger=trigger)
        return IngestSource(**{**opening("tests"), "time": BEGAN + timedelta(minutes=minutes)}, data=data)

    async def replay_command(self, command: IngestSource) -> Ended:
        bury(self.dead_letters["ingestion"], encode(command))
        how = Replay(rate=10.0, canary=1)
        return await actions.do(self.system, actions.replay_operation("ingestion", ALL, ANN, how))


async def test_a_command_lives_when_the_run_that_it_asked_for_is_loaded() -> None:
    graves = Commands()
    await graves.end_run(7)
    running = asyncio.create_task(graves.replay_command(command := graves.command()))
    await asyncio.sleep(30)
    manifest = await graves.end_run(8, requested_by=command.id)
    await asyncio.sleep(30)
    assert not running.done()
    graves.ledger.load(*manifest.batches)
    assert (await running).end is End.DONE


@pytest.mark.parametrize("trigger", list(Trigger))
async def test_a_run_that_somebody_else_asked_for_says_nothing_of_a_command(trigger: Trigger) -> None:
    """It was under way already; the command's own run has not begun, and may die of what killed it before."""
    graves = Commands()
    await graves.end_run(7)
    running = asyncio.create_task(graves.replay_command(command := graves.command(trigger, minutes=1)))
    await asyncio.sleep(5)
    graves.ledger.load(*(await graves.end_run(8)).batches)
    await asyncio.sleep(30)
    assert not running.done()
    graves.ledger.load(*(await graves.end_run(9, requested_by=command.id)).batches)
    assert (await running).end is End.DONE


async def test_a_scheduled_command_lives_when_a_later_run_has_found_nothing_to_read() -> None:
    """Such a run leaves no manifest, only when it began."""
    graves = Commands()
    await graves.remember(7)
    running = asyncio.create_task(graves.replay_command(graves.command(Trigger.SCHEDULE, minutes=1)))
    await asyncio.sleep(30)
    assert not running.done()
    await graves.remember(8, began=BEGAN + timedelta(minutes=2))
    assert (await running).end is End.DONE


async def test_a_command_whose_run_dies_further_down_is_dead() -> None:
    graves = Commands()
    await graves.end_run(7)
    bury(graves.dead_letters["remodelling"], encode(ingested(7)))  # of an earlier run
    running = asyncio.create_task(graves.replay_command(graves.command()))
    await asyncio.sleep(30)
    assert not running.done()
    graves.die((await graves.end_run(8)).batches[0])
    ended = await running
    assert ended.end is End.STOPPED
    assert ended.detail.startswith("a canary died again")


async def test_a_batch_of_a_run_that_had_ended_before_is_no_death_of_a_command() -> None:
    graves = Commands()
    await graves.end_run(7)
    running = asyncio.create_task(graves.replay_command(command := graves.command()))
    await asyncio.sleep(5)
    bury(graves.dead_letters["remodelling"], encode(ingested(7)))  # a late attempt of the run before
    await asyncio.sleep(5)
    graves.ledger.load(*(await graves.end_run(8, requested_by=command.id)).batches)
    assert (await running).end is End.DONE


async def test_a_scheduled_command_that_a_run_has_answered_meanwhile_is_not_waited_for() -> None:
    """Ingestion drops it: no run will ever come of it."""
    graves = Commands()
    await graves.end_run(7)  # began after the command was given
    assert (await graves.replay_command(graves.command(Trigger.SCHEDULE))).end is End.DONE
    assert asyncio.get_running_loop().time() < 60


def remodelled(batch: BatchIngested) -> BatchRemodelled:
    common = batch.data.head()
    data = BatchRemodelledData(**common, tables=(), keys=())
    return BatchRemodelled(**caused_by(batch, "tests", subject=uuid4(), name="batch_remodelled"), data=data)
