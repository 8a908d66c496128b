from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contracts.messages import IngestSource, Mode, Trigger, decode
from services.operator.ingest import RunNotLoadedError, request_run, resend_missing, wait_until_loaded
from tests.unit.operator_scene import Scene

pytestmark = pytest.mark.virtual_clock
LIMIT = timedelta(seconds=30)


async def test_a_request_is_a_command_in_the_ingestion_queue() -> None:
    scene = Scene()
    request = await request_run(scene.system, Mode.FULL)
    (body,) = scene.queues["ingestion"].bodies
    command = decode(body)
    assert command == request.command
    assert isinstance(command, IngestSource)
    assert (command.data.source_name, command.data.mode, command.data.trigger) == ("totesys", Mode.FULL, Trigger.OPERATOR)
    assert command.traceparent is not None
    assert request.after == 0


async def test_a_request_remembers_the_last_run_before_it() -> None:
    scene = Scene()
    await scene.end_run(41)
    assert (await request_run(scene.system)).after == 41


async def test_it_waits_until_every_batch_is_loaded_and_tells_how_far_it_is() -> None:
    scene = Scene()
    await scene.end_run(6)
    told: list[tuple[int, int]] = []
    request = await request_run(scene.system)
    waiting = asyncio.create_task(
        wait_until_loaded(scene.system, request, limit=LIMIT, on_progress=lambda done, of: told.append((done, of)))
    )
    await asyncio.sleep(1)
    assert told == []
    manifest = await scene.end_run(7, batches=2, requested_by=request.command.id)
    scene.ledger.load(manifest.batches[1])
    await asyncio.sleep(1)
    scene.ledger.load(manifest.batches[0])
    assert await waiting == manifest
    assert list(dict.fromkeys(told)) == [(1, 2), (2, 2)]


async def test_a_run_that_found_nothing_is_loaded() -> None:
    scene = Scene()
    request = await request_run(scene.system)
    manifest = await scene.end_run(7, batches=0, requested_by=request.command.id)
    assert await wait_until_loaded(scene.system, request, limit=LIMIT) == manifest


@pytest.mark.parametrize("service", ["ingestion", "remodelling", "loading"])
async def test_a_dead_letter_ends_the_wait(service: str) -> None:
    scene = Scene()
    await scene.dead_letters[service].send("from yesterday")
    request = await request_run(scene.system)
    waiting = asyncio.create_task(wait_until_loaded(scene.system, request, limit=LIMIT))
    await asyncio.sleep(1)
    assert not waiting.done()
    await scene.dead_letters[service].send("this run's")
    with pytest.raises(RunNotLoadedError, match="a message became a dead letter before the run was loaded"):
        await waiting
    assert asyncio.get_running_loop().time() < LIMIT.total_seconds()


async def test_a_dead_letter_that_falls_at_once_ends_the_wait_too() -> None:
    scene = Scene()
    request = await request_run(scene.system)
    await scene.dead_letters["ingestion"].send("refused before anyone began to wait")
    with pytest.raises(RunNotLoadedError, match="dead letter"):
        await wait_until_loaded(scene.system, request, limit=LIMIT)


@pytest.mark.parametrize(("is_read", "text"), [(False, "the run was not read"), (True, "the run is read, but not loaded")])
async def test_a_wait_has_an_end_and_says_how_far_the_run_came(*, is_read: bool, text: str) -> None:
    scene = Scene()
    request = await request_run(scene.system)
    if is_read:
        await scene.end_run(7, requested_by=request.command.id)
    with pytest.raises(RunNotLoadedError, match=f"{text} after 30 s; look at `starlift status`"):
        await wait_until_loaded(scene.system, request, limit=LIMIT)


async def test_what_was_announced_and_never_loaded_is_sent_again() -> None:
    scene = Scene()
    first = await scene.end_run(6)
    second = await scene.end_run(7, batches=2)
    scene.ledger.load(*first.batches, second.batches[0])
    assert await resend_missing(scene.system) == 1
    assert [decode(body) for body in scene.queues["remodelling"].bodies] == [second.batches[1]]
    scene.ledger.load(second.batches[1])
    assert await resend_missing(scene.system) == 0
