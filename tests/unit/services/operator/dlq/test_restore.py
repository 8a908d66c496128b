"""What leaves the dead-letter queue in other ways than by a replay, and how it comes back: discard, edit, restore, native."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.messages import MESSAGE_BYTES_MAXIMUM, encode
from services.operator.dlq import actions, hold
from services.operator.dlq.actions import UnsendableError
from services.operator.dlq.editing import letters_in, services_in
from services.operator.dlq.filters import Filter
from services.operator.dlq.journal import Journal
from services.operator.dlq.letters import Archived, read_letter
from services.operator.dlq.lock import LockedError, locked
from services.operator.dlq.operation import Author, End
from shared.errors import PermanentError
from shared.testing import EPOCH, Partial, loop_now
from tests.unit.services.operator.dlq.scene import ALL, ANN, FAST, SERVICE, Graves, bury, ids_of, on_loop_clock
from tests.unit.services.operator.scene import LANDING, ingested

pytestmark = pytest.mark.virtual_clock
# What SQS takes: XML's characters.
BODIES = st.text(st.characters(codec="utf-8", min_codepoint=32) | st.sampled_from(["\t", "\n", "\r"]), min_size=1)
ODD = ["{", "a\u2028b", "a\r\nb\u0085c", '{"data": "é\\ud800"}', " ", "\U0001f4a9" * 100]


@pytest.fixture(autouse=True)
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop_clock(monkeypatch)


def contents(graves: Graves) -> list[tuple[str, dict[str, str]]]:
    """Body and attributes of every dead letter, in no order."""
    return sorted((one.body, dict(one.attributes)) for one in graves.dead.messages)


async def test_what_was_discarded_comes_back_byte_for_byte() -> None:
    graves = Graves()
    graves.bury(3)
    bury(graves.dead, *ODD)
    graves.dead.put("bare")
    before = contents(graves)
    ended = await graves.discard()
    assert (ended.end, ended.counts) == (End.DONE, {"deleted": 10})
    assert graves.dead.messages == []
    assert graves.alive.sent == []
    discarded = await graves.operation()
    _, restored = await actions.restore(graves.system, SERVICE, await actions.removed(graves.system, discarded), ANN)
    assert (restored.end, restored.counts) == (End.DONE, {"sent": 10})
    assert contents(graves) == before


async def test_a_discard_takes_what_matches_valid_or_not_and_however_often_replayed() -> None:
    graves = Graves()
    graves.bury(1, run=7, replays=9)
    graves.bury(2, run=8)
    assert (await graves.discard(Filter(runs=(7, 7)))).counts == {"deleted": 1}
    assert len(graves.dead.messages) == 2


async def test_a_discard_deletes_nothing_before_it_is_archived() -> None:
    graves = Graves()
    graves.bury(3)
    seen: list[tuple[int, int]] = []
    delete = graves.dead.delete

    async def noting(receipts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        archived = sum(graves.objects.buckets[LANDING][key].count(b"\n") for key in graves.keys("archive"))
        seen.append((archived, len(graves.dead.messages)))
        return await delete(receipts)

    graves.dead.delete = noting  # type: ignore[method-assign]
    await graves.discard()
    assert seen[0] == (3, 3)


async def test_a_laptop_that_slept_reports_nothing_as_discarded_that_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    graves = Graves()
    graves.bury(3)
    choose_no_more = Journal.choose_no_more

    async def sleeping(journal: Journal) -> None:
        await choose_no_more(journal)
        monkeypatch.setattr(hold, "now", lambda: loop_now() + timedelta(hours=8))

    monkeypatch.setattr(Journal, "choose_no_more", sleeping)
    ended = await graves.discard()
    assert (ended.end, ended.counts) == (End.PARTIAL, {"skipped": 3})
    assert len(graves.dead.messages) == 3


async def test_what_somebody_has_in_hand_keeps_a_discard_open_since_nobody_knows_whether_it_was_deleted() -> None:
    """Called lost, what the killed process had deleted could not be restored; called deleted, the rest would be forgotten."""
    graves = Graves()
    graves.bury(25)
    graves.dead.faults.add("delete", PermanentError("refused"))  # one of several requests
    with pytest.raises(PermanentError):
        await graves.discard()
    left = len(graves.dead.messages)
    assert 0 < left < 25
    for message in graves.dead.messages:
        message.visible_at, message.receipt = asyncio.get_running_loop().time() + 3600, "somebody else's"
    with pytest.raises(LockedError, match="25 letters of remodelling are to be deleted, and somebody else has them in hand"):
        await graves.resume()
    await asyncio.sleep(3600)
    assert (await graves.resume()).counts == {"deleted": 25}
    assert graves.dead.messages == []
    assert len([one async for one in await actions.removed(graves.system, await graves.operation())]) == 25


def exported(directory: Path, letters: list[Archived]) -> Path:
    path = directory / "letters.jsonl"
    path.write_text("".join(f"{one.model_dump_json()}\n" for one in letters), encoding="utf-8")
    return path


def letter_of(body: str, service: str = SERVICE, attributes: dict[str, str] | None = None) -> Archived:
    return Archived(service=service, message_id=f"id of {body}", body=body, attributes=attributes or {}, sent_at=EPOCH)


@settings(deadline=None)
@given(body=BODIES, attribute=BODIES)
def test_whatever_sqs_may_hold_survives_a_file(tmp_path_factory: pytest.TempPathFactory, body: str, attribute: str) -> None:
    letter = letter_of(body, attributes={"x": attribute})
    path = exported(tmp_path_factory.mktemp("export"), [letter, letter])
    assert services_in(path) == {SERVICE}

    async def read() -> list[Archived]:
        return [one async for one in letters_in(path, SERVICE)]

    coroutine = read()
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)  # reads a file, waits for nothing
    assert ended.value.value == [letter, letter]


async def test_a_file_goes_back_to_the_services_it_came_from(tmp_path: Path) -> None:
    graves = Graves()
    path = exported(
        tmp_path, [letter_of(body, service) for body, service in zip("abc", [SERVICE, "loading", SERVICE], strict=True)]
    )
    for service in services_in(path):
        await actions.restore(graves.system, service, letters_in(path, service), ANN)
    assert graves.dead.bodies == ["a", "c"]
    assert graves.dead_letters["loading"].bodies == ["b"]


async def test_a_restore_that_sqs_takes_in_part_says_so() -> None:
    graves = Graves()
    graves.bury(5)
    await graves.discard()
    discarded = await graves.operation()
    graves.dead.faults.during(0, 1000, Partial(), "send_all")
    _, ended = await actions.restore(graves.system, SERVICE, await actions.removed(graves.system, discarded), ANN)
    assert ended.end is End.PARTIAL
    assert ended.counts == {"sent": 4, "failed": 1}
    assert len(graves.dead.messages) == 4


async def test_two_lines_with_one_id_are_two_letters() -> None:
    """As somebody writes who copies a line and changes its body."""
    graves = Graves()

    async def copied() -> AsyncIterator[Archived]:
        for body in ("a", "b"):
            yield letter_of(body).model_copy(update={"message_id": "1"})

    await actions.restore(graves.system, SERVICE, copied(), ANN)
    assert graves.dead.bodies == ["a", "b"]


async def nothing() -> AsyncIterator[Archived]:
    for number in range(0):
        yield letter_of(str(number))


async def test_a_restore_of_nothing_is_an_end_of_its_own() -> None:
    _, ended = await actions.restore(Graves().system, SERVICE, nothing(), ANN)
    assert ended.end is End.NOTHING


async def test_restore_and_native_moves_wait_for_the_lock() -> None:
    graves = Graves()
    graves.bury(1)
    async with locked(graves.objects, LANDING, actions.replay_operation(SERVICE, ALL, ANN, FAST)):
        with pytest.raises(LockedError, match="ann works on"):
            await actions.restore(graves.system, SERVICE, nothing(), ANN)
        with pytest.raises(LockedError, match="ann works on"):
            await actions.move_natively(graves.system, SERVICE, ANN, 10.0)
    assert not graves.move_tasks[SERVICE].running


async def test_a_native_move_is_sqs_s_own_and_audited() -> None:
    graves = Graves()
    operation, ended = await actions.move_natively(graves.system, SERVICE, ANN, 0.5)
    assert graves.move_tasks[SERVICE].running
    assert (await actions.audit(graves.system)) == [(operation, ended)]
    with pytest.raises(LockedError, match="SQS itself moves"):
        await actions.move_natively(graves.system, SERVICE, ANN, 10.0)
    for operate in (graves.replay, graves.discard):
        with pytest.raises(LockedError, match="SQS itself moves"):
            await operate()


async def edit(graves: Graves, change: dict[str, object], number: int = 0) -> str:
    """The id of the operation."""
    message = graves.dead.messages[number]
    (delivery,) = [
        one
        for one in await graves.dead.receive(10, wait=timedelta(0), visibility=timedelta(0))
        if one.message_id == message.message_id
    ]
    letter = read_letter(SERVICE, delivery)
    document = json.loads(message.body) if not isinstance(letter.document, dict) else letter.document | change
    operation = actions.edit_operation(letter, document, Author("ann", "typo"))
    assert (await actions.do(graves.system, operation)).end is End.DONE
    return operation.id


async def test_an_edited_letter_takes_the_place_of_the_original_which_is_kept() -> None:
    graves = Graves()
    graves.bury(2, replays=2)
    original, other = graves.dead.messages
    identifier = await edit(graves, {"source": "ann"})
    changed = next(one for one in graves.dead.messages if one is not other)
    assert ids_of(graves.dead.messages) == [other.message_id, changed.message_id]
    assert json.loads(changed.body) == json.loads(original.body) | {"source": "ann"}
    assert changed.attributes == original.attributes  # why it died, how often it was replayed
    assert graves.alive.sent == []
    (pair,) = await actions.audit(graves.system, identifier)
    assert (pair[0].operator, pair[0].reason) == ("ann", "typo")
    assert [one.body async for one in await actions.removed(graves.system, pair[0])] == [original.body]


async def test_an_edited_letter_is_validated_before_it_may_go() -> None:
    graves = Graves()
    graves.bury(1)
    with pytest.raises(UnsendableError, match=r"^the edited message can't go back to remodelling: .*data\.run"):
        await edit(graves, {"data": json.loads(graves.dead.bodies[0])["data"] | {"run": 0}})
    with pytest.raises(UnsendableError, match="is not for remodelling"):
        await edit(
            graves,
            json.loads(encode(ingested(1)))
            | {"type": "starlift.ingest_source.v1", "data": {"source_name": "x", "trigger": "operator"}},
        )
    with pytest.raises(UnsendableError, match="bytes, SQS takes"):
        await edit(graves, {"source": "x" * MESSAGE_BYTES_MAXIMUM})
    assert len(graves.dead.messages) == 1
    assert await actions.audit(graves.system) == []
