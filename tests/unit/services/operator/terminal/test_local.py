from __future__ import annotations

import io
from collections import Counter
from datetime import timedelta
from decimal import Decimal

import pytest
from rich.console import Console

from contracts.proofs import Outcome
from services.operator.local.demo import Result, Sales
from services.operator.progress import Progress
from services.operator.proof.causes import empty_table_cause
from services.operator.proof.row_comparison import Cause, Difference, Mismatch, TableFindings, Wait
from services.operator.proof.verdict import judge
from services.operator.terminal.harness import ExitCode
from services.operator.terminal.local import EXIT_CODES, demo_panel
from services.operator.terminal.verify import COLOURS
from tests.unit.services.operator.scene import BEGAN

SALES = Sales(1_002, 2, Decimal("1234.50"))


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
    equal, judged = (judge(Progress(None, (), None), BEGAN, (found,)) for found in (TableFindings("u", 1, 1), table))
    result = Result(2, timedelta(seconds=1), 1, None, SALES, {"totesys": equal, "rates": judged})
    page = demo_panel(result)
    console = Console(file=io.StringIO(), width=200)
    console.print(page)
    assert isinstance(console.file, io.StringIO)
    assert (result.outcome, EXIT_CODES[result.outcome], page.border_style) == (outcome, code, COLOURS[outcome])
    text = console.file.getvalue()
    assert outcome.value.upper() in text
    assert "£1,234.50 for 1,000 sales, at each day's rate, and 2 more without a rate" in text
