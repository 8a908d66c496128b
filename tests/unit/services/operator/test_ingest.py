from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import pytest

from contracts.messages import IngestSource, Mode, Trigger, decode, encode
from contracts.objects import SourceKeys
from contracts.state import Manifest
from services.operator.errors import NotLoadedError
from services.operator.ingest import (
    Waiting,
    request_run,
    resend_missing,
    wait_until_in_ledger,
    wait_until_loaded,
)
from shared.object_store import Versioned
from tests.unit.services.operator.scene import SOURCE, Scene, ingested, remodelled

pytestmark = pytest.mark.virtual_clock
LIMIT = timedelta(seconds=30)


async def test_a_request_is_sent_as_a_command_to_the_ingestion_queue() -> None:
    scene = Scene()
    request = await request_run(scene.system, Mode.FULL)
    (body,) = scene.queues["ingestion"].bodies
    command = decode(body)
    assert command == request.command
    assert isinstance(command, IngestSource)
    assert (command.data.source_name, command.data.mode, command.data.trigger) == ("totesys", Mode.FULL, Trigger.OPERATOR)
    assert command.traceparent is not None
    assert request.after == 0


async def test_a_request_keeps_the_number_of_the_last_run_before_it() -> None:
    scene = Scene()
    await scene.end_run(41)
    assert (await request_run(scene.system)).after == 41


async def test_the_wait_reports_progress_until_every_batch_is_loaded() -> None:
    scene = Scene()
    scene.ledger.load(*(await scene.end_run(6)).batches)
    shown: list[Waiting] = []
    request = await request_run(scene.system)
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT, on_progress=shown.append))
    await asyncio.sleep(1)
    manifest = await scene.end_run(7, batches=2, requested_by=request.command.id)
    scene.ledger.load(manifest.batches[1])
    await asyncio.sleep(1)
    scene.ledger.load(manifest.batches[0])
    assert await waiting == manifest
    assert list(dict.fromkeys(one.sentence for one in shown)) == [
        "the run has not been read yet",
        "run 7: 1 of 2 batches loaded",
        "run 7: 2 of 2 batches loaded",
    ]


async def test_a_run_that_found_nothing_is_loaded() -> None:
    scene = Scene()
    request = await request_run(scene.system)
    manifest = await scene.end_run(7, batches=0, requested_by=request.command.id)
    assert await wait_until_loaded(scene.system, request, limit=LIMIT) == manifest


async def test_the_wait_for_an_empty_run_includes_every_run_before_it_by_name() -> None:
    """An earlier run read the change, so the warehouse has it only when that run is loaded."""
    scene = Scene()
    scene.ledger.load(*(await scene.end_run(3)).batches)
    first, second = await scene.end_run(4, batches=2), await scene.end_run(5)
    shown: list[Waiting] = []
    request = await request_run(scene.system)
    own = await scene.end_run(7, batches=0, requested_by=request.command.id)
    await scene.end_run(8)  # came later: what it read was not there when the run was asked for
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT, on_progress=shown.append))
    await asyncio.sleep(5)
    assert not waiting.done()
    assert shown[-1].sentence == "run 7: 0 of 0 batches loaded; before it 3 missing, of run 4 and 1 more"
    scene.ledger.load(*second.batches, first.batches[0])
    await asyncio.sleep(5)
    assert shown[-1].sentence == "run 7: 0 of 0 batches loaded; before it 1 missing, of run 4"
    scene.ledger.load(first.batches[1])
    assert await waiting == own


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_full_run_closes_the_gaps_before_it(*, is_own: bool) -> None:
    scene = Scene()
    await scene.end_run(4)  # never loaded
    request = await request_run(scene.system)
    own = await scene.end_run(7, requested_by=request.command.id, is_full=is_own)
    scene.ledger.load(*own.batches)
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT))
    await asyncio.sleep(5)
    assert waiting.done() is is_own
    scene.ledger.load(*(await scene.end_run(8, is_full=True)).batches)
    assert await waiting == own


async def test_the_wait_reads_no_manifest_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    for run in range(1, 30):
        scene.ledger.load(*(await scene.end_run(run)).batches)
    request = await request_run(scene.system)
    own = await scene.end_run(30, requested_by=request.command.id)
    reads, read = list[str](), scene.objects.read

    async def counting(bucket: str, key: str) -> Versioned | None:
        reads.append(key)
        return await read(bucket, key)

    monkeypatch.setattr(scene.objects, "read", counting)
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT))
    await asyncio.sleep(1.5)  # eight looks, one of which goes round
    scene.ledger.load(*own.batches)
    await waiting
    assert sum(key == SourceKeys(SOURCE).manifest(30) for key in reads) == 2  # to find it, and for its gaps
    assert sum("/manifests/" in key for key in reads) <= 4


