"""Replay, discard and edit from start to end."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from contracts.dead_letters import End, Kind
from contracts.failure import FAILURE_ATTRIBUTE, FailureRecord
from contracts.messages import MESSAGE_BYTES_MAXIMUM, encode
from contracts.upcasts import UPCASTS
from services.operator.dlq.filters import Filter
from services.operator.dlq.looking import find
from services.operator.dlq.operations import ARCHIVE_LETTERS, edited
from services.operator.errors import UsageError
from tests.unit.services.operator.dlq.scene import DeadScene, failure, ids_of, put_dead
from tests.unit.services.operator.scene import LANDING, ingested

pytestmark = pytest.mark.virtual_clock


async def test_matching_letters_are_sent_back_unchanged_and_count_the_replay() -> None:
    scene = DeadScene()
    _, other = put_dead(scene.dead, *(encode(ingested(run)) for run in (7, 8)))
    body = scene.dead.bodies[0]
    ended = await scene.replay(Filter(runs=(7, 7)))
    assert (ended.end, ended.counts) == (End.DONE, {"replayed": 1})
    (sent,) = scene.alive.sent
    assert sent.body == body
    assert FailureRecord.model_validate_json(sent.attributes[FAILURE_ATTRIBUTE]) == failure(replays=1)
    assert ids_of(scene.dead.messages) == [other]
    assert scene.hidden() == []


@pytest.mark.parametrize("kind", [Kind.REPLAY, Kind.DISCARD])
async def test_a_letter_is_archived_before_it_is_sent_and_sent_before_it_is_deleted(kind: Kind) -> None:
    scene = DeadScene()
    scene.add(3)
    seen: list[tuple[str, int, int]] = []

    def noting(name: str, call: Any) -> Any:
        async def noted(given: Any) -> Any:
            archived = sum(scene.objects.buckets[LANDING][key].count(b"\n") for key in scene.keys("archive"))
            seen.append((name, archived, len(scene.alive.sent)))
            return await call(given)

        return noted

    scene.alive.send_all = noting("send", scene.alive.send_all)  # type: ignore[method-assign]
    scene.dead.delete = noting("delete", scene.dead.delete)  # type: ignore[method-assign]
    await scene.do(kind)
    assert seen == ([("send", 3, 0), ("delete", 3, 3)] if kind is Kind.REPLAY else [("delete", 3, 0)])


async def test_no_matching_letter_is_an_end_of_its_own() -> None:
    scene = DeadScene()
    scene.add(2)
    ended = await scene.replay(Filter(runs=(99, 99)))
    assert (ended.end, ended.counts) == (End.NOTHING, {})
    assert scene.hidden() == []


async def test_letters_that_cannot_be_replayed_stay_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = DeadScene()
    (large,) = scene.add()
    (message,) = scene.dead.messages
    monkeypatch.setitem(UPCASTS, "old.v1", lambda one: one | {"type": "starlift.batch_ingested.v5"})
    old = message.body.replace("starlift.batch_ingested.v5", "old.v1")
    message.body = old.replace('"source":"tests"', f'"source":"tests{"x" * (MESSAGE_BYTES_MAXIMUM - len(old))}"')
    good = scene.add(2, replays=2)
    (tired,) = scene.add(replays=3)
    broken, newer = put_dead(scene.dead, "{", '{"type": "starlift.batch_loaded.v9"}')
    ended = await scene.replay()
    assert (ended.end, ended.counts) == (End.PARTIAL, {"replayed": 2, "left": 4})
    assert ids_of(scene.dead.messages) == [large, tired, broken, newer]
    assert ended.outcomes is not None
    assert ended.outcomes["replayed"] == tuple(good)
    reasons = {letter: outcome for outcome, letters in ended.outcomes.items() for letter in letters}
    assert "bytes, SQS takes" in reasons[large]
    assert reasons[tired].startswith("it was replayed 3 times already")
    assert reasons[broken] == "the body is not JSON; Starlift does not send such messages"
    assert "newer than version 2" in reasons[newer]
    assert (await scene.replay(Filter(ids=(tired,)), force=True)).counts == {"replayed": 1}
    assert FailureRecord.model_validate_json(scene.alive.sent[-1].attributes[FAILURE_ATTRIBUTE]).replays == 4


async def test_a_limit_takes_that_many_letters_and_ends_the_look() -> None:
    scene = DeadScene()
    scene.add(100)
    assert (await scene.replay(limit=12)).counts == {"replayed": 12}
    assert len(scene.dead.messages) == 88
    assert sum(one.receive_count for one in scene.dead.messages) <= 20  # hands the rest of its last poll back
    assert scene.hidden() == []


@pytest.mark.parametrize(("rate", "number", "seconds"), [(10.0, 35, 3.0), (0.5, 3, 4.0), (3.0, 7, 2.0), (100.0, 150, 1.25)])
async def test_the_rate_is_respected(rate: float, number: int, seconds: float) -> None:
    scene = DeadScene()
    scene.add(number)
    await scene.replay(rate=rate)
    times = [(one.sent_at - scene.alive.sent[0].sent_at).total_seconds() for one in scene.alive.sent]
    assert len(times) == number
    assert times[-1] == pytest.approx(seconds, abs=0.01)
    for start in times:
        assert sum(1 for time in times if start <= time < start + 0.999) <= max(1, rate * 1.25)


async def test_an_archive_object_holds_a_bounded_number_of_letters() -> None:
    scene = DeadScene()
    scene.add(ARCHIVE_LETTERS + 5)
    assert (await scene.replay()).counts == {"replayed": ARCHIVE_LETTERS + 5}
    lines = [scene.objects.buckets[LANDING][key].count(b"\n") for key in scene.keys("archive")]
    assert lines == [ARCHIVE_LETTERS, 5]


async def test_letters_held_by_others_are_awaited_for_a_minute_and_then_reported() -> None:
    scene = DeadScene()
    scene.add(4)
    await scene.dead.receive(1, wait=timedelta(0), visibility=timedelta(seconds=30))  # this one comes back in time
    await scene.dead.receive(2, wait=timedelta(0), visibility=timedelta(minutes=10))
    ended = await scene.replay()
    assert (ended.end, ended.counts) == (End.PARTIAL, {"replayed": 2})
    assert 60 <= asyncio.get_running_loop().time() < 70
    assert ended.detail == "other commands held 2 more, which were not examined"


async def test_unselected_letters_stay_visible_to_others_and_new_ones_are_ignored() -> None:
    scene = DeadScene()
    scene.add(10, run=7)
    scene.add(3, run=8)
    running = asyncio.create_task(scene.replay(Filter(runs=(7, 7)), rate=1.0))
    await asyncio.sleep(5)
    assert (await scene.dead.depth()).visible == 3
    newcomers = scene.add(2, run=7)
    assert (await running).counts == {"replayed": 10}
    assert set(newcomers) <= set(ids_of(scene.dead.messages))


async def test_two_concurrent_replays_share_the_letters() -> None:
    """The visibility of a letter is its lock."""
    scene = DeadScene()
    scene.add(40)
    both = await asyncio.gather(scene.replay(rate=5.0), scene.replay(rate=5.0))
    assert sum(ended.counts.get("replayed", 0) for ended in both) == 40
    assert len(scene.replayed) == scene.replayed.total() == 40
    assert scene.dead.messages == []


async def test_a_discard_can_be_limited_to_letters_loaded_since() -> None:
    scene = DeadScene()
    scene.add(3)
    put_dead(scene.dead, "{")
    scene.ledger.load(ingested(1, 1))
    assert (await scene.discard(Filter(loaded=True))).counts == {"discarded": 1}
    assert len(scene.dead.messages) == 3
    assert encode(ingested(1, 1))[80:] not in {body[80:] for body in scene.dead.bodies}
    assert scene.ledger.questions == 1  # not one per letter: there may be 50,000


async def test_an_edited_letter_replaces_the_original_which_is_archived() -> None:
    scene = DeadScene()
    scene.add(2, replays=2)
    original, other = scene.dead.messages
    (letter,) = await find(scene.system, original.message_id, 1)
    instead = edited(letter, letter.document | {"source": "ann"})
    assert (await scene.do(Kind.EDIT, Filter(ids=(letter.id,)), limit=1, instead=instead)).counts == {"edited": 1}
    changed = next(one for one in scene.dead.messages if one is not other)
    assert len(scene.dead.messages) == 2
    assert json.loads(changed.body) == json.loads(original.body) | {"source": "ann"}
    assert changed.attributes == original.attributes  # why it failed, how often it was replayed
    assert scene.alive.sent == []
    assert (await scene.restore((await scene.latest()).id)).counts == {"restored": 1}
    assert original.body in scene.dead.bodies


async def test_an_edited_letter_is_validated_before_it_is_sent() -> None:
    scene = DeadScene()
    (identifier,) = scene.add(1)
    (letter,) = await find(scene.system, identifier, 1)
    data = letter.document["data"]
    with pytest.raises(UsageError, match=r"^the edited message can't go back to remodelling: .*data\.run"):
        edited(letter, letter.document | {"data": data | {"run": 0}})
    command = {"type": "starlift.ingest_source.v1", "data": {"source_name": "x", "trigger": "operator"}}
    with pytest.raises(UsageError, match="is not for remodelling"):
        edited(letter, letter.document | command)
    with pytest.raises(UsageError, match="bytes, SQS takes"):
        edited(letter, letter.document | {"source": "x" * MESSAGE_BYTES_MAXIMUM})
