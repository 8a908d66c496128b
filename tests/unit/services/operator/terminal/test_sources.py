from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.operator.system import OperatorSettings, System
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import run_command
from services.operator.terminal.session import opened_by
from services.operator.terminal.sources import of_chosen_source
from shared.errors import DependencyDownError
from tests.fixtures.several_sources import SEVERAL
from tests.unit.services.operator.scene import SETTINGS, Scene

FIELDS = [f"{service}_{what}_url" for service in ("ingestion", "remodelling", "loading") for what in ("queue", "dead_letter")]


@pytest.fixture(autouse=True)
def scenes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Scene]]:
    """A system of fakes for each source; that of the regions is down."""
    for source in ("PLANS", "REGIONS"):
        for field in FIELDS:
            monkeypatch.setenv(f"STARLIFT_{field.upper()}_{source}", f"https://sqs/1/{field}-{source.lower()}")
    found = {source: Scene() for source in SEVERAL.sources}
    settings = OperatorSettings(**(SETTINGS.model_dump() | {"source_name": "shop", "contract": SEVERAL}))

    @asynccontextmanager
    async def opened(own: OperatorSettings) -> AsyncIterator[System]:
        if own.source_name == "regions":
            raise DependencyDownError("source", "the source database of the regions is down")
        yield replace(found[own.source_name].system, settings=own, contract=SEVERAL.part(own.source_name))

    with opened_by(lambda: opened(of_chosen_source(settings))):
        yield found


def run(*words: str) -> int:
    return run_command(starlift(), words)


def test_a_command_works_on_the_source_that_is_chosen(scenes: dict[str, Scene], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ingest", "--source", "plans") == 0
    assert [len(scene.queues["ingestion"].bodies) for scene in scenes.values()] == [0, 1, 0]
    (body,) = scenes["plans"].queues["ingestion"].bodies
    assert json.loads(body)["data"]["source_name"] == "plans"
    assert run("ingest", "--source", "utter") == 2
    assert capsys.readouterr().err == "starlift: there is no source 'utter'; the sources are shop, plans, regions\n"


def test_without_a_choice_a_command_goes_over_all_sources_whatever_one_of_them_fails_for(
    scenes: dict[str, Scene], capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(os.environ)
    assert run("runs", "--json") == 1
    captured = capsys.readouterr()
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(captured.out)
    second, _ = decoder.raw_decode(captured.out[end:].lstrip())
    assert [first["source"], second["source"]] == ["shop", "plans"]
    assert captured.err.splitlines() == [
        "source shop",
        "source plans",
        "source regions",
        "starlift: the source database of the regions is down",
    ]
    assert dict(os.environ) == before


def test_a_command_about_a_table_works_on_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("quarantine", "list", "fact_budget") in {0, 4}
    assert "source" not in capsys.readouterr().out
    assert run("quarantine", "list", "dim_region") == 1
    assert capsys.readouterr().err == "starlift: the source database of the regions is down\n"
    assert run("trace", "dim_stuff", "1") == 2
    assert "has no warehouse table 'dim_stuff'" in capsys.readouterr().err


def test_a_command_that_changes_something_of_one_source_needs_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dlq", "replay", "--execute") == 2
    assert capsys.readouterr().err == (
        "starlift: contract 'shop' has several sources (shop, plans, regions); pass --source with the name of one\n"
    )


def test_the_audit_is_that_of_all_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dlq", "audit") == 4
    assert capsys.readouterr().err == "starlift: there are no operations\n"
