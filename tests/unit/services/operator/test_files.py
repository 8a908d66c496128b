"""What is shown of the drop zone: what waits, what became of the rest, and what a person should see to."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
from rich.console import Console

from contracts.messages import Mode, Trigger
from services.operator.errors import NotLoadedError, UsageError
from services.operator.files import OVERDUE, Files, files_of_no_data_set, problems_of_files, read_files, require_none_refused
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.system import System
from services.operator.terminal.files import show_files
from shared.testing import EPOCH
from tests.unit.services.ingestion.delivered_scene import LANDING, SOURCE, DeliveredScene, budget, product
from tests.unit.services.operator.scene import FakeLedger, Scene

pytestmark = pytest.mark.virtual_clock


def system_of(scene: DeliveredScene) -> System:
    system = Scene().system
    settings = system.settings.model_copy(update={"source_name": SOURCE, "landing_bucket": LANDING})
    return replace(system, settings=settings, contract=scene.contract, objects=scene.objects, source=None)


async def read(scene: DeliveredScene, dataset: str | None = None) -> Files:
    return await read_files(system_of(scene), dataset, limit=20)


async def test_files_that_wait_and_what_became_of_others_are_shown() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget("1;2026-01-01;10.50", "x;2026-01-01;1"))
    await scene.put("budget/b.csv", b"[red]\n")
    await scene.ingest()
    await scene.put("budget/c.csv", budget())
    await scene.put("product/d.jsonl", product(1, "one", 1))
    await scene.put("prodct/e.jsonl", product(1, "one", 1))
    found = await read(scene)
    assert [(one.dataset, one.key) for one in found.waiting] == [
        ("budget", "dropzone/budget/c.csv"),
        ("product", "dropzone/product/d.jsonl"),
    ]
    unknown = await files_of_no_data_set(system_of(scene), scene.contract)
    assert [one.key for one in unknown] == ["dropzone/prodct/e.jsonl"]
    console = Console(file=io.StringIO(), width=160, record=True)
    show_files(console, found, unknown)
    text = console.export_text()
    assert text.startswith(
        "refused: dropzone/budget/b.csv\n  its header has no column 'product_id', 'month', 'amount'; it has '[red]'; "
        "correct the header, or the delimiter or the columns in the contract\n"
    )
    assert "no data set has the folder of dropzone/prodct/e.jsonl" in text
    assert "1 bad record: `starlift quarantine list` shows where and why" in text
    assert [one.key for one in (await read(scene, "product")).waiting] == ["dropzone/product/d.jsonl"]
    with pytest.raises(UsageError, match="there is no data set 'prodct'; the data sets are budget, product"):
        await read(scene, "prodct")


async def test_a_refused_file_is_a_problem_until_another_one_takes_its_place() -> None:
    scene = DeliveredScene()
    await scene.put("product/a.jsonl", b"rubbish\n")
    await scene.ingest()
    (problem,) = problems_of_files(await read(scene), EPOCH)
    assert problem == "refused: 'dropzone/product/a.jsonl'; `starlift files` shows why"
    await scene.put("product/b.jsonl", product(1, "one", 1))
    await scene.ingest()
    assert len((await read(scene)).refused) == 1, "an increment does not replace another one"
    await scene.put("product/a.jsonl", product(2, "two", 1))
    await scene.ingest()
    assert not list(problems_of_files(await read(scene), EPOCH))


async def test_a_snapshot_takes_the_place_of_every_file_before_it() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", b"rubbish\n")
    await scene.put("product/a.jsonl", b"rubbish\n")
    await scene.ingest()
    await scene.put("budget/b.csv", budget("1;2026-01-01;10.50"))
    await scene.put("product/snapshot/b.jsonl", product(1, "one", 1))
    await scene.ingest()
    assert not (await read(scene)).refused


async def test_a_run_that_announces_again_what_is_known_takes_the_place_of_no_file() -> None:
    scene = DeliveredScene()
    await scene.put("product/a.jsonl", product(1, "one", 1))
    await scene.put("product/b.jsonl", b"rubbish\n")
    await scene.ingest()
    await scene.ingest(mode=Mode.FULL)
    assert [one.key for one in (await read(scene)).refused] == ["dropzone/product/b.jsonl"]


async def test_the_reason_of_a_refused_file_is_shown_after_another_one_has_taken_its_place() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", b"rubbish\n")
    await scene.ingest()
    for _ in range(2):  # the second one is unchanged, which needs no reason
        await scene.put("budget/b.csv", budget("1;2026-01-01;10.50"))
        await scene.ingest()
    console = Console(file=io.StringIO(), width=160, record=True)
    show_files(console, await read(scene), [])
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("dropzone/")]
    assert line.startswith("dropzone/budget/a.csv: its header has no column 'product_id'")


async def test_an_empty_snapshot_is_not_a_problem_once_it_is_believed() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget("1;2026-01-01;10.50"))
    await scene.put("budget/b.csv", budget())
    await scene.ingest(Trigger.SCHEDULE)
    assert len((await read(scene)).refused) == 1
    await scene.ingest(compare_keys=True, believe_empty=True)
    assert not (await read(scene)).refused


async def test_a_file_that_nothing_takes_is_a_problem_after_a_while() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget())
    found = await read(scene)
    assert not list(problems_of_files(found, EPOCH + OVERDUE))
    (problem,) = problems_of_files(found, EPOCH + timedelta(hours=2))
    assert problem == "files that no run has taken for up to 120 min: 1; `starlift files` lists them"


async def test_a_name_that_would_steer_the_terminal_is_escaped() -> None:
    scene = DeliveredScene()
    await scene.put("product/\x1b[2J.jsonl", b"rubbish\n")
    await scene.ingest()
    (problem,) = problems_of_files(await read(scene), EPOCH)
    assert r"'dropzone/product/\x1b[2J.jsonl'" in problem
    with pytest.raises(NotLoadedError, match=r"/\\x1b\[2J"):
        await require_none_refused(system_of(scene), EPOCH)


async def test_a_wait_ends_with_what_was_refused_since_its_command() -> None:
    scene = DeliveredScene()
    await scene.put("product/a.jsonl", b"rubbish\n")
    await scene.put("budget/b.csv", b"rubbish\n")
    await scene.ingest()
    system, last = system_of(scene), (await read(scene)).refused[0]
    with pytest.raises(NotLoadedError, match=rf"^'{last.key}' was refused: .*; and 1 more, see `starlift files`$"):
        await require_none_refused(system, EPOCH)
    with pytest.raises(NotLoadedError, match=r"[^`]$"):
        await require_none_refused(system, last.recorded_at)
    await require_none_refused(system, last.recorded_at + timedelta(seconds=1))


async def test_a_database_has_no_files() -> None:
    assert await read_files(Scene().system, limit=20) == Files(waiting=(), recorded=(), refused=())


async def test_a_wait_is_over_when_every_file_of_its_command_is_loaded() -> None:
    scene = DeliveredScene()
    system = system_of(scene)
    request = await request_run(system)
    await scene.put("budget/a.csv", budget("1;2026-01-01;10.50"))
    await scene.put("budget/b.csv", budget("2;2026-01-01;10.50"))
    batches = await scene.handle(request.command)
    cast("FakeLedger", system.warehouse).load(*batches)
    manifest = await wait_until_loaded(system, request, limit=timedelta(seconds=5))
    assert manifest.batches == tuple(batches)
    assert not manifest.is_followed
