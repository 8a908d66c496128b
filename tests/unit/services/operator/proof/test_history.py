from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

from rich.console import Console

from services.operator.proof.history import FactHistory, Flaw, FlawedVersion, HistoryVerdict
from services.operator.terminal.verify import show_history

LOST = FlawedVersion(Flaw.LOST, ("3",), ("2026-12-01", "10:00:00"), "batch 1 of run 7 brought it")
UNTIL = datetime(2026, 8, 1, 9, 30, tzinfo=UTC)


def fact_history(
    *problems: FlawedVersion, table: str = "fact_payment", unread: int = 0, unnamed: int = 0, rows: int = 12
) -> FactHistory:
    """11 versions of 2 batches, looked up in `rows` rows."""
    return FactHistory(
        table=table,
        rows=rows,
        versions=11,
        batches=2,
        unread_batches=unread,
        unread_until=UNTIL if unread else None,
        flawed=len(problems) + unnamed,
        problems=problems,
    )


def shown(*facts: FactHistory) -> str:
    text = io.StringIO()
    show_history(Console(file=text, width=80), HistoryVerdict(facts=facts))
    return text.getvalue()


def test_a_complete_history_is_reported_with_the_numbers_checked() -> None:
    assert shown(fact_history(), fact_history(table="fact_sales_order", rows=1)) == (
        "fact_payment history: 11 versions of 2 batches looked up in 12 rows\n"
        "fact_sales_order history: 11 versions of 2 batches looked up in 1 row\n"
        "HISTORY COMPLETE: 22 loaded versions, each there once, the newest current.\n"
    )


def test_expired_objects_are_reported() -> None:
    sentence = fact_history(unread=2).sentence
    assert sentence.endswith("; the objects of 2 batches are gone (the last was loaded 2026-08-01 09:30:00 UTC)")


def test_a_problem_is_described_in_words() -> None:
    assert str(LOST) == "3 of 2026-12-01 10:00:00 is lost (batch 1 of run 7 brought it)"
    assert str(FlawedVersion(Flaw.NOT_CURRENT, ("3", "[/x]"), ("1",))) == "3, [/x] of 1 is not current"


def test_the_first_problems_of_each_fact_are_named_and_all_are_counted() -> None:
    text = shown(fact_history(*(replace(LOST, key=(f"[{key}]",)) for key in range(7)), unnamed=2))
    assert "fact_payment [4] of 2026-12-01 10:00:00 is lost" in text
    assert "[5]" not in text
    assert "fact_payment: 4 more; --json names 10,000 at most" in text
    assert text.endswith("HISTORY FLAWED: 9 problems, 11 loaded versions looked up.\n")


def test_the_json_of_a_history_has_stable_names() -> None:
    assert HistoryVerdict(facts=(fact_history(LOST, unread=1),)).model_dump(mode="json") == {
        "complete": False,
        "begun_at": None,
        "facts": {
            "fact_payment": {
                "table": "fact_payment",
                "rows": 12,
                "versions": 11,
                "batches": 2,
                "unread_batches": 1,
                "unread_until": "2026-08-01T09:30:00Z",
                "flawed": 1,
                "problems": [
                    {
                        "flaw": "lost",
                        "key": ["3"],
                        "version": ["2026-12-01", "10:00:00"],
                        "detail": "batch 1 of run 7 brought it",
                    }
                ],
            }
        },
    }
