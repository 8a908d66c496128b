"""Operations lose nothing while SQS fails, others take letters, or people interrupt them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from contracts.dead_letters import End, Kind
from contracts.messages import MESSAGE_BYTES_MAXIMUM, encode
from services.operator.dlq.filters import Filter
from services.operator.dlq.operations import LOST, REFUSED, STILL_THERE, Task, carry_out
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import Outgoing, requests_of
from shared.testing import AnswerLost, Partial, connection_reset, loop_now, throttled
from tests.unit.services.operator.dlq.scene import ANN, SERVICE, DeadScene, ended_of, ids_of, put_dead
from tests.unit.services.operator.scene import ingested

pytestmark = pytest.mark.virtual_clock


async def test_a_throttled_send_is_retried_and_a_lost_answer_may_send_twice() -> None:
    scene = DeadScene()
    scene.add(2)
    scene.alive.faults.add("send_all", throttled())
    assert (await scene.replay()).end == End.DONE
    assert scene.alive.sent[2:] == []
    scene.add(2, run=2)
    scene.alive.faults.add("send_all", AnswerLost())
    assert (await scene.replay()).end == End.DONE
    assert sorted(scene.replayed.values()) == [1, 1, 2, 2]


async def test_only_the_failed_one_of_two_requests_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large messages go in several requests; when the call raises, the caller does not know which of them were answered."""
    scene = DeadScene()
    large = [encode(ingested(1, index)).replace('"tests"', f'"{"x" * (MESSAGE_BYTES_MAXIMUM // 3)}"') for index in range(2)]
    put_dead(scene.dead, *large)
    send_all, requests = scene.alive.send_all, count(1)

    async def failing(messages: list[Outgoing]) -> list[str | None]:
        ids: list[str | None] = []
        for request in requests_of(messages):
            if next(requests) == 2:
                raise throttled()
            ids += await send_all(request)
        return ids

    monkeypatch.setattr(scene.alive, "send_all", failing)
    assert (await scene.replay()).counts == {"replayed": 2}
    assert scene.replayed.total() == 2


async def test_a_rejected_letter_is_retried_and_stays_if_rejected_for_good() -> None:
    scene = DeadScene()
    scene.add(4)
    scene.alive.faults.add("send_all", Partial())
    assert (await scene.replay()).counts == {"replayed": 4}
    letters = scene.add(4, run=2)
    scene.alive.faults.during(0, 1000, Partial(), "send_all")
    ended = await scene.replay()
    assert (ended.end, ended.counts) == (End.PARTIAL, {"replayed": 3, "left": 1})  # of four, two, one every other is refused
    assert ended.outcomes is not None
    (refused,) = ended.outcomes[REFUSED]
    assert refused in letters
    assert ids_of(scene.dead.messages) == [refused]


@pytest.mark.parametrize("method", ["receive", "delete", "set_visibility", "depth"])
@pytest.mark.parametrize(
    "fault", [throttled(), connection_reset(), AnswerLost(), Partial()], ids=lambda one: type(one).__name__
)
async def test_a_fault_of_the_dead_letter_queue_neither_loses_nor_duplicates_letters(method: str, fault: Exception) -> None:
    scene = DeadScene()
    scene.add(25)
    scene.dead.faults.add(method, fault)
    try:
        await scene.replay()
    except (TransientError, DependencyDownError):
        await asyncio.sleep(61)
        await scene.replay()
    assert (len(scene.replayed), scene.replayed.total()) == (25, 25)
    assert scene.dead.messages == []


async def test_a_letter_that_is_no_longer_held_is_not_sent() -> None:
    """The hold of some letters is lost while the first ones are sent."""
    scene = DeadScene()
    letters = scene.add(40)
    taken = scene.dead.messages[30:]

    def lose() -> None:
        for message in taken:
            scene.dead.invalidate(message)

    asyncio.get_running_loop().call_later(15, lose)
    ended = await scene.replay(rate=0.5)
    assert ended.counts == {"replayed": 30, "left": 10}
    assert ended.outcomes == {"replayed": tuple(letters[:30]), LOST: tuple(letters[30:])}
    assert ids_of(scene.dead.messages) == ids_of(taken)


async def test_a_sent_letter_that_cannot_be_deleted_is_reported_and_may_be_sent_again() -> None:
    scene = DeadScene()
    letters = scene.add(3)
    send_all = scene.alive.send_all

    async def losing(messages: Any) -> list[str | None]:
        for message in scene.dead.messages:
            scene.dead.invalidate(message)
        return await send_all(messages)

    scene.alive.send_all = losing  # type: ignore[method-assign]
    ended = await scene.replay()
    assert (ended.end, ended.outcomes) == (End.PARTIAL, {STILL_THERE: tuple(letters)})
    assert len(scene.dead.messages) == 3
    assert scene.replayed.total() == 3


@pytest.mark.parametrize("kind", [Kind.REPLAY, Kind.DISCARD])
async def test_a_command_resumed_after_sleep_leaves_its_expired_letters_alone(kind: Kind) -> None:
    scene = DeadScene()
    letters = scene.add(3)
    task = Task(kind, Filter(), rate=1000.0)
    put, slept = scene.objects.put, timedelta(0)

    async def sleeping(bucket: str, key: str, body: bytes) -> None:
        nonlocal slept
        await put(bucket, key, body)
        slept += timedelta(hours=8) if "archive" in key else timedelta(0)

    scene.objects.put = sleeping  # type: ignore[method-assign]
    ended = ended_of(await carry_out(replace(scene.system, clock=lambda: loop_now() + slept), SERVICE, task, ANN))
    assert (ended.end, ended.outcomes) == (End.PARTIAL, {LOST: tuple(letters)})
    assert len(scene.dead.messages) == 3
    assert scene.alive.sent == []


async def test_a_queue_that_denies_access_loses_nothing_and_the_command_can_be_rerun() -> None:
    scene = DeadScene()
    letters = scene.add(3)
    scene.alive.faults.add("send_all", PermanentError("sqs refused SendMessageBatch"))
    with pytest.raises(PermanentError) as raised:
        await scene.replay()
    assert raised.value.__notes__ == ["nothing is lost, it is safe to run the command again"]
    assert scene.hidden() == []
    ended = ended_of(await scene.latest())
    assert (ended.end, ended.counts, ended.detail) == (End.INTERRUPTED, {"left": 3}, "by PermanentError")
    assert (await scene.replay()).outcomes == {"replayed": tuple(letters)}


async def test_an_interruption_hands_back_held_letters_and_reports_progress() -> None:
    scene = DeadScene()
    scene.add(30)
    running = asyncio.create_task(scene.replay(rate=1.0))
    await asyncio.sleep(12)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scene.hidden() == []
    ended = ended_of(await scene.latest())
    sent = len(scene.alive.sent)
    assert (ended.end, ended.counts) == (End.INTERRUPTED, {"replayed": sent, "left": 30 - sent})
    assert (await scene.replay()).counts == {"replayed": 30 - sent}
