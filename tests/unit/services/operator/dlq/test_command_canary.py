"""What becomes of a replayed command: its canary lives by the run that it asked for."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contracts.messages import IngestSource, IngestSourceData, Trigger, encode
from services.operator.dlq import actions
from services.operator.dlq.actions import Replay
from services.operator.dlq.operation import End, Ended
from shared.envelope import opening
from tests.unit.services.operator.dlq.scene import ALL, ANN, Graves, bury, on_loop_clock
from tests.unit.services.operator.scene import BEGAN, SOURCE, ingested

pytestmark = pytest.mark.virtual_clock


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


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
