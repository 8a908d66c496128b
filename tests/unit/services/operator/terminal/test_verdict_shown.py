from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from services.operator.proof.causes import empty_table_cause
from services.operator.proof.row_comparison import Both, Cause, Difference, Mismatch, TableFindings, Wait
from services.operator.proof.verdict import Verdict, judge
from services.operator.terminal.verify import show_verdict, verdict_sentence
from services.operator.wording import counted
from tests.unit.services.operator.scene import BEGAN, snapshot
from tests.unit.services.operator.terminal.status_scene import NOTHING, loaded_progress, words


def shown(verdict: Verdict) -> str:
    """The output on a narrow terminal, or through a pipe."""
    console = Console(file=io.StringIO(), width=80, record=True)
    show_verdict(console, verdict)
    return console.export_text()


def test_rows_that_a_page_names_are_not_printed() -> None:
    difference = Difference(Mismatch.DIFFERENT, (7,), {"city": Both("Leeds", None)})
    console = Console(file=io.StringIO(), width=200, record=True)
    verdict = judge(NOTHING, BEGAN, [TableFindings("dim_staff", 1, 1, differences=[difference])])
    show_verdict(console, verdict, kept="s3://landing/proofs/shop/1.html")
    text = console.export_text()
    assert "dim_staff: 1, named in s3://landing/proofs/shop/1.html" in text
    assert "Leeds" not in text


def test_the_verdict_about_one_of_several_sources_names_it_on_its_line() -> None:
    """As one line of a log, by which an alarm tells the sources apart."""
    console = Console(file=io.StringIO(), width=80, record=True)
    show_verdict(console, judge(NOTHING, BEGAN, []), source="rates")
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("EQUAL")]
    assert line.endswith("(source rates)")


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference(Mismatch.MISSING, (7,)), "7 is missing"),
        (Difference(Mismatch.EXTRA, (7, "b")), "7, b is extra"),
        (Difference(Mismatch.EXTRA, ("é\x1b[31m\x9b",)), r"é\x1b[31m\x9b is extra"),  # would steer a terminal
        (
            Difference(Mismatch.DIFFERENT, (7,), {"city": Both("Leeds", None), "phone": Both("", "1")}),
            "7 is different (city: expected 'Leeds', found None; phone: expected '', found '1')",
        ),
    ],
)
def test_a_difference_is_described_in_words(difference: Difference, text: str) -> None:
    assert str(difference) == text


def test_an_equal_verdict_names_run_rows_and_time() -> None:
    equal = judge(
        NOTHING,
        BEGAN,
        (TableFindings("dim_date", expected=1000, actual=1000, waiting=Counter({Cause(Wait.RUN): 2}), quarantined=1),),
    )
    assert verdict_sentence(equal) == (
        "[bold green]EQUAL[/] before any load: 1,000 rows compared at 2026-11-01 09:30:00 UTC, "
        "2 rows in flight, 1 in quarantine."
    )


async def test_a_different_verdict_gives_the_number_of_rows() -> None:
    found = TableFindings("dim_staff", expected=3, actual=2, differences=[Difference(Mismatch.MISSING, (1,))])
    verdict = judge(await loaded_progress(), BEGAN, (found, TableFindings("dim_date", 2, 2)))
    assert verdict_sentence(verdict) == (
        "[bold red]DIFFERENT[/] as of run 7: 1 of 5 rows differ at 2026-11-01 09:30:00 UTC, 0 rows in flight, 0 in quarantine."
    )


def test_a_verdict_names_the_first_differences_of_each_table() -> None:
    many = [Difference(Mismatch.MISSING, (key,)) for key in range(1, 8)]
    names = TableFindings("dim_staff", 9, 2, Counter({Cause(Wait.RUN): 1}), 0, many), TableFindings("fact_purchase_order", 5, 5)
    text = shown(judge(NOTHING, BEGAN, names))
    assert all(header in text for header in ("expected", "found", "in flight", "quarantine", "different"))
    assert words(text, "fact_purchase") == ["fact_purchase_order", "5", "5", "0", "0", "0"]
    assert "dim_staff 1 is missing" in text
    assert "dim_staff 5 is missing" in text
    assert "dim_staff 6 is missing" not in text
    assert "dim_staff: 2 more; --json names 10,000 at most" in text
    assert "DIFFERENT before any load: 7 of 14 rows differ" in text


@pytest.mark.parametrize("value", ["[/]", "[bold]a[/bold]", "[/nothing]", "a\\", "[link=x]", ":smile:"])
def test_a_value_with_brackets_is_shown_unchanged(value: str) -> None:
    found = TableFindings("dim_staff", 1, 1, differences=[Difference(Mismatch.DIFFERENT, (1,), {"location": Both(value, "b")})])
    text = shown(judge(NOTHING, BEGAN, (found,)))
    assert f"dim_staff 1 is different (location: expected {value!r}, found 'b')" in text


def test_a_table_name_with_brackets_is_shown_unchanged() -> None:
    many = [Difference(Mismatch.MISSING, (key,)) for key in range(1, 8)]
    found = TableFindings("dim [/x]", 9, 2, Counter({empty_table_cause("[bold]odd"): 1}), 0, many)
    text = shown(judge(NOTHING, BEGAN, (found,)))
    assert text.count("dim [/x]") == 1 + 5 + 1  # in the table, five differences, and how many more there are
    assert "source table '[bold]odd' is empty" in text


async def test_the_json_of_a_verdict_has_stable_names() -> None:
    different = Difference(Mismatch.DIFFERENT, (1,), {"city": Both("Leeds", None)})
    waiting = Counter({Cause(Wait.RUN): 1, empty_table_cause("address"): 4})
    found = TableFindings("dim_location", expected=3, actual=2, waiting=waiting, quarantined=1, differences=[different])
    assert judge(await loaded_progress(), snapshot(5).taken_at, (found,)).model_dump(mode="json") == {
        "verdict": "different",
        "equal": False,
        "as_of_run": 7,
        "taken_at": "2026-11-01T09:30:05Z",
        "delivered_until": None,
        "sample": 1.0,
        "settled_at": None,
        "overdue_batches": 0,
        "in_flight": 1,
        "stuck": 4,
        "stuck_reasons": [{"reason": empty_table_cause("address").reason, "rows": 4}],
        "quarantined": 1,
        "tables": {
            "dim_location": {
                "table": "dim_location",
                "expected": 3,
                "actual": 2,
                "in_flight": 1,
                "stuck": 4,
                "quarantined": 1,
                "different": 1,
                "digest": "",
                "differences": [
                    {"kind": "different", "key": [1], "columns": {"city": {"expected": "Leeds", "actual": None}}},
                ],
            }
        },
    }


def test_numbers_are_followed_by_the_right_form_of_the_noun() -> None:
    assert [counted(number, "row", "rows") for number in (0, 1, 1000)] == ["0 rows", "1 row", "1,000 rows"]
