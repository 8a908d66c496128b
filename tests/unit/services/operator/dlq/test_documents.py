"""A damaged document of an operation on dead letters gives one sentence with the remedy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from services.operator.dlq import actions
from shared.stored_documents import DamagedDocumentError
from tests.unit.services.operator.dlq.scene import Graves, on_loop_clock
from tests.unit.services.operator.scene import LANDING

pytestmark = pytest.mark.virtual_clock
GARBAGE = [b"", b"\xff", b"null", b'"\\ud800"', b'{"at": "soon", "began_at": "soon", "until": "9999-12-31T23:59:59Z"}']
READERS: dict[str, Callable[[Graves], Awaitable[object]]] = {
    "begun": lambda graves: actions.audit(graves.system),
    "ended": lambda graves: actions.audit(graves.system),
    "locks": lambda graves: graves.discard(),
    "journal": lambda graves: graves.journal(),
    "resumed": lambda graves: graves.journal(),
}


@pytest.fixture
async def graves(monkeypatch: pytest.MonkeyPatch) -> Graves:
    on_loop_clock(monkeypatch)
    graves = Graves()
    graves.bury(2)
    await graves.discard()
    journal = await graves.journal()
    await journal.go_on("ann", "again")
    return graves


@pytest.mark.parametrize("what", READERS)
async def test_a_damaged_document_about_dead_letters_is_one_sentence_and_heals_as_it_says(graves: Graves, what: str) -> None:
    key = graves.keys(what)[0]
    for garbage in GARBAGE:
        graves.objects.buckets[LANDING][key] = garbage
        if garbage or what != "journal":  # a journal of no lines says nothing, and nothing wrong
            with pytest.raises(DamagedDocumentError, match=rf"^'{LANDING}/{key}' is not a valid [^\n]*delete it"):
                await READERS[what](graves)
    del graves.objects.buckets[LANDING][key]
    await READERS[what](graves)


async def test_a_damaged_archive_is_to_be_restored(graves: Graves) -> None:
    (key,) = graves.keys("archive")
    graves.objects.buckets[LANDING][key] = b"\xff"
    with pytest.raises(DamagedDocumentError, match=r"is not a valid archive of dead letters; restore its former version$"):
        await (await graves.journal()).archived(0)
