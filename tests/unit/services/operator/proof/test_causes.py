"""What a deleted row waits for, and when that counts as late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.operator.progress import DeadMessage
from services.operator.proof.causes import comparison_cause
from services.operator.proof.row_comparison import Cause, Wait
from shared.ledger import KeyComparison
from tests.unit.services.operator.scene import BEGAN

COMPARE = "`starlift ingest --compare-keys --wait`"
PARTS = "load the missing batches that `starlift status` shows, or go on now: `starlift ingest --compare-keys`"
CHECK = "check that ingestion is running (`starlift status`)"


@pytest.mark.parametrize(
    ("age_min", "is_whole", "unanswered_min", "reason"),
    [
        (15, True, None, ""),
        (15, False, None, ""),
        (16, False, None, f"too many keys are in question, so the comparison that began 16 min ago is made in parts: {PARTS}"),
        (16, True, None, f"keys were last compared 16 min ago, and rows have been deleted since: {COMPARE} does it now"),
        (1, True, 5, ""),
        (1, True, 6, f"ingestion has not answered for 6 min: {CHECK}; {COMPARE} asks again"),
        (16, False, 6, f"ingestion has not answered for 6 min: {CHECK}; {COMPARE} asks again"),
    ],
)
def test_a_deleted_row_is_stuck_when_a_comparison_or_an_answer_is_late(
    age_min: int, unanswered_min: int | None, reason: str, *, is_whole: bool
) -> None:
    unanswered_for = None if unanswered_min is None else timedelta(minutes=unanswered_min)
    open_questions = 0 if unanswered_min is None else 1
    last = KeyComparison(
        7, 7, BEGAN, has_ended=True, is_whole=is_whole, open_questions=open_questions, unanswered_for=unanswered_for
    )
    assert comparison_cause(last, BEGAN + timedelta(minutes=age_min)) == Cause(Wait.COMPARISON, reason)


def test_a_deleted_row_is_stuck_if_keys_were_never_compared() -> None:
    assert comparison_cause(None, BEGAN) == Cause(Wait.COMPARISON, f"keys were never compared: {COMPARE} does it")


def test_a_dead_letter_that_keeps_a_question_open_is_named() -> None:
    last = KeyComparison(7, 7, BEGAN, has_ended=True, is_whole=True, open_questions=1, unanswered_for=timedelta(minutes=6))
    dead = DeadMessage("ingestion", "abc", None, is_question=True)
    reason = "a question about deleted rows is dead letter abc of ingestion: `starlift dlq show abc` prints why"
    found = comparison_cause(last, BEGAN, dead)
    assert found.is_stuck
    assert found.reason.startswith(reason)
