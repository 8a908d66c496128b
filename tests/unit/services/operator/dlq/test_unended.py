"""What an operation that has not ended means to the next one: what it may have sent is its own to finish."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from itertools import count

import pytest

from services.operator.dlq import actions
from services.operator.dlq.actions import NoSuchOperationError, Replay
from services.operator.dlq.choosing import ARCHIVE_LETTERS
from services.operator.dlq.journal import Journal
from services.operator.dlq.letters import Letter
from services.operator.dlq.operation import Author, End, Operation, Step
from shared.errors import PermanentError
from shared.queue import Outgoing
from shared.testing import AnswerLost
from tests.unit.services.operator.dlq.scene import ALL, ANN, FAST, SERVICE, Graves, on_loop_clock
from tests.unit.services.operator.scene import LANDING

pytestmark = pytest.mark.virtual_clock


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


async def interrupted_replay(graves: Graves) -> Operation:
    """It was killed when it had sent and not deleted what there was; the operation, which has not ended."""
    graves.dead.faults.add("delete", PermanentError("refused"))
    with pytest.raises(PermanentError):
        await graves.replay()
    return await graves.operation()


async def test_a_fresh_replay_leaves_what_another_may_have_sent_and_says_so() -> None:
    graves = Graves()
    letters = graves.bury(10)
    first = await interrupted_replay(graves)
    fresh = graves.bury(2, run=2)
    await asyncio.sleep(1)
    ended = await graves.replay()
    assert (ended.end, ended.counts) == (End.PARTIAL, {"skipped": 10, "deleted": 2})
    lines = (await graves.journal()).lines
    told = f"operation {first.id} may have sent it; `starlift dlq resume {first.id}` first"
    assert {lines[one].detail for one in letters} == {told}
    assert {lines[one].step for one in fresh} == {Step.DELETED}
    assert len(graves.alive.sent) == 12
    assert (await graves.resume()).counts == {"deleted": 10}
    assert len(graves.alive.sent) == len(set(graves.replayed)) == 12


async def test_a_plan_says_so_too() -> None:
    graves = Graves()
    graves.bury(1)
    first = await interrupted_replay(graves)
    async with actions.plan(graves.system, SERVICE, ALL) as decisions:
        (because,) = [one.skipped_because async for one in decisions]
    assert because == f"operation {first.id} may have sent it; `starlift dlq resume {first.id}` first"


async def test_what_was_being_sent_is_in_doubt_as_well_and_what_was_only_archived_is_not() -> None:
    graves = Graves()
    graves.bury(20)
    graves.alive.faults.add("send_all", PermanentError("refused"))
    with pytest.raises(PermanentError):
        await graves.replay(how=Replay(rate=10.0))
    assert (await graves.journal()).counts == {"sending": 10, "archived": 10}
    await asyncio.sleep(1)
    assert (await graves.replay()).counts == {"skipped": 10, "deleted": 10}


async def test_a_resume_sends_nothing_that_a_later_operation_may_have_sent() -> None:
    """The first had chosen all and sent nothing, the second has sent them: both were killed."""
    graves = Graves()
    letters = graves.bury(5)
    first = actions.replay_operation(SERVICE, ALL, ANN, FAST)
    running = asyncio.create_task(actions.do(graves.system, first))
    graves.alive.faults.add("send_all", PermanentError("refused"))
    with pytest.raises(PermanentError):
        await running
    journal = await actions.journal_of(graves.system, first)
    await journal.reach(Step.ARCHIVED, letters)
    await asyncio.sleep(1)
    await interrupted_replay(graves)
    assert len(graves.alive.sent) == 5
    ended = await actions.resume(graves.system, first, ANN)
    assert (ended.end, ended.counts) == (End.PARTIAL, {"skipped": 5})
    assert (await graves.resume()).counts == {"deleted": 5}
    assert len(graves.alive.sent) == 5


async def test_the_operations_of_other_services_and_those_that_have_ended_are_no_matter() -> None:
    graves = Graves()
    letters = graves.bury(3)
    await graves.replay(limit=1)
    other = actions.replay_operation("loading", ALL, ANN, FAST)
    journal = Journal(graves.objects, LANDING, other)
    await journal.begin()
    await journal.reach(Step.SENT, letters)
    await asyncio.sleep(timedelta(seconds=1).total_seconds())
    assert (await graves.replay()).counts == {"deleted": 2}


async def test_what_a_killed_discard_has_removed_is_not_restored_before_it_is_known() -> None:
    """Its journal may lack the letters that it deleted last: a restore of the others would pass for all."""
    graves = Graves()
    graves.bury(3)
    graves.dead.faults.add("delete", AnswerLost())
    graves.objects.faults.add("replace", PermanentError("refused"), at=2)
    with pytest.raises(PermanentError):
        await graves.discard()
    assert graves.dead.messages == []
    discarded = await graves.operation()
    with pytest.raises(NoSuchOperationError, match=f"it has not ended; `starlift dlq resume {discarded.id}` first"):
        await actions.removed(graves.system, discarded)
    await graves.resume()
    _, restored = await actions.restore(graves.system, SERVICE, await actions.removed(graves.system, discarded), ANN)
    assert restored.counts == {"sent": 3}


async def test_what_removes_nothing_has_nothing_to_restore() -> None:
    graves = Graves()
    graves.bury(1)
    await graves.discard()
    removed = await actions.removed(graves.system, await graves.operation())
    restored, _ = await actions.restore(graves.system, SERVICE, removed, ANN)
    assert [one async for one in await actions.removed(graves.system, restored)] == []


def of_a_later_build(graves: Graves, what: str, **changed: object) -> None:
    """The one object of its kind, with fields that this build does not know, or values."""
    (key,) = graves.keys(what)
    document = json.loads(graves.objects.buckets[LANDING][key])
    graves.objects.buckets[LANDING][key] = json.dumps(document | changed).encode()


LATER = [
    pytest.param("begun", {"filter": {"tenant": "x"}}, id="a filter"),
    pytest.param("begun", {"kind": "fold"}, id="a kind"),
    pytest.param("ended", {"end": "folded"}, id="an end"),
]


@pytest.mark.parametrize(("what", "changed"), LATER)
async def test_an_operation_of_a_later_build_is_told_of_and_in_nobody_s_way(what: str, changed: dict[str, object]) -> None:
    graves = Graves()
    graves.bury(1)
    await graves.replay()
    of_a_later_build(graves, what, **changed)
    ((operation, ended),) = await actions.audit(graves.system)
    assert (operation.operator, operation.service, ended is not None) == ("ann", SERVICE, True)
    assert await actions.interrupted(graves.system) == []
    graves.bury(1)
    await asyncio.sleep(1)
    assert (await graves.replay()).end is End.DONE


async def test_a_resume_leaves_an_operation_of_a_later_build_to_that_build() -> None:
    """What its filter means is not known, and might be less than everything."""
    graves = Graves()
    graves.bury(2)
    operation = await interrupted_replay(graves)
    of_a_later_build(graves, "begun", filter={"tenant": "x"})
    last = graves.keys("journal")[-1]  # sent
    graves.objects.buckets[LANDING][last] = graves.objects.buckets[LANDING][last].replace(b'"sent"', b'"folded"')
    with pytest.raises(NoSuchOperationError, match=f"operation {operation.id} is of a newer build; resume it with that build"):
        await actions.interrupted(graves.system)
    await asyncio.sleep(1)
    assert (await graves.replay()).counts == {"skipped": 2}  # and what it may have sent is left to it, too


async def test_a_stop_is_a_stop_though_the_process_was_killed_before_it_could_end(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(30)

    async def killed(*_given: object) -> None:
        raise PermanentError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "end", killed)
        async with graves.serving(graves.die):
            with pytest.raises(PermanentError):
                await graves.replay(how=Replay(rate=1000.0, canary=2))
    ended = await graves.resume()
    assert (ended.end, ended.counts) == (End.STOPPED, {"deleted": 2, "skipped": 28})
    assert ended.detail.startswith("a canary died again")


async def test_a_stop_that_is_written_down_sends_nothing_more_whoever_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(30)

    async def killed(*_given: object) -> None:
        raise PermanentError("killed")

    with monkeypatch.context() as patched:
        async with graves.serving(graves.die):
            running = asyncio.create_task(graves.replay(how=Replay(rate=1000.0, canary=2)))
            await asyncio.sleep(1)
            patched.setattr(Journal, "skip", killed)
            with pytest.raises(PermanentError):
                await running
    ended = await graves.resume()
    assert (ended.end, len(graves.alive.sent)) == (End.STOPPED, 2)


async def test_a_resume_tells_who_went_on_and_why() -> None:
    graves = Graves()
    graves.bury(2)
    operation = await interrupted_replay(graves)
    await actions.resume(graves.system, operation, Author("bob", "ann is asleep"))
    journal = await actions.journal_of(graves.system, operation)
    assert [(one.operator, one.reason) for one in journal.resumptions] == [("bob", "ann is asleep")]
    assert operation.operator == "ann"


async def test_a_stop_leaves_no_letter_untold_that_was_being_sent() -> None:
    graves = Graves()
    graves.bury(3)
    graves.alive.faults.add("send_all", PermanentError("refused"))
    with pytest.raises(PermanentError):
        await graves.replay(how=Replay(rate=1000.0, canary=2))
    assert sorted((await graves.steps()).values()) == ["archived", "sending", "sending"]
    journal = await graves.journal()
    await journal.reach(Step.SENDING, journal.at(Step.ARCHIVED))
    async with graves.serving(graves.die):
        ended = await graves.resume()
    assert (ended.end, set(ended.counts)) == (End.STOPPED, {"deleted", "skipped"})
    assert "may have been sent; the operation was stopped before" in await graves.details()


async def test_a_choice_that_goes_on_archives_behind_what_is_archived(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(ARCHIVE_LETTERS + 5)
    archive, calls = Journal.archive, count(1)

    async def dying(journal: Journal, letters: list[Letter]) -> None:
        if next(calls) == 2:
            raise PermanentError("killed")
        await archive(journal, letters)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "archive", dying)
        with pytest.raises(PermanentError):
            await graves.replay()
    assert (await graves.resume()).counts == {"deleted": ARCHIVE_LETTERS + 5}
    assert len(graves.keys("archive")) == 2


async def test_what_was_sent_before_is_deleted_before_anything_else_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(20)
    graves.dead.faults.add("delete", PermanentError("refused"))
    with pytest.raises(PermanentError):
        await graves.replay(how=Replay(rate=10.0))
    assert (await graves.journal()).counts == {"sent": 10, "archived": 10}
    left: list[int] = []
    send_all = graves.alive.send_all

    async def noting(messages: list[Outgoing]) -> list[str | None]:
        left.append(len(graves.dead.messages))
        return await send_all(messages)

    monkeypatch.setattr(graves.alive, "send_all", noting)
    assert (await graves.resume()).counts == {"deleted": 20}
    assert left == [10]
