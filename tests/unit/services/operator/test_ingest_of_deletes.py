"""Waiting for a run that compares keys: until the rows that are gone are marked, or a dead letter prevents it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contracts.messages import LookUpKeys, LookUpKeysData, encode
from contracts.objects import ObjectRef
from services.operator.errors import NotLoadedError
from services.operator.ingest import Request, Waiting, request_run, wait_until_loaded
from shared.envelope import opening
from shared.ledger import KeyComparison, OpenQuestion
from tests.unit.services.operator.scene import BEGAN, SOURCE, Scene, remodelled

pytestmark = pytest.mark.virtual_clock
LIMIT = timedelta(seconds=30)
HASHES = ObjectRef(bucket="landing", key="k", byte_count=1, row_count=1, sha256="0" * 64)


def compared(
    run: int, *, since: int | None = None, has_ended: bool = True, is_whole: bool = True, open_questions: int = 0
) -> KeyComparison:
    asked = timedelta(seconds=1) if open_questions else None
    return KeyComparison(run, since or run, BEGAN, has_ended, is_whole, open_questions, asked)


async def test_the_wait_for_a_comparing_run_includes_comparisons_and_their_answers() -> None:
    """Of a table that the run does not compare (it may be empty), nothing is awaited."""
    scene = Scene()
    shown: list[Waiting] = []
    request = await request_run(scene.system, compare_keys=True)
    manifest = await scene.end_run(7, requested_by=request.command.id, hashes=HASHES)
    scene.ledger.load(*manifest.batches)
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT, on_progress=shown.append))
    untouched = {"dim_design": compared(6, has_ended=False)}
    for dim_staff, fact_payment in (
        (compared(7, has_ended=False), compared(7)),
        (compared(7, open_questions=1), compared(7, open_questions=2)),
        (compared(8, open_questions=1), compared(7)),  # of a later run, in the place of this one
        (compared(7, is_whole=False), compared(7)),  # the next ones go on with it
        (compared(8, since=6), compared(7)),  # the end of a rotation that had passed some buckets before this run
    ):
        scene.ledger.comparisons = {"dim_staff": dim_staff, "fact_payment": fact_payment} | untouched
        await asyncio.sleep(3)
        assert not waiting.done()
    scene.ledger.comparisons["dim_staff"] = compared(9, since=7)
    assert await waiting == manifest
    looked_up = "run 7: 1 of 1 batches loaded; rows of {} are looked up at the source"
    assert [sentence for sentence in dict.fromkeys(one.sentence for one in shown) if "looked up" in sentence] == [
        looked_up.format("dim_staff"),
        looked_up.format("dim_staff, fact_payment"),
    ]


async def test_a_wait_for_answers_times_out_and_names_their_tables() -> None:
    scene = Scene()
    request = await request_run(scene.system, compare_keys=True)
    scene.ledger.load(*(await scene.end_run(7, requested_by=request.command.id, hashes=HASHES)).batches)
    scene.ledger.comparisons = {"dim_staff": compared(7, open_questions=1)}
    late = "not loaded after 30 s: run 7: 1 of 1 batches loaded; rows of dim_staff are looked up at the source; check `starlift"
    with pytest.raises(NotLoadedError, match=late):
        await wait_until_loaded(scene.system, request, limit=LIMIT)


async def looked_up(scene: Scene, *, table: str = "dim_staff", answered_by: int | None = None) -> tuple[Request, LookUpKeys]:
    """A run whose batches are loaded, and a question of its comparison that is open."""
    request = await request_run(scene.system, compare_keys=True)
    scene.ledger.load(*(await scene.end_run(7, requested_by=request.command.id, hashes=HASHES)).batches)
    question = LookUpKeys(**opening("tests"), data=LookUpKeysData(source_name=SOURCE, rows=()))
    scene.ledger.comparisons = {table: compared(7, open_questions=1)}
    scene.ledger.open_questions = [OpenQuestion(question.id, table, answered_by)]
    return request, question


async def test_a_dead_question_ends_the_wait_and_is_named() -> None:
    scene = Scene()
    request, question = await looked_up(scene)
    other = LookUpKeys(**opening("tests"), data=question.data)  # answered by now, or forgotten by a later comparison
    await scene.dead_letters["ingestion"].send(encode(other))
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT))
    await asyncio.sleep(3)
    assert not waiting.done()
    letter = await scene.dead_letters["ingestion"].send(encode(question))
    what = f"a question about deleted rows is dead letter {letter} of ingestion: `starlift dlq show {letter}` prints why"
    with pytest.raises(NotLoadedError, match=f"^{what}, `starlift dlq replay ingestion --execute` sends it again"):
        await waiting


@pytest.mark.parametrize("service", ["remodelling", "loading"])
@pytest.mark.parametrize("is_last", [True, False])
async def test_a_dead_batch_of_an_answer_ends_the_wait_and_is_named(service: str, *, is_last: bool) -> None:
    """The last batch names the question. Of an answer whose last batch is loaded, the ledger knows the run."""
    scene = Scene()
    request, question = await looked_up(scene, answered_by=None if is_last else 8)
    batches = (await scene.end_run(8, batches=2)).batches
    data = batches[1].data.model_copy(update={"answers": question.id})
    batch = batches[1].model_copy(update={"data": data}) if is_last else batches[0]
    await scene.dead_letters[service].send(encode(batch if service == "remodelling" else remodelled(batch)))
    with pytest.raises(NotLoadedError, match=f"^a batch of run 8 is dead letter .* of {service}: `starlift dlq show"):
        await wait_until_loaded(scene.system, request, limit=LIMIT)


async def test_a_dead_question_about_another_table_does_not_end_the_wait() -> None:
    scene = Scene()
    request, question = await looked_up(scene)
    await scene.dead_letters["ingestion"].send(encode(question))
    scene.ledger.open_questions = [OpenQuestion(question.id, "dim_design", None)]
    with pytest.raises(NotLoadedError, match="not loaded after 30 s"):
        await wait_until_loaded(scene.system, request, limit=LIMIT)


async def test_the_wait_for_a_run_without_comparison_includes_no_answers() -> None:
    scene = Scene()
    request = await request_run(scene.system)
    manifest = await scene.end_run(7, requested_by=request.command.id)
    scene.ledger.load(*manifest.batches)
    scene.ledger.comparisons = {"dim_staff": compared(8, open_questions=1)}
    assert await wait_until_loaded(scene.system, request, limit=LIMIT) == manifest
