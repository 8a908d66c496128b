"""The canary of a replayed command succeeds when the run that it asked for is loaded."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contracts.dead_letters import End, Ended
from contracts.messages import IngestSource, IngestSourceData, Trigger, encode
from shared.envelope import opening
from tests.unit.services.operator.dlq.scene import DeadScene, put_dead
from tests.unit.services.operator.scene import BEGAN, SOURCE, ingested

pytestmark = pytest.mark.virtual_clock


class Commands(DeadScene):
    """Dead commands to read the source."""

    @staticmethod
    def command(trigger: Trigger = Trigger.OPERATOR, minutes: int = -1) -> IngestSource:
        """A command given that many minutes after the runs here began."""
        data = IngestSourceData(source_name=SOURCE, trigger=trigger)
        return IngestSource(**{**opening("tests"), "time": BEGAN + timedelta(minutes=minutes)}, data=data)

    async def replay_command(self, command: IngestSource) -> Ended:
        put_dead(self.dead_letters["ingestion"], encode(command))
        return await self.replay(service="ingestion", rate=10.0, canary=1)


async def test_a_command_succeeds_when_its_run_is_loaded() -> None:
    scene = Commands()
    await scene.end_run(7)
    running = asyncio.create_task(scene.replay_command(command := scene.command()))
    await asyncio.sleep(30)
    manifest = await scene.end_run(8, requested_by=command.id)
    await asyncio.sleep(30)
    assert not running.done()
    scene.ledger.load(*manifest.batches)
    assert (await running).end == End.DONE


@pytest.mark.parametrize("trigger", list(Trigger))
async def test_a_run_requested_by_another_command_proves_nothing(trigger: Trigger) -> None:
    """That run was already under way; the command's own run has not begun, and may fail for the same reason as before."""
    scene = Commands()
    await scene.end_run(7)
    running = asyncio.create_task(scene.replay_command(command := scene.command(trigger, minutes=1)))
    await asyncio.sleep(5)
    scene.ledger.load(*(await scene.end_run(8)).batches)
    await asyncio.sleep(30)
    assert not running.done()
    scene.ledger.load(*(await scene.end_run(9, requested_by=command.id)).batches)
    assert (await running).end == End.DONE


async def test_a_scheduled_command_succeeds_when_a_later_run_found_nothing_to_read() -> None:
    """Such a run leaves no manifest, only the time when it began."""
    scene = Commands()
    await scene.remember(7)
    running = asyncio.create_task(scene.replay_command(scene.command(Trigger.SCHEDULE, minutes=1)))
    await asyncio.sleep(30)
    assert not running.done()
    await scene.remember(8, began=BEGAN + timedelta(minutes=2))
    assert (await running).end == End.DONE


async def test_a_command_whose_run_dies_downstream_is_dead() -> None:
    scene = Commands()
    await scene.end_run(7)
    put_dead(scene.dead_letters["remodelling"], encode(ingested(7)))  # of an earlier run
    running = asyncio.create_task(scene.replay_command(scene.command()))
    await asyncio.sleep(30)
    assert not running.done()
    scene.die((await scene.end_run(8)).batches[0])
    ended = await running
    assert ended.end == End.STOPPED
    assert ended.detail.startswith("a canary died again")


async def test_a_dead_batch_of_an_earlier_run_does_not_count_against_a_command() -> None:
    scene = Commands()
    await scene.end_run(7)
    running = asyncio.create_task(scene.replay_command(command := scene.command()))
    await asyncio.sleep(5)
    put_dead(scene.dead_letters["remodelling"], encode(ingested(7)))  # a late attempt of the run before
    await asyncio.sleep(5)
    scene.ledger.load(*(await scene.end_run(8, requested_by=command.id)).batches)
    assert (await running).end == End.DONE


async def test_a_scheduled_command_already_answered_by_a_run_is_not_awaited() -> None:
    """Ingestion drops the command, so it will never cause a run."""
    scene = Commands()
    await scene.end_run(7)  # began after the command was given
    assert (await scene.replay_command(scene.command(Trigger.SCHEDULE))).end == End.DONE
    assert asyncio.get_running_loop().time() < 60
