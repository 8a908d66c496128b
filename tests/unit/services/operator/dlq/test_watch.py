"""Which letters a replay takes for its own dead: those that count it, and batches that did not lie there before."""

from __future__ import annotations

import pytest

from contracts.messages import BatchIngested, encode
from services.operator.dlq.letters import Letter, read_letter
from services.operator.dlq.watch import Fate, Watch
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.unit.services.operator.dlq.scene import SERVICE, Graves, bury, failure, on_loop_clock
from tests.unit.services.operator.scene import ingested, remodelled

pytestmark = pytest.mark.virtual_clock


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


def letter_of(batch: BatchIngested) -> Letter:
    return read_letter(SERVICE, Delivery("1", encode(batch), "", 1, EPOCH, EPOCH))


async def watching(graves: Graves, batch: BatchIngested) -> tuple[Watch, Letter]:
    """From before the letter of a batch was sent."""
    watch = Watch(graves.system, SERVICE)
    await watch.begin()
    letter = letter_of(batch)
    watch.note_sent(letter)
    return watch, letter


async def test_a_canary_that_is_dead_is_dead_though_its_batch_was_loaded_long_ago() -> None:
    graves = Graves()
    graves.ledger.load(batch := ingested(7))
    watch, letter = await watching(graves, batch)
    bury(graves.dead, encode(batch), record=failure(replays=1))
    await watch.look()
    assert await watch.fate(letter) is Fate.DEAD_AGAIN


async def test_a_canary_that_somebody_else_has_replayed_meanwhile_and_that_is_dead_is_dead() -> None:
    graves = Graves()
    watch, letter = await watching(graves, batch := ingested(7))
    bury(graves.dead, encode(batch), record=failure(replays=2))
    await watch.look()
    assert await watch.fate(letter) is Fate.DEAD_AGAIN


async def test_a_twin_of_long_ago_is_no_death_even_when_it_is_looked_at() -> None:
    graves = Graves()
    batch = ingested(7)
    bury(graves.dead, encode(batch), record=failure(replays=0))
    watch, letter = await watching(graves, batch)
    bury(graves.dead, encode(ingested(9)))  # the count changes: it looks
    await watch.look()
    assert watch.fallen == {}
    assert await watch.fate(letter) is Fate.ON_ITS_WAY


async def test_a_batch_that_lay_further_down_before_is_no_death_even_when_it_is_looked_at() -> None:
    graves = Graves()
    batch = ingested(7)
    bury(graves.dead_letters["loading"], encode(remodelled(batch)))
    watch, _ = await watching(graves, batch)
    bury(graves.dead_letters["loading"], encode(remodelled(ingested(9))))  # the count changes: it looks
    await watch.look()
    assert watch.fallen == {}
