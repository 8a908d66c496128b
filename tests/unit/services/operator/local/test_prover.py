from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.local import processes
from infra.local.processes import Child
from services.operator.local.prover import Prover
from tests.fixtures.limits import HANG_S

start = processes.start


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def proofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Clock, str], tuple[Prover, list[Child]]]:
    """A prover whose proofs are a line of Python."""

    def made(clock: Clock, proof: str) -> tuple[Prover, list[Child]]:
        def pretended(_: list[str], **options: Any) -> Child:
            return start([sys.executable, "-c", proof], **options)

        monkeypatch.setattr(processes, "start", pretended)
        adopted: list[Child] = []
        return Prover(timedelta(seconds=60), tmp_path / "proof.log", dict, adopted.append, clock), adopted

    return made


def reported(prover: Prover) -> str | None:
    """Wait for the proof under way and return its result."""
    deadline = time.monotonic() + HANG_S
    while prover._child is not None and prover._child.exit_code() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return prover.look()


def test_a_proof_runs_every_interval_and_its_last_line_is_reported(proofs: Any) -> None:
    clock = Clock()
    prover, adopted = proofs(clock, "print('table'); print('EQUAL as of run 7')")
    for clock.now in (59.9, 60.0, 60.1, 119.9):
        prover.look()
    assert len(adopted) == 1
    sentence = reported(prover)
    assert sentence is not None
    assert sentence.endswith("  proof        EQUAL as of run 7")
    clock.now = 120.0
    prover.look()
    assert len(adopted) == 2
    assert reported(prover) is not None


def test_a_warehouse_that_differs_is_reported(proofs: Any) -> None:
    clock = Clock()
    prover, _ = proofs(clock, "print('DIFFERENT as of run 7'); raise SystemExit(3)")
    clock.now = 60
    prover.look()
    assert "DIFFERENT" in str(reported(prover))


def test_rows_that_are_stuck_are_reported(proofs: Any) -> None:
    clock = Clock()
    prover, _ = proofs(clock, "print('PENDING as of run 7'); raise SystemExit(4)")
    clock.now = 60
    prover.look()
    assert str(reported(prover)).endswith("  proof        PENDING as of run 7")


def test_a_missing_proof_before_the_first_load_is_not_reported(proofs: Any) -> None:
    clock = Clock()
    prover, _ = proofs(clock, "print('no table yet'); raise SystemExit(4)")
    clock.now = 60
    prover.look()
    assert reported(prover) is None


def test_a_proof_that_keeps_failing_is_reported_once(proofs: Any) -> None:
    clock = Clock()
    prover, _ = proofs(clock, "print('starlift: no such table'); raise SystemExit(1)")
    clock.now = 60
    prover.look()
    assert str(reported(prover)).endswith("  proof        failed: starlift: no such table")
    clock.now = 120
    prover.look()
    assert reported(prover) is None


def test_two_proofs_never_run_at_the_same_time(proofs: Any) -> None:
    clock = Clock()
    prover, adopted = proofs(clock, "import time; time.sleep(60)")
    for clock.now in (60, 120, 180):
        prover.look()
    (child,) = adopted
    child.stop(within=timedelta(seconds=10))


def test_the_verdict_of_each_of_several_sources_is_reported_and_why_one_has_none(proofs: Any) -> None:
    clock = Clock()
    lines = (
        "source shop",
        "EQUAL as of run 7",
        "source plans",
        "starlift: nothing listens there",
        "source rates",
        "PENDING as of run 3",
    )
    prover, _ = proofs(clock, f"print({chr(10).join(lines)!r}); raise SystemExit(1)")
    clock.now = 60
    prover.look()
    sentence = reported(prover)
    assert sentence is not None
    assert [line.partition("proof        ")[2] for line in sentence.splitlines()] == [
        "shop: EQUAL as of run 7",
        "plans: failed: nothing listens there",
        "rates: PENDING as of run 3",
    ]
