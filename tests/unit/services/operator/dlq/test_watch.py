"""Which letters a replay takes for its own dead: those that count it, and batches that were not there before."""

from __future__ import annotations

import asyncio

import pytest

from contracts.messages import BatchIngested, encode
from services.operator.dlq.letters import read_letter
from services.operator.dlq.watch import StoppedError, Watch
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.unit.services.operator.dlq.scene import SERVICE, DeadScene, failure, put_dead
from tests.unit.services.operator.scene import ingested, remodelled

pytestmark = pytest.mark.virtual_clock


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
