"""What `resume` finds, and what two processes at one operation must not do to each other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contracts.messages import UPCASTS, encode
from services.operator.dlq import actions, hold, lock
from services.operator.dlq.actions import Replay
from services.operator.dlq.filters import Filter
from services.operator.dlq.journal import Journal
from services.operator.dlq.lock import LockedError
from services.operator.dlq.operation import End, Kind, Operation, Step
from shared.errors import DependencyDownError, PermanentError
from shared.testing import connection_reset, loop_now
from tests.unit.services.operator.dlq.scene import ALL, ANN, FAST, SERVICE, Graves, ids_of, on_loop_clock
from tests.unit.services.operator.scene import LANDING, ingested

pytestmark = pytest.mark.virtual_clock
SLOW = Replay(rate=2.0)


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


async def interrupted_by(graves: Graves, seconds: float, how: Replay = SLOW, limit: int | None = None) -> None:
    """A replay that is interrupted, as by Ctrl-C, after so long."""
    running = asyncio.create_task(graves.replay(how=how, limit=limit))
    await asyncio.sleep(seconds)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_interruption_hands_back_what_was_in_hand_and_frees_the_lock() -> None:
    graves = Graves()
    graves.bury(30)
    await interrupted_by(graves, 5)
    assert graves.hidden() == []
    done = len(graves.replayed)
    assert 0 < done < 30
    ended = await graves.resume()
    assert (ended.end, ended.counts) == (End.DONE, {"deleted": 30})
    assert len(graves.replayed) == len(set(graves.replayed)) == 30
    assert await actions.interrupted(graves.system) == []


async def test_the_limit_is_that_of_both_halves() -> None:
    graves = Graves()
    graves.bury(30)
    await interrupted_by(graves, 5, limit=20)
    assert (await graves.resume()).counts == {"deleted": 20}
    assert len(set(graves.replayed)) == 20
    assert len(graves.dead.messages) == 10


async def test_what_died_again_meanwhile_is_left_alone() -> None:
    graves = Graves()
    graves.bury(30)
    await interrupted_by(graves, 5)
    for run in range(8, 12):
        graves.die(ingested(run))
    ended = await graves.resume()
    assert ended.counts == {"deleted": 30}
    assert len(graves.dead.messages) == 4


async def test_letters_that_a_killed_process_hides_for_long_are_waited_for() -> None:
    """It held ten thousand, and had sent all but these: they are hidden for ten minutes, not for one."""
    graves = Graves()
    graves.bury(30)
    await interrupted_by(graves, 5)
    left = len(graves.dead.messages)
    while await graves.dead.receive(10, wait=timedelta(0), visibility=timedelta(minutes=10)):
        pass
    before = asyncio.get_running_loop().time()
    ended = await graves.resume()
    assert (ended.end, ended.counts) == (End.DONE, {"deleted": 30})
    assert asyncio.get_running_loop().time() - before > 599
    assert left > 10


async def test_only_what_is_missing_is_waited_for() -> None:
    """Somebody else looks at other letters meanwhile: no reason to wait."""
    graves = Graves()
    graves.bury(12)
    await interrupted_by(graves, 3)
    graves.bury(5, run=8)
    others = graves.dead.messages[-5:]
    for message in others:
        message.visible_at, message.receipt = 5000.0, "somebody else's"
    before = asyncio.get_running_loop().time()
    assert (await graves.resume()).counts == {"deleted": 12}
    assert asyncio.get_running_loop().time() - before < 60


async def test_letters_that_are_gone_are_told_from_letters_that_were_sent() -> None:
    graves = Graves()
    graves.bury(15)
    await interrupted_by(graves, 3)
    journal = await graves.journal()
    unsent = journal.at(Step.ARCHIVED)
    assert len(unsent) > 3
    await journal.reach(Step.SENT, [unsent[0]])
    await journal.reach(Step.SENDING, [unsent[1]])
    graves.dead.messages = [one for one in graves.dead.messages if one.message_id not in unsent[:3]]
    await graves.resume()
    lines = (await graves.journal()).lines
    assert [(lines[one].step, lines[one].detail) for one in unsent[:3]] == [
        ("deleted", "was no longer there"),
        ("skipped", "may have been sent; is no longer there, or somebody else has it in hand"),
        ("skipped", "is no longer there, or somebody else has it in hand"),
    ]
    assert {lines[one].step for one in unsent[3:]} == {Step.DELETED}


async def test_what_was_sent_and_is_in_somebody_s_hand_keeps_the_operation_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended, it would leave a letter that nobody knows was sent, for the next replay to double."""
    graves = Graves()
    graves.bury(3)
    send_all = graves.alive.send_all

    async def losing(messages: list[object]) -> list[str | None]:
        for message in graves.dead.messages:
            graves.dead.invalidate(message)
            message.visible_at = asyncio.get_running_loop().time() + 3600
        return await send_all(messages)  # type: ignore[arg-type]

    monkeypatch.setattr(graves.alive, "send_all", losing)
    with pytest.raises(LockedError, match="3 letters of remodelling are to be deleted, and somebody else has them in hand"):
        await graves.replay()
    assert set((await graves.steps()).values()) == {"sent"}
    await asyncio.sleep(3600)
    assert (await graves.resume()).counts == {"deleted": 3}
    assert len(graves.alive.sent) == 3


