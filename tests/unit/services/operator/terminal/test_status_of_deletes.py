"""What `starlift status` shows of the search for deleted rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from services.operator.status.report import problems_of, report_of
from shared.ledger import KeyComparison
from shared.queue import Depth
from tests.unit.services.operator.scene import BEGAN
from tests.unit.services.operator.terminal.status_scene import as_json, loaded_progress, shown, status


def compared(minute: int = 0, *, has_ended: bool = True, is_whole: bool = True, asked_s: float | None = None) -> KeyComparison:
    """A comparison of keys with the snapshot of a given minute, which asked two questions `asked_s` seconds ago."""
    asked = None if asked_s is None else timedelta(seconds=asked_s)
    return KeyComparison(7, 7, BEGAN + timedelta(minutes=minute), has_ended, is_whole, 0 if asked is None else 2, asked)


@pytest.mark.parametrize(
    ("staff", "text"),
    [
        (compared(), "Deleted rows are marked as of 2026-11-01 09:30:00 UTC."),
        (
            compared(asked_s=12),
            "Deleted rows are being looked for, as of 2026-11-01 09:30:00 UTC: 2 questions are open, the oldest for 12 s.",
        ),
        (
            compared(has_ended=False),
            "Deleted rows are being looked for, as of 2026-11-01 09:30:00 UTC: the comparison of 1 table is not finished.",
        ),
        (
            compared(is_whole=False),
            "Deleted rows are being looked for, as of 2026-11-01 09:30:00 UTC: the comparison of 1 table is not finished.",
        ),
    ],
)
async def test_a_status_shows_up_to_when_deletes_are_marked_or_what_they_wait_for(staff: KeyComparison, text: str) -> None:
    comparisons = {"dim_staff": staff, "dim_design": compared(1)}
    found = replace(status(await loaded_progress()), comparisons=comparisons)
    assert text in " ".join(shown(found).split())
    assert report_of(found).healthy is True
    assert as_json(found)["keys_compared_as_of"] == "2026-11-01T09:30:00Z"
    assert as_json(found)["tables_in_comparison"] == ([] if staff.has_ended and staff.is_whole else ["dim_staff"])
    assert as_json(found)["oldest_question_seconds"] == (None if staff.unanswered_for is None else 12)


async def test_before_the_first_comparison_a_status_omits_deleted_rows() -> None:
    assert "Deleted rows" not in shown(replace(status(await loaded_progress()), comparisons={}))


@pytest.mark.parametrize(("minutes", "is_healthy"), [(5, True), (6, False)])
async def test_an_unanswered_question_is_not_healthy_and_names_the_remedy(minutes: int, *, is_healthy: bool) -> None:
    comparisons = {"dim_staff": compared(asked_s=minutes * 60), "dim_design": compared()}
    found = replace(status(await loaded_progress()), comparisons=comparisons)
    assert report_of(found).healthy is is_healthy
    asked = "ingestion has not answered 2 questions about deleted rows for 6 min"
    advice = "`starlift ingest --compare-keys --wait` asks again"
    assert problems_of(found) == ([] if is_healthy else [f"{asked}: {advice}"])


async def test_dead_letters_are_named_as_a_possible_cause_of_an_unanswered_question() -> None:
    answers = status(await loaded_progress(), loading_dlq=Depth(visible=1, in_flight=0, delayed=0))
    (_, problem) = problems_of(replace(answers, comparisons={"dim_staff": compared(asked_s=360)}))
    assert problem.endswith(
        ": `starlift dlq list` shows whether a dead letter is why; `starlift ingest --compare-keys --wait` asks again"
    )
