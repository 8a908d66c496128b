"""Commands on a system of fakes: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.messages import IngestSource, Mode, decode
from services.operator.system import System
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import run_command
from services.operator.terminal.session import opened_by
from tests.unit.services.operator.scene import Scene


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No local stack is up here."""
    monkeypatch.setenv("STARLIFT_HOME", str(tmp_path))


def run(scene: Scene, *words: str) -> int:
    @asynccontextmanager
    async def opened() -> AsyncIterator[System]:
        yield scene.system

    with opened_by(opened):
        return run_command(starlift(), words)


def test_ingest_prints_the_id_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene()
    assert run(scene, "ingest", "--full", "--believe-empty") == 0
    (body,) = scene.queues["ingestion"].bodies
    command = decode(body)
    assert isinstance(command, IngestSource)
    assert (command.data.mode, command.data.compare_keys, command.data.believe_empty) == (Mode.FULL, True, True)
    assert capsys.readouterr().out == f"asked for a run, command {command.id}\n"


def test_a_run_that_is_not_loaded_in_time_exits_with_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Scene(), "ingest", "--wait", "--timeout", "1") == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(
        "starlift: not loaded after 1 s: the run has not been read yet; "
        "look at `starlift status`: are the services up, are messages waiting?\n"
    )


def test_resend_prints_how_many_batches_it_sent(capsys: pytest.CaptureFixture[str]) -> None:
    scene = Scene()
    asyncio.run(scene.end_run(7, batches=2))
    assert run(scene, "resend") == 0
    assert capsys.readouterr().out == "sent again: 2 batches\n"
    assert len(scene.queues["remodelling"].bodies) == 2


def test_runs_prints_one_document_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Scene(), "runs", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"source": "totesys", "runs": []}


def test_a_table_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Scene(), "trace", "dim_stuff", "3") == 2
    assert capsys.readouterr().err.startswith("starlift: contract 'totesys' has no warehouse table 'dim_stuff'; it has dim_")
