"""The records of operations, and how they are read back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import pytest

from contracts.dead_letters import Archived, End
from services.operator.dlq.audit import Removed, audit
from services.operator.dlq.filters import Filter
from services.operator.dlq.operations import ARCHIVE_LETTERS, put_back
from services.operator.errors import OperatorError
from shared.errors import PermanentError
from shared.queue import Failures
from shared.stored_documents import DamagedDocumentError
from shared.testing import EPOCH, Partial
from tests.unit.services.operator.dlq.scene import ANN, SERVICE, DeadScene, ended_of, put_dead
from tests.unit.services.operator.scene import LANDING

pytestmark = pytest.mark.virtual_clock
ODD = ["{", "a\u2028b", "a\r\nb\u0085c", '{"data": "é\\ud800"}', " ", "\U0001f4a9" * 100]


async def test_the_audit_records_who_did_what_when_and_why() -> None:
    scene = DeadScene()
    first, _ = scene.add(2)
    await scene.replay(Filter(error="SourceMismatchError"), limit=1, canary=0)
    (operation,) = await audit(scene.system)
    assert (operation.kind, operation.operator, operation.reason) == ("replay", ANN.operator, ANN.reason)
    assert (operation.filter, operation.limit) == ({"error": "SourceMismatchError"}, 1)
    assert ended_of(operation).outcomes == {"replayed": (first,)}


async def test_the_audit_of_an_earlier_build_is_readable() -> None:
    scene = DeadScene()
    begun: dict[str, Any] = {"id": "20260101T000000Z-1", "kind": "native", "service": SERVICE, "operator": "ann", "reason": "",
             "began_at": "2026-01-01T00:00:00Z", "filter": {"ids": []}, "body": None}  # fmt: skip
    ended = {"at": "2026-01-01T00:00:09Z", "end": "done", "counts": {"deleted": 7}, "detail": ""}
    for what, document in (("begun", begun), ("ended", ended)):
        scene.objects.buckets[LANDING][f"dead-letters/{what}/{begun['id']}.json"] = json.dumps(document).encode()
    (operation,) = await audit(scene.system)
    assert (operation.kind, ended_of(operation).counts) == ("native", {"deleted": 7})


@pytest.mark.parametrize("what", ["begun", "ended", "archive"])
@pytest.mark.parametrize("garbage", [b"", b"\xff", b"null", b'"\\ud800"', b'{"at": "soon"}'])
async def test_a_damaged_document_is_reported_and_repaired_as_the_error_says(what: str, garbage: bytes) -> None:
    scene = DeadScene()
    scene.add(2)
    await scene.discard()
    (key,) = scene.keys(what)
    identifier = (await scene.latest()).id
    kept = scene.objects.buckets[LANDING][key]
    scene.objects.buckets[LANDING][key] = garbage
    if what == "archive" and not garbage:
        return  # an archive without a letter
    with pytest.raises(DamagedDocumentError, match=rf"^'{LANDING}/{key}' is not a valid [^\n]*restore its former version"):
        await (scene.restore(identifier) if what == "archive" else audit(scene.system))
    scene.objects.buckets[LANDING][key] = kept
    assert (await scene.restore(identifier)).counts == {"restored": 2}


def contents(scene: DeadScene) -> list[tuple[str, dict[str, str]]]:
    """Body and attributes of every dead letter, in no order."""
    return sorted((one.body, dict(one.attributes)) for one in scene.dead.messages)


async def test_discarded_letters_are_restored_byte_for_byte() -> None:
    scene = DeadScene()
    scene.add(3, replays=9)
    put_dead(scene.dead, *ODD)
    scene.dead.put("bare")
    before = contents(scene)
    assert (await scene.discard()).counts == {"discarded": 10}
    assert (scene.dead.messages, scene.alive.sent) == ([], [])
    assert (await scene.restore((await scene.latest()).id)).counts == {"restored": 10}
    assert contents(scene) == before


async def test_the_deleted_letters_of_a_killed_operation_are_restored() -> None:
    scene = DeadScene()
    letters = scene.add(4)
    await scene.discard()
    identifier = (await scene.latest()).id
    scene.dead.messages += scene.dead.sent[:1]  # as if the process had been killed before it deleted the first one
    del scene.objects.buckets[LANDING][f"dead-letters/ended/{identifier}.json"]
    await scene.dead.receive(1, wait=timedelta(0), visibility=timedelta(seconds=60))
    with pytest.raises(
        OperatorError, match="was interrupted, and others hold 1 letters of remodelling, perhaps some that it left"
    ):
        await scene.restore(identifier)
    await asyncio.sleep(61)
    ended = await scene.restore(identifier)
    assert ended.outcomes == {"restored": tuple(letters[1:])}
    assert len(scene.dead.messages) == 4


async def test_letters_deleted_by_an_interrupted_discard_are_restored() -> None:
    scene = DeadScene()
    scene.add(3)
    before, delete = contents(scene), scene.dead.delete

    async def interrupted(receipts: Iterable[str]) -> Failures:
        await delete(receipts)
        raise PermanentError("refused")

    scene.dead.delete = interrupted  # type: ignore[method-assign]
    with pytest.raises(PermanentError):
        await scene.discard()
    assert scene.dead.messages == []
    assert (await scene.restore((await scene.latest()).id)).counts == {"restored": 3}
    assert contents(scene) == before


@pytest.mark.parametrize("part", [0, 1])
async def test_letters_whose_archive_was_removed_are_reported_and_the_others_come_back(part: int) -> None:
    scene = DeadScene()
    scene.add(ARCHIVE_LETTERS + 5)
    await scene.discard()
    identifier = (await scene.latest()).id
    del scene.objects.buckets[LANDING][scene.keys("archive")[part]]
    ended = await scene.restore(identifier)
    counts = {"restored": 5, "left": ARCHIVE_LETTERS} if part == 0 else {"restored": ARCHIVE_LETTERS, "left": 5}
    assert (ended.end, ended.counts) == (End.PARTIAL, counts)


async def test_a_restore_that_sqs_accepts_in_part_is_reported_as_partial() -> None:
    scene = DeadScene()
    scene.add(5)
    await scene.discard()
    scene.dead.faults.during(0, 1000, Partial(), "send_all")
    ended = await scene.restore((await scene.latest()).id)
    assert (ended.end, ended.counts) == (End.PARTIAL, {"restored": 4, "left": 1})
    assert len(scene.dead.messages) == 4


async def test_two_lines_with_one_id_are_two_letters_and_no_lines_end_as_nothing() -> None:
    """Such a file is written by copying a line and changing its body."""
    scene = DeadScene()

    async def copied(*bodies: str) -> AsyncIterator[Archived]:
        for body in bodies:
            yield Archived(service=SERVICE, message_id="1", body=body, attributes={}, sent_at=EPOCH)

    await put_back(scene.system, Removed(SERVICE, copied("a", "b")), ANN)
    assert scene.dead.bodies == ["a", "b"]
    assert ended_of(await put_back(scene.system, Removed(SERVICE, copied()), ANN)).end == End.NOTHING