async def test_a_laptop_that_slept_sends_nothing_more_of_what_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(20)
    running = asyncio.create_task(graves.replay(how=SLOW))
    await asyncio.sleep(3)
    sent = len(graves.alive.sent)
    monkeypatch.setattr(hold, "now", lambda: loop_now() + timedelta(hours=8))
    ended = await running
    assert len(graves.alive.sent) == sent
    assert ended.end is End.PARTIAL
    assert ended.counts == {"deleted": sent, "skipped": 20 - sent}


async def test_two_at_one_operation_are_one_too_many() -> None:
    """A process that was believed dead, and whose lock was taken, can't write over what its successor writes."""
    graves = Graves()
    graves.bury(20)
    running = asyncio.create_task(graves.replay(how=SLOW))
    await asyncio.sleep(3)
    (operation,) = await actions.interrupted(graves.system)
    successor = await actions.journal_of(graves.system, operation)
    await successor.reach(Step.SKIPPED, successor.at(Step.ARCHIVED))
    sent = len(graves.alive.sent)
    with pytest.raises(LockedError, match=f"somebody else goes on with operation {operation.id}"):
        await running
    assert len(graves.alive.sent) == sent


async def test_a_lost_lock_ends_the_work_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(60)
    running = asyncio.create_task(graves.replay(how=SLOW))
    await asyncio.sleep(3)
    del graves.objects.buckets[LANDING]["dead-letters/locks/remodelling.json"]
    with pytest.raises(LockedError, match="was lost"):
        await running
    assert asyncio.get_running_loop().time() < 3 + lock.RENEWAL.total_seconds() + 1
    assert graves.hidden() == []
    assert (await graves.resume()).counts == {"deleted": 60}
    assert len(graves.replayed) == len(set(graves.replayed))


async def test_an_operation_that_has_ended_meanwhile_is_not_gone_on_with() -> None:
    graves = Graves()
    graves.bury(15)
    await interrupted_by(graves, 3)
    (operation,) = await actions.interrupted(graves.system)
    await graves.resume()
    graves.bury(5, run=9)
    with pytest.raises(LockedError, match="has ended operation"):
        await actions.resume(graves.system, operation, ANN)
    assert len(graves.dead.messages) == 5


@pytest.mark.parametrize("kind", [Kind.RESTORE, Kind.NATIVE])
async def test_what_chose_no_letters_can_t_be_resumed_and_touches_none(kind: Kind) -> None:
    """Resumed as if it were a replay of everything, an interrupted restore would empty the queue."""
    graves = Graves()
    graves.bury(5)
    operation = Operation(id="20260101T000000Z-abc", kind=kind, service=SERVICE, operator="ann", reason="", began_at=loop_now())
    await Journal(graves.objects, LANDING, operation).begin()
    assert await actions.interrupted(graves.system) == []
    with pytest.raises(ValueError, match="carried out elsewhere"):
        await actions.resume(graves.system, operation, ANN)
    assert len(graves.dead.messages) == 5
    assert graves.hidden() == []


async def test_another_build_may_refuse_what_this_one_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    letters = graves.bury(3)
    graves.dead.messages[1].body = encode(ingested(7)).replace("batch_ingested.v2", "batch_ingested_once.v1")
    with monkeypatch.context() as this_build:
        known = {"starlift.batch_ingested_once.v1": lambda one: one | {"type": "starlift.batch_ingested.v2"}}
        this_build.setitem(UPCASTS, *next(iter(known.items())))
        graves.alive.faults.add("send_all", PermanentError("sqs refused SendMessageBatch"))
        with pytest.raises(PermanentError):
            await graves.replay()
    ended = await graves.resume()
    assert ended.counts == {"deleted": 2, "skipped": 1}
    line = (await graves.journal()).lines[letters[1]]
    assert line.detail.startswith("may have been sent; the type 'starlift.batch_ingested_once.v1' is not one of")


async def test_an_archive_that_is_gone_is_told_and_nothing_is_deleted() -> None:
    graves = Graves()
    graves.bury(15)
    await interrupted_by(graves, 3)
    left = ids_of(graves.dead.messages)
    for key in graves.keys("archive"):
        del graves.objects.buckets[LANDING][key]
    with pytest.raises(PermanentError, match="is gone, and the letters in it"):
        await graves.resume()
    assert ids_of(graves.dead.messages) == left


async def test_an_outage_in_the_middle_costs_a_resume() -> None:
    graves = Graves()
    graves.bury(30)
    graves.objects.faults.during(4, 30, connection_reset(), "replace")
    with pytest.raises(DependencyDownError):
        await graves.replay(how=SLOW)
    await asyncio.sleep(100)
    assert (await graves.resume()).counts == {"deleted": 30}
    assert len(set(graves.replayed)) == 30
    assert len(graves.replayed) <= 32  # a batch of two was being sent


async def test_canaries_are_watched_again_after_an_interruption() -> None:
    graves = Graves()
    graves.bury(10)
    await interrupted_by(graves, 30, Replay(rate=100.0, canary=1))  # waits for the first
    assert len(graves.alive.sent) == 1
    graves.alive.messages.clear()
    async with graves.serving(graves.die):
        ended = await graves.resume()
    assert ended.end is End.STOPPED
    assert len(graves.alive.sent) == 2


async def test_a_filter_with_a_time_means_what_it_meant_when_it_was_given() -> None:
    graves = Graves()
    (old,) = graves.bury(1)
    operation = actions.replay_operation(SERVICE, Filter(until=loop_now()), ANN, FAST)
    await Journal(graves.objects, LANDING, operation).begin()
    graves.die(ingested(9))
    await asyncio.sleep(100)
    assert (await graves.resume()).counts == {"deleted": 1}
    assert old not in ids_of(graves.dead.messages)
    assert operation.filter != ALL
