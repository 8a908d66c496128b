from __future__ import annotations

from html.parser import HTMLParser

from services.operator.progress import Progress
from services.operator.proof.comparison import NAMED_MAXIMUM, Difference, Kind, Row, TableVerdict
from services.operator.proof.record import ProofRecord, keep_record, last_record
from services.operator.proof.report import report
from services.operator.proof.verdict import Verdict
from tests.unit.operator_scene import BEGAN, LANDING, Scene

NOTHING = Progress(None, (), None)


class Page(HTMLParser):
    """Which tags a page has, and what it would load."""

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


def verdict(*tables: TableVerdict) -> Verdict:
    return Verdict(NOTHING, BEGAN, tables)


def test_a_report_says_the_verdict_and_a_line_for_each_table() -> None:
    page = Page(report(verdict(TableVerdict("dim_staff", 20, 20, 1, 2, digest="abc")), "totesys"))
    assert "The warehouse equals totesys" in page.words
    assert "EQUAL before any load: 20 rows compared" in page.words
    assert "dim_staff2020120abc" in page.words.replace("\n", "")


def test_a_report_needs_nothing_else_and_runs_nothing() -> None:
    page = Page(report(verdict(TableVerdict("dim_staff", 1, 1)), "totesys"))
    assert page.loads == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)


def test_a_value_of_a_row_stays_text_in_a_report() -> None:
    value = "<script>alert('x')</script>&amp;"
    found = TableVerdict("dim_staff", 1, 1, differences=[Difference(Kind.DIFFERENT, (1,), {"location": (value, None)})])
    page = Page(report(verdict(found), "<b>source</b>"))
    assert not {"script", "b"} & set(page.tags)
    assert f"1 is different (location: expected {value!r}, found None)" in page.words
    assert "The warehouse differs from <b>source</b>" in page.words


def test_a_report_counts_what_it_does_not_name() -> None:
    many = [Difference(Kind.MISSING, (key,)) for key in range(1_500)]
    page = Page(report(verdict(TableVerdict("dim_staff", 1_500, 0, differences=many, unnamed=3)), "totesys"))
    assert page.tags.count("li") == 1_000
    assert "503 more" in page.words


def test_more_differences_than_can_be_named_are_counted() -> None:
    found = TableVerdict("dim_staff")
    for key in range(NAMED_MAXIMUM + 5):
        found.differs(Difference(Kind.MISSING, (key,)))
        found.is_awaited(Row((key,), ()), is_missing=True)
    assert (len(found.differences), found.different) == (NAMED_MAXIMUM, NAMED_MAXIMUM + 5)
    assert (len(found.awaited), found.in_flight) == (NAMED_MAXIMUM, NAMED_MAXIMUM + 5)


async def test_the_last_proof_is_kept_and_every_one_by_its_time() -> None:
    scene = Scene()
    assert await last_record(scene.system) is None
    first = ProofRecord.of(verdict(TableVerdict("dim_staff", 20, 20, 1, 2)))
    second = ProofRecord.of(verdict(TableVerdict("dim_staff", 3, 2, differences=[Difference(Kind.MISSING, (1,))])))
    second = second.model_copy(update={"taken_at": BEGAN.replace(hour=11)})
    for record in (first, second):
        await keep_record(scene.system, record)
    assert await last_record(scene.system) == second
    assert (first.is_equal, first.rows, second.is_equal, second.different) == (True, 20, False, 1)
    assert len(scene.objects.buckets[LANDING]) == 3
