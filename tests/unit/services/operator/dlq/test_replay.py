"""A replay from its beginning to its end: what goes where, in which order it is written down, how fast."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contracts.failure import FAILURE_ATTRIBUTE, FailureRecord
from contracts.messages import MESSAGE_BYTES_MAXIMUM, UPCASTS, encode
from services.operator.dlq import actions
from services.operator.dlq.actions import Replay
from services.operator.dlq.choosing import ARCHIVE_LETTERS
from services.operator.dlq.filters import Filter
from services.operator.dlq.journal import Journal
from services.operator.dlq.lock import LockedError
from services.operator.dlq.operation import End, Line, Step
from tests.unit.services.operator.dlq.scene import ALL, ANN, FAST, SERVICE, Graves, bury, failure, ids_of, on_loop_clock
from tests.unit.services.operator.scene import LANDING, ingested

pytestmark = pytest.mark.virtual_clock


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


async def test_what_matches_goes_back_as_it_was_and_counts_the_replay() -> None:
    graves = Graves()
    wanted, _ = bury(graves.dead, *(encode(ingested(run)) for run in (7, 8)))
    body = graves.dead.bodies[0]
    ended = await graves.replay(Filter(runs=(7, 7)))
    assert (ended.end, ended.counts) == (End.DONE, {"deleted": 1})
    (sent,) = graves.alive.sent
    assert sent.body == body
    record = FailureRecord.model_validate_json(sent.attributes[FAILURE_ATTRIBUTE])
    assert record == failure(replays=1)
    assert wanted not in ids_of(graves.dead.messages)
    assert len(graves.dead.messages) == 1
    assert graves.hidden() == []


async def test_every_step_of_a_letter_is_written_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    (letter,) = graves.bury()
    seen: list[tuple[str, int, int]] = []
    write = Journal.write

    async def noting(journal: Journal, lines: list[Line]) -> None:
        lines = list(lines)
        seen.extend((line.step, len(graves.alive.sent), len(graves.dead.messages)) for line in lines if line.letter == letter)
        await write(journal, lines)

    monkeypatch.setattr(Journal, "write", noting)
    await graves.replay()
    assert seen == [
        (Step.PLANNED, 0, 1),
        (Step.ARCHIVED, 0, 1),
        (Step.SENDING, 0, 1),
        (Step.SENT, 1, 1),
        (Step.DELETED, 1, 0),
    ]


async def test_nothing_that_matches_is_an_end_of_its_own() -> None:
    graves = Graves()
    graves.bury(2)
    ended = await graves.replay(Filter(runs=(99, 99)))
    assert (ended.end, ended.counts) == (End.NOTHING, {})
    assert graves.hidden() == []


async def test_the_invalid_are_skipped_and_kept_and_told() -> None:
    graves = Graves()
    (good,) = graves.bury()
    broken, foreign = bury(graves.dead, "{", '{"type": "starlift.batch_loaded.v9"}')
    ended = await graves.replay()
    assert (ended.end, ended.counts) == (End.PARTIAL, {"deleted": 1, "skipped": 2})
    assert ids_of(graves.dead.messages) == [broken, foreign]
    lines = (await graves.journal()).lines
    assert lines[good].detail == ""
    assert lines[broken].detail == "the body is not JSON; Starlift does not send such messages"
    assert "newer than version 1" in lines[foreign].detail


async def test_a_message_that_grows_too_large_is_skipped_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    (large,) = graves.bury()
    (message,) = graves.dead.messages
    monkeypatch.setitem(UPCASTS, "old.v1", lambda one: one | {"type": "starlift.batch_ingested.v2"})
    old = message.body.replace("starlift.batch_ingested.v2", "old.v1")
    message.body = old.replace('"source":"tests"', f'"source":"tests{"x" * (MESSAGE_BYTES_MAXIMUM - len(old))}"')
    graves.bury(2)
    ended = await graves.replay(how=Replay(rate=1000.0))
    assert ended.counts == {"deleted": 2, "skipped": 1}
    assert ids_of(graves.dead.messages) == [large]
    assert any("bytes, SQS takes" in detail for detail in await graves.details())


async def test_a_letter_that_was_replayed_three_times_stays_unless_forced() -> None:
    graves = Graves()
    (tired,) = graves.bury(replays=3)
    (fresh,) = graves.bury(replays=2)
    ended = await graves.replay()
    assert ended.counts == {"deleted": 1, "skipped": 1}
    assert (await graves.steps())[tired] == "skipped"
    assert (await graves.steps())[fresh] == "deleted"
    assert (await graves.replay(how=Replay(rate=1000.0, force=True))).counts == {"deleted": 1}
    record = FailureRecord.model_validate_json(graves.alive.sent[-1].attributes[FAILURE_ATTRIBUTE])
    assert record.replays == 4


async def test_an_old_version_is_upcast_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    old = encode(ingested(7)).replace("batch_ingested.v2", "batch_ingested_once.v1")
    monkeypatch.setitem(UPCASTS, "starlift.batch_ingested_once.v1", lambda one: one | {"type": "starlift.batch_ingested.v2"})
    bury(graves.dead, old)
    assert (await graves.replay()).end is End.DONE
    (sent,) = graves.alive.sent
    assert sent.body == old.replace("batch_ingested_once.v1", "batch_ingested.v2")


async def test_a_limit_takes_so_many_and_looks_no_further() -> None:
    graves = Graves()
    graves.bury(100)
    ended = await graves.replay(limit=12)
    assert ended.counts == {"deleted": 12}
    assert len(graves.dead.messages) == 88
    assert max(one.receive_count for one in graves.dead.messages) <= 2
    assert sum(one.receive_count for one in graves.dead.messages) <= 20  # hands the rest of its last poll back
    assert graves.hidden() == []


@pytest.mark.parametrize(("rate", "count", "seconds"), [(10.0, 35, 3.0), (0.5, 3, 4.0), (3.0, 7, 2.0), (100.0, 150, 1.25)])
async def test_the_rate_is_held(rate: float, count: int, seconds: float) -> None:
    graves = Graves()
    graves.bury(count)
    await graves.replay(how=Replay(rate=rate))
    assert len(graves.alive.sent) == count
    times = [(one.sent_at - graves.alive.sent[0].sent_at).total_seconds() for one in graves.alive.sent]
    assert times[-1] == pytest.approx(seconds, abs=0.01)
    for start in times:
        assert sum(1 for time in times if start <= time < start + 0.999) <= max(1, rate * 1.25)


async def test_an_archive_object_holds_so_many_letters_and_is_read_again_for_sending() -> None:
    graves = Graves()
    graves.bury(ARCHIVE_LETTERS + 5)
    assert (await graves.replay()).counts == {"deleted": ARCHIVE_LETTERS + 5}
    lines = [graves.objects.buckets[LANDING][key].count(b"\n") for key in graves.keys("archive")]
    assert lines == [ARCHIVE_LETTERS, 5]


async def test_others_that_have_letters_in_hand_are_told() -> None:
    graves = Graves()
    graves.bury(4)
    await graves.dead.receive(1, wait=timedelta(0), visibility=timedelta(seconds=30))  # these come back in time
    await graves.dead.receive(2, wait=timedelta(0), visibility=timedelta(minutes=10))
    ended = await graves.replay()
    assert (ended.end, ended.counts) == (End.PARTIAL, {"deleted": 2})
    assert 60 <= asyncio.get_running_loop().time() < 70
    assert ended.detail == "others had 2 more in hand, which were not looked at"


async def test_it_refuses_while_sqs_moves_them_by_itself() -> None:
    graves = Graves()
    graves.bury()
    graves.move_tasks[SERVICE].running = True
    with pytest.raises(LockedError, match="SQS itself moves the dead letters of remodelling"):
        await graves.replay()
    assert graves.alive.sent == []
    assert await actions.audit(graves.system) == []
    graves.move_tasks[SERVICE].running = False
    assert (await graves.replay()).end is End.DONE  # it has left no lock


async def test_a_plan_changes_nothing_and_decides_as_the_replay_would() -> None:
    graves = Graves()
    graves.bury(3)
    graves.bury(1, replays=5)
    bury(graves.dead, "{")
    async with actions.plan(graves.system, SERVICE, ALL) as decisions:
        found = {one.letter.id: one.skipped_because async for one in decisions}
    assert graves.hidden() == []
    assert graves.alive.sent == []
    assert graves.objects.buckets[LANDING] == {}
    await graves.replay(how=FAST)
    assert {one for one, because in found.items() if because} == {
        one for one, step in (await graves.steps()).items() if step == "skipped"
    }


async def test_who_did_what_when_and_why_is_kept() -> None:
    graves = Graves()
    graves.bury(2)
    await graves.replay(Filter(error="SourceMismatchError"), limit=1)
    ((operation, ended),) = await actions.audit(graves.system)
    assert (operation.operator, operation.reason, operation.limit) == (ANN.operator, ANN.reason, 1)
    assert operation.filter == Filter(error="SourceMismatchError")
    assert ended is not None
    assert ended.counts == {"deleted": 1}


async def test_letters_that_were_not_chosen_are_seen_by_others_while_it_goes_on() -> None:
    graves = Graves()
    graves.bury(10, run=7)
    graves.bury(3, run=8)
    running = asyncio.create_task(graves.replay(Filter(runs=(7, 7)), Replay(rate=1.0)))
    await asyncio.sleep(5)
    assert (await graves.dead.depth()).visible == 3
    assert (await running).end is End.DONE
