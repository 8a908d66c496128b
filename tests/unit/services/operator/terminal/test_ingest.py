"""The output of `starlift ingest --wait` while it waits."""

from __future__ import annotations

import io
from datetime import timedelta

from rich.console import Console

from services.operator.ingest import Waiting
from services.operator.status.report import Service
from services.operator.terminal.ingest import loaded_sentence, waiting_shown
from tests.unit.services.operator.scene import BEGAN


def test_a_wait_without_a_terminal_reports_changes_and_blocked_services() -> None:
    console = Console(file=io.StringIO(), width=200)
    refused = "the source database refuses the user or the password; correct its URL"
    services = {"ingestion": Service(alive_since=BEGAN, waits_for=refused), "loading": Service(alive_since=BEGAN)}
    with waiting_shown(console, lambda: services, line_every=timedelta()) as show:
        for waiting in (Waiting(), Waiting(), Waiting(missing=())):
            show(waiting)
        services.clear()
        show(Waiting())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        f"waiting: the run has not been read yet; ingestion waits: {refused}",
        "waiting: the run has not been read yet",
    ]


def test_a_run_without_a_batch_found_nothing_new() -> None:
    assert loaded_sentence(7, 0) == "run 7 found nothing new; every run before it is loaded"
    assert loaded_sentence(7, 1) == "run 7 is loaded: 1 batch; every run before it is loaded as well"
