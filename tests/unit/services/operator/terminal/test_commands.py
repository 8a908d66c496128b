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
from shared.errors import DependencyDownError
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
        "check `starlift status` for stopped services and waiting messages\n"
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


@pytest.mark.parametrize(
    ("is_late", "code", "sentence"),
    [
        (True, 1, "not known: queues, warehouse: no answer within 0.1 s; `--timeout` sets how long to wait"),
        (False, 5, "not healthy: queues, warehouse: the region is down"),
    ],
)
def test_an_unknown_status_exits_with_1_and_an_unhealthy_one_with_5(
    is_late: bool,  # noqa: FBT001
    code: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[System]:
        if is_late:
            await asyncio.Event().wait()
        raise DependencyDownError("sqs", "the region is down")
        yield Scene().system

    with opened_by(opened):
        assert run_command(starlift(), ["status", "--timeout", "0.1"]) == code
        assert sentence in capsys.readouterr().out
        assert run_command(starlift(), ["status", "--timeout", "0.1", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["healthy"] is (None if is_late else False)


def test_a_table_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Scene(), "trace", "dim_stuff", "3") == 2
    assert capsys.readouterr().err.startswith("starlift: contract 'totesys' has no warehouse table 'dim_stuff'; it has dim_")
