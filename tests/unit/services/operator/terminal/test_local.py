from __future__ import annotations

import io
from collections import Counter
from datetime import timedelta

import pytest
from rich.console import Console

from contracts.proofs import Outcome
from services.operator.local.demo import Result
from services.operator.progress import Progress
from services.operator.proof.causes import empty_table_cause
from services.operator.proof.row_comparison import Cause, Difference, Mismatch, TableFindings, Wait
from services.operator.proof.verdict import judge
from services.operator.terminal.harness import ExitCode
from services.operator.terminal.local import EXIT_CODES, demo_panel
from services.operator.terminal.verify import COLOURS
from tests.unit.services.operator.scene import BEGAN


@pytest.mark.parametrize(
    ("table", "outcome", "code"),
    [
        (TableFindings("t", 2, 2), Outcome.EQUAL, ExitCode.DONE),
        (TableFindings("t", 2, 1, Counter({Cause(Wait.RUN): 1})), Outcome.PENDING, ExitCode.NOT_LOADED),
        (TableFindings("t", 2, 1, Counter({empty_table_cause("t"): 1})), Outcome.PENDING, ExitCode.NOT_LOADED),
        (TableFindings("t", 2, 1, differences=[Difference(Mismatch.MISSING, (1,))]), Outcome.DIFFERENT, ExitCode.DIFFERENT),
    ],
)
def test_the_verdict_s_colour_and_the_exit_code_agree(table: TableFindings, outcome: Outcome, code: ExitCode) -> None:
    """When the demo proves, nothing writes any more, so here, unlike in other proofs, a row in flight is not EQUAL."""
    result = Result(2, timedelta(seconds=1), 1, None, judge(Progress(None, (), None), BEGAN, (table,)))
    page = demo_panel(result)
    console = Console(file=io.StringIO(), width=200)
    console.print(page)
    assert isinstance(console.file, io.StringIO)
    assert (result.outcome, EXIT_CODES[result.outcome], page.border_style) == (outcome, code, COLOURS[outcome])
    assert outcome.value.upper() in console.file.getvalue()
