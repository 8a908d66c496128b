"""A replay while SQS fails: nothing is lost, and what is in doubt is told."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from contracts.messages import MESSAGE_BYTES_MAXIMUM, encode
from services.operator.dlq import actions
from services.operator.dlq.actions import Replay
from services.operator.dlq.operation import End
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import Outgoing, requests_of
from shared.testing import AnswerLost, Partial, connection_reset, throttled
from tests.unit.services.operator.dlq.scene import Graves, bury, ids_of, on_loop_clock
from tests.unit.services.operator.scene import LANDING, ingested

pytestmark = pytest.mark.virtual_clock


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


async def test_a_throttled_or_broken_send_is_tried_again_and_its_doubt_is_written_down() -> None:
    graves = Graves()
    graves.bury(2)
    graves.alive.faults.add("send_all", throttled())
    assert (await graves.replay()).end is End.DONE
    assert len(graves.alive.sent) == 2
    assert await graves.details() == {""}
    graves.bury(2, run=2)
    graves.alive.faults.add("send_all", AnswerLost())
    assert (await graves.replay()).end is End.DONE
    assert len(graves.alive.sent) == 6  # both of them twice
    written = b"".join(graves.objects.buckets[LANDING][key] for key in graves.keys("journal"))
    assert written.count(b"perhaps twice: an answer of SQS was lost") == 2


async def test_of_two_requests_only_the_one_that_failed_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large messages go in several: what the first one has sent is known, whatever becomes of the second."""
    graves = Graves()
    large = [encode(ingested(1, index)).replace('"tests"', f'"{"x" * (MESSAGE_BYTES_MAXIMUM // 3)}"') for index in range(2)]
    bury(graves.dead, *large)
    send_all, requests = graves.alive.send_all, count(1)

    async def failing(messages: list[Outgoing]) -> list[str | None]:
        ids: list[str | None] = []
        for request in requests_of(messages):
            if next(requests) == 2:
                raise throttled()
            ids += await send_all(request)
        return ids

    monkeypatch.setattr(graves.alive, "send_all", failing)
    assert (await graves.replay()).counts == {"deleted": 2}
    assert len(graves.alive.sent) == 2
    assert await graves.details() == {""}


async def test_what_sqs_refuses_is_tried_again_alone() -> None:
    graves = Graves()
    graves.bury(4)
    graves.alive.faults.add("send_all", Partial())
    assert (await graves.replay()).counts == {"deleted": 4}
    assert len(graves.alive.sent) == 4


async def test_what_sqs_refuses_for_good_stays_and_is_told() -> None:
    graves = Graves()
    letters = graves.bury(4)
    graves.alive.faults.during(0, 1000, Partial(), "send_all")
    ended = await graves.replay()
    assert ended.end is End.PARTIAL
    assert ended.counts == {"deleted": 3, "failed": 1}  # of four, two, one every other is refused; one alone always
    (failed,) = [one for one, step in (await graves.steps()).items() if step == "failed"]
    assert failed in letters
    assert ids_of(graves.dead.messages) == [failed]
    assert len(graves.alive.sent) == 3


@pytest.mark.parametrize("method", ["receive", "delete", "set_visibility", "depth"])
@pytest.mark.parametrize(
    "fault", [throttled(), connection_reset(), AnswerLost(), Partial()], ids=lambda one: type(one).__name__
)
async def test_a_fault_of_the_dead_letter_queue_loses_and_doubles_nothing(method: str, fault: Exception) -> None:
    graves = Graves()
    graves.bury(25)
    graves.dead.faults.add(method, fault)
    try:
        await graves.replay()
    except (TransientError, DependencyDownError):
        await asyncio.sleep(61)
        if await actions.interrupted(graves.system):
            await graves.resume()
        else:
            await graves.replay()
    assert sorted(graves.replayed) == sorted(set(graves.replayed))
    assert len(graves.replayed) == 25
    assert graves.dead.messages == []


async def test_what_somebody_else_has_taken_is_not_sent() -> None:
    """The hold on some letters is lost while the first ones are sent."""
    graves = Graves()
    letters = graves.bury(40)
    taken = graves.dead.messages[30:]

    def lose() -> None:
        for message in taken:
            graves.dead.invalidate(message)

    asyncio.get_running_loop().call_later(15, lose)
    ended = await graves.replay(how=Replay(rate=0.5))
    assert ended.counts == {"deleted": 30, "skipped": 10}
    steps = await graves.steps()
    assert [one for one in letters if steps[one] == "skipped"] == ids_of(taken)
    assert "is no longer there, or somebody else has it in hand" in await graves.details()
    assert len(set(graves.replayed)) == 30
    assert ids_of(graves.dead.messages) == ids_of(taken)


async def test_what_was_sent_and_shown_again_is_deleted_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between sending and deleting the receipts become void: the letters are looked for and deleted, not left to be doubled."""
    graves = Graves()
    graves.bury(3)
    send_all = graves.alive.send_all

    async def losing(messages: list[object]) -> list[str | None]:
        for message in graves.dead.messages:
            graves.dead.invalidate(message)
            graves.dead.expire(message)
        return await send_all(messages)  # type: ignore[arg-type]

    monkeypatch.setattr(graves.alive, "send_all", losing)
    ended = await graves.replay()
    assert (ended.end, ended.counts) == (End.DONE, {"deleted": 3})
    assert graves.dead.messages == []
    assert len(graves.alive.sent) == 3


async def test_a_queue_that_refuses_us_leaves_a_replay_that_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(3)
    graves.alive.faults.add("send_all", PermanentError("sqs refused SendMessageBatch"))
    with pytest.raises(PermanentError):
        await graves.replay()
    assert graves.hidden() == []
    assert set((await graves.steps()).values()) == {"sending"}
    assert (await graves.resume()).counts == {"deleted": 3}
    assert len(graves.alive.sent) == 3
