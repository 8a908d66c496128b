from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser

import pytest

from contracts.objects import SourceKeys
from contracts.proofs import Outcome
from services.operator.progress import Progress
from services.operator.proof.causes import empty_table_cause
from services.operator.proof.report import report
from services.operator.proof.row_comparison import NAMED_MAXIMUM, Both, Cause, Difference, Mismatch, Row, TableFindings, Wait
from services.operator.proof.verdict import Verdict, judge
from services.operator.proof.verify import keep_failure, keep_verdict, last_failure, last_record
from tests.unit.services.operator.scene import BEGAN, LANDING, SOURCE, Scene

NOTHING = Progress(None, (), None)


class Page(HTMLParser):
    """The tags of a page, and the addresses that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.words += data


def verdict(*tables: TableFindings) -> Verdict:
    return judge(NOTHING, BEGAN, tables)


def test_a_report_has_the_verdict_and_a_line_for_each_table() -> None:
    page = Page(report(verdict(TableFindings("dim_staff", 20, 20, Counter({Cause(Wait.RUN): 1}), 2, digest="abc")), "totesys"))
    assert "The warehouse equals totesys" in page.words
    assert "EQUAL before any load: 20 rows compared" in page.words
    assert "dim_staff20201020abc" in page.words.replace("\n", "")


def test_a_report_is_self_contained_and_runs_no_scripts() -> None:
    page = Page(report(verdict(TableFindings("dim_staff", 1, 1)), "totesys"))
    assert page.loads == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)


def test_a_row_s_value_is_escaped_in_a_report() -> None:
    value = "<script>alert('x')</script>&amp;"
    found = TableFindings(
        "dim_staff", 1, 1, differences=[Difference(Mismatch.DIFFERENT, (1,), {"location": Both(value, None)})]
    )
    page = Page(report(verdict(found), "<b>source</b>"))
    assert not {"script", "b"} & set(page.tags)
    assert f"1 is different (location: expected {value!r}, found None)" in page.words
    assert "The warehouse differs from <b>source</b>" in page.words


def test_a_report_counts_the_differences_it_does_not_list() -> None:
    many = [Difference(Mismatch.MISSING, (key,)) for key in range(1_500)]
    page = Page(report(verdict(TableFindings("dim_staff", 1_500, 0, differences=many, unnamed=3)), "totesys"))
    assert page.tags.count("li") == 1_000
    assert "503 more" in page.words


def test_differences_beyond_the_listed_ones_are_counted() -> None:
    found = TableFindings("dim_staff")
    for key in range(NAMED_MAXIMUM + 5):
        found.add_difference(Difference(Mismatch.MISSING, (key,)))
        found.add_mismatch(Difference(Mismatch.MISSING, (key,)), Row((key,), ()), Cause(Wait.RUN), {})
    assert (len(found.differences), found.different) == (NAMED_MAXIMUM, NAMED_MAXIMUM + 5)
    assert (len(found.waiting_rows), found.in_flight) == (NAMED_MAXIMUM, NAMED_MAXIMUM + 5)


async def test_every_proof_is_kept_by_its_time_and_the_last_one_separately() -> None:
    scene = Scene()
    assert await last_record(scene.system) is None
    equal = verdict(TableFindings("dim_staff", 20, 20, Counter({Cause(Wait.RUN): 1}), 2))
    first = await keep_verdict(scene.system, equal, is_regular=True)
    stuck = TableFindings("dim_staff", 3, 2, Counter({empty_table_cause("staff"): 4}))
    later = judge(NOTHING, BEGAN.replace(hour=11), (stuck,))
    second = await keep_verdict(scene.system, later, is_regular=False)
    assert await last_record(scene.system) == second
    assert (first.outcome, first.rows, first.reasons) == (Outcome.EQUAL, 20, {})
    assert (second.outcome, second.stuck, second.reasons) == (Outcome.PENDING, 4, {empty_table_cause("staff").reason: 4})
    assert second.is_regular  # a proof run by hand does not end a series
    assert len(scene.objects.buckets[LANDING]) == 4  # no record of a failed proof among them


@pytest.mark.parametrize(("is_equal", "outcome"), [(True, Outcome.EQUAL), (False, Outcome.DIFFERENT)])
async def test_a_record_of_an_earlier_build_is_readable(*, is_equal: bool, outcome: Outcome) -> None:
    scene = Scene()
    stored = {"taken_at": BEGAN.isoformat(), "is_equal": is_equal, "run": 7, "rows": 9}
    stored |= dict.fromkeys(("different", "in_flight", "quarantined"), 0)
    await scene.objects.put(LANDING, SourceKeys(SOURCE).last_proof, json.dumps(stored).encode())
    found = await last_record(scene.system)
    assert found is not None
    assert (found.outcome, found.is_equal, found.is_regular) == (outcome, is_equal, True)


async def test_a_failed_proof_is_kept_until_the_next_success_and_hides_no_verdict() -> None:
    scene = Scene()
    kept = await keep_verdict(scene.system, verdict(TableFindings("dim_staff", 20, 20)), is_regular=True)
    assert await last_failure(scene.system) is None
    await keep_failure(scene.system, "the source database cannot be reached")
    failure = await last_failure(scene.system)
    assert failure is not None
    assert failure.reason == "the source database cannot be reached"
    assert await last_record(scene.system) == kept
    await keep_verdict(scene.system, verdict(TableFindings("dim_staff", 20, 20)), is_regular=True)
    assert await last_failure(scene.system) is None
