from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf, nan
from pathlib import Path

import pytest
import typer

from services.operator.errors import OperatorError
from services.operator.progress import Progress
from services.operator.proof.causes import empty_table_cause
from services.operator.proof.history import Flaw, FlawedVersion, HistoryVerdict
from services.operator.proof.row_comparison import Difference, Mismatch, TableFindings
from services.operator.proof.verdict import EVERYTHING, Scope, judge
from services.operator.proof.verify import last_failure, verify_and_keep
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import ExitCode, run_command
from services.operator.terminal.verify import deliver, repaired_sentence, scope_of
from shared.errors import DependencyDownError
from tests.unit.services.operator.proof.test_history import fact_history
from tests.unit.services.operator.scene import BEGAN, SETTINGS, FakeLedger, Scene

NOTHING = Progress(None, (), None)
EQUAL = judge(NOTHING, BEGAN, [TableFindings("dim_staff", 1, 1)])
FLAWED = HistoryVerdict(facts=(fact_history(FlawedVersion(Flaw.LOST, ("3",), ("2026-01-01",))),))


@pytest.mark.parametrize(("sample", "settle"), [(nan, 0), (1, inf), (1, nan)])
def test_a_value_that_is_not_a_number_is_a_usage_error(sample: float, settle: float) -> None:
    with pytest.raises(typer.BadParameter, match="must be finite numbers"):
        scope_of(None, sample, settle, record=False)


def test_a_report_path_in_a_missing_directory_is_refused_before_the_comparison(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"'.*nowhere' is not a directory; create it, or name another"):
        scope_of(None, 1, 0, record=False, report=tmp_path / "nowhere" / "proof.html")
    assert scope_of(None, 1, 0, record=False, report=Path("proof.html")).tables == ()


def test_a_failure_to_write_the_report_is_printed_after_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OperatorError, match=r"the report can't be written to '.*': Is a directory"):
        deliver(EQUAL, None, SETTINGS, as_json=True, report=tmp_path)
    assert json.loads(capsys.readouterr().out)["equal"] is True


def test_a_report_and_the_exit_code_agree_on_the_history(tmp_path: Path) -> None:
    page = tmp_path / "proof.html"
    assert deliver(EQUAL, FLAWED, SETTINGS, as_json=True, report=page) is ExitCode.DIFFERENT
    text = page.read_text()
    assert '<h1 class="different">The warehouse equals totesys, but its history is flawed</h1>' in text
    assert "<li><code>3 of 2026-01-01 is lost</code></li>" in text
    assert deliver(EQUAL, HistoryVerdict(facts=()), SETTINGS, as_json=True, report=page) is ExitCode.DONE
    assert '<h1 class="equal">The warehouse equals totesys, and its history is complete</h1>' in page.read_text()


def test_stuck_rows_exit_with_4_and_a_flawed_history_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    pending = judge(NOTHING, BEGAN, [TableFindings("dim_staff", 1, 1, Counter({empty_table_cause("staff"): 3}))])
    for past, code in ((None, ExitCode.NOT_LOADED), (FLAWED, ExitCode.DIFFERENT)):
        assert deliver(pending, past, SETTINGS, as_json=False, report=None) is code
    assert "3 rows: source table 'staff' is empty, which may be a mistake: if its rows were deleted, `starlift ingest" in (
        capsys.readouterr().out
    )


def test_begin_anew_needs_the_history_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(starlift(), ["verify", "--begin-anew"]) == ExitCode.USAGE
    assert "--begin-anew needs --history; pass both" in capsys.readouterr().err


def test_a_repair_reports_its_runs_and_the_remaining_differences() -> None:
    assert repaired_sentence(EQUAL, []) == "no differing row can be read again"
    assert repaired_sentence(EQUAL, [7]) == "repaired by run 7; comparing again"
    many = judge(NOTHING, BEGAN, [TableFindings("t", differences=[Difference(Mismatch.MISSING, (1,))], unnamed=5)])
    assert repaired_sentence(many, [7, 8]) == (
        "repaired by runs 7, 8; 5 rows left, because a repair reads 10,000 rows of a table at most: repeat --repair, or run "
        "`starlift ingest --full`; comparing again"
    )


class DownLedger(FakeLedger):
    """A warehouse that can't be reached."""

    @asynccontextmanager
    async def transaction(self, **_options: object) -> AsyncIterator[FakeLedger]:
        raise DependencyDownError("warehouse", "nothing listens at the warehouse database's host and port")
        yield self


async def test_a_failed_proof_is_recorded_for_the_status() -> None:
    """This includes a proof that fails on a bug, whose text may contain anything."""
    for ledger, error, reason in (
        (DownLedger(), DependencyDownError, "nothing listens at the warehouse database's host and port"),
        (FakeLedger(), AttributeError, "unexpected AttributeError"),  # not a database that can be proved
    ):
        scene = Scene(ledger=ledger)
        with pytest.raises(error):
            await verify_and_keep(scene.system, EVERYTHING, is_regular=False)
        failure = await last_failure(scene.system)
        assert failure is not None
        assert str(failure.reason).startswith(reason)
    scene = Scene(ledger=DownLedger())
    with pytest.raises(DependencyDownError):
        await verify_and_keep(scene.system, Scope(tables=("dim_staff",)), is_regular=False)
    assert await last_failure(scene.system) is None  # a proof of one table does not count