@pytest.mark.parametrize("service", ["ingestion", "remodelling", "loading"])
async def test_a_dead_letter_of_the_request_or_an_earlier_run_ends_the_wait(service: str) -> None:
    scene = Scene()
    earlier = await scene.end_run(6)
    request = await request_run(scene.system)
    if service != "ingestion":
        await scene.end_run(7, batches=0, requested_by=request.command.id)
    batch = earlier.batches[0]
    bodies = {"ingestion": encode(request.command), "remodelling": encode(batch), "loading": encode(remodelled(batch))}
    letters = scene.dead_letters[service]
    await letters.send("not even JSON")
    await letters.send(encode(ingested(5)))  # of a run that left no manifest
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT))
    await asyncio.sleep(3)
    assert not waiting.done()
    letter = await letters.send(bodies[service])
    what = "the request for this run" if service == "ingestion" else "a batch of run 6"
    with pytest.raises(NotLoadedError) as raised:
        await waiting
    assert str(raised.value).startswith(f"{what} is dead letter {letter} of {service}: `starlift dlq show")
    assert asyncio.get_running_loop().time() < LIMIT.total_seconds()
    assert (await letters.depth()).in_flight == 0  # what was looked at is handed back


async def test_a_dead_letter_from_before_the_request_also_ends_the_wait() -> None:
    scene = Scene()
    batch = (await scene.end_run(6)).batches[0]
    await scene.dead_letters["remodelling"].send(encode(batch))
    request = await request_run(scene.system)
    await scene.end_run(7, batches=0, requested_by=request.command.id)
    with pytest.raises(NotLoadedError, match="a batch of run 6 is dead letter"):
        await wait_until_loaded(scene.system, request, limit=LIMIT)


async def test_dead_letters_of_loaded_batches_do_not_end_the_wait() -> None:
    """One of two copies of a message died, or a full run has read everything again since."""
    scene = Scene()
    lost, doubled = await scene.end_run(5), await scene.end_run(6)
    scene.ledger.load(*doubled.batches)
    for batch in (*lost.batches, *doubled.batches):
        await scene.dead_letters["remodelling"].send(encode(batch))
    request = await request_run(scene.system, Mode.FULL)
    own = await scene.end_run(7, requested_by=request.command.id, is_full=True)
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT))
    await asyncio.sleep(5)
    assert not waiting.done()
    scene.ledger.load(*own.batches)
    assert await waiting == own


@pytest.mark.parametrize(
    ("is_read", "text"), [(False, "the run has not been read yet"), (True, "run 7: 0 of 1 batches loaded")]
)
async def test_a_wait_times_out_and_reports_how_far_the_run_came(*, is_read: bool, text: str) -> None:
    scene = Scene()
    request = await request_run(scene.system)
    if is_read:
        await scene.end_run(7, requested_by=request.command.id)
    with pytest.raises(NotLoadedError, match=f"not loaded after 30 s: {text}; check `starlift status`"):
        await wait_until_loaded(scene.system, request, limit=LIMIT)


async def test_a_wait_for_batches_ends_when_they_are_loaded_or_dead() -> None:
    scene = Scene()
    manifest: Manifest = await scene.end_run(6, batches=2)
    ids = [batch.data.batch_id for batch in manifest.batches]
    scene.ledger.load(manifest.batches[0])
    with pytest.raises(NotLoadedError, match="1 of 2 batches are not loaded after 30 s"):
        await wait_until_in_ledger(scene.system, ids, limit=LIMIT)
    await scene.dead_letters["loading"].send(encode(remodelled(manifest.batches[1])))
    with pytest.raises(NotLoadedError, match="a batch of run 6 is dead letter"):
        await wait_until_in_ledger(scene.system, ids, limit=LIMIT)
    scene.ledger.load(manifest.batches[1])
    await wait_until_in_ledger(scene.system, ids, limit=LIMIT)
    with pytest.raises(NotLoadedError, match="1 of 1 batches"):
        await wait_until_in_ledger(scene.system, [uuid4()], limit=LIMIT)


async def test_batches_that_were_announced_but_never_loaded_are_resent() -> None:
    scene = Scene()
    first = await scene.end_run(6)
    second = await scene.end_run(7, batches=2)
    scene.ledger.load(*first.batches, second.batches[0])
    assert await resend_missing(scene.system) == 1
    assert [decode(body) for body in scene.queues["remodelling"].bodies] == [second.batches[1]]
    scene.ledger.load(second.batches[1])
    assert await resend_missing(scene.system) == 0


async def test_a_long_wait_looks_seldom_into_the_buckets_and_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    request = await request_run(scene.system)
    moments, read, listed = list[float](), scene.objects.read, list[str]()

    async def counting(bucket: str, key: str) -> Versioned | None:
        moments.append(asyncio.get_running_loop().time())
        return await read(bucket, key)

    async def keys(_bucket: str, prefix: str, *, after: str = "") -> list[str]:
        listed.append(f"{prefix}{after}")
        return []

    monkeypatch.setattr(scene.objects, "read", counting)
    monkeypatch.setattr(scene.objects, "keys", keys)
    with pytest.raises(NotLoadedError):
        await wait_until_loaded(scene.system, request, limit=timedelta(minutes=5))
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert 0.2 < min(pauses) < max(pauses) <= 2
    assert len(moments) < 200
    assert listed == []
