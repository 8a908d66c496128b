from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from services.operator.progress import Progress
from services.operator.proof.comparison import Difference, Kind, TableVerdict
from services.operator.proof.record import ProofRecord
from services.operator.proof.render import describe, show_verdict, verdict_sentence
from services.operator.proof.verdict import Verdict, verdict_as_json
from services.operator.render import counted, show_status
from services.operator.status import Status
from shared.queue import Depth
from tests.unit.operator_scene import BEGAN, Scene, checkpoint, ingested, snapshot

EMPTY = Depth(visible=0, in_flight=0, delayed=0)
NOTHING = Progress(consistent_through=None, missing=(), checkpoint=None)


async def loaded_progress() -> Progress:
    manifest = await Scene().end_run(7, second=1)
    return Progress(manifest, (), checkpoint(7, second=1))


def shown(status_or_verdict: Status | Verdict) -> str:
    """What a person reads on a narrow terminal, or through a pipe."""
    console = Console(file=io.StringIO(), width=80, record=True)
    if isinstance(status_or_verdict, Status):
        show_status(console, status_or_verdict)
    else:
        show_verdict(console, status_or_verdict)
    return console.export_text()


def words(text: str, first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    (row,) = [line for line in text.splitlines() if line.strip("│ ").startswith(first)]
    return [cell.strip() for cell in row.strip("│ ").split("│")]


def status(progress: Progress = NOTHING, **depths: Depth) -> Status:
    queues = {"ingestion": EMPTY, "remodelling": EMPTY, "loading": EMPTY}
    return Status(
        at=BEGAN + timedelta(seconds=3.25),
        queues=queues | {name: depth for name, depth in depths.items() if name in queues},
        dead_letters=queues | {name.removesuffix("_dlq"): depth for name, depth in depths.items() if name.endswith("_dlq")},
        progress=progress,
        proof=None,
        rows={"dim_date": 1234, "fact_payment": None},
    )


def test_a_status_shows_queues_and_rows() -> None:
    text = shown(status(loading=Depth(visible=3, in_flight=2, delayed=1), loading_dlq=Depth(1, 1, 0)))
    assert words(text, "loading") == ["loading", "3", "2", "1", "2"]
    assert words(text, "ingestion") == ["ingestion", "0", "0", "0", "0"]
    assert words(text, "dim_date") == ["dim_date", "1,234"]
    assert words(text, "fact_payment") == ["fact_payment", "not created yet"]
    assert "No run has completed yet." in text
    assert "`starlift dlq list` tells what the dead letters died of." in text
    assert "dead letters died" not in shown(status())
    assert "quarantine" not in text


async def test_a_status_says_how_fresh_the_warehouse_is() -> None:
    text = shown(replace(status(await loaded_progress()), quarantined=1))
    assert "Last run 7 at 2026-11-01 09:30:00 UTC; the warehouse shows the source as of 2026-11-01 09:30:01 UTC, 2.2 s" in text
    assert "1 row is in quarantine: `starlift quarantine list` says why" in text


@pytest.mark.parametrize(
    ("seconds", "is_equal", "text"),
    [
        (60, True, "Proved equal 60 s ago: 9 rows, 1 in flight, 2 in quarantine."),
        (604, True, "Proved equal 10 min ago: 9 rows, 1 in flight, 2 in quarantine."),
        (604, False, "Found different 10 min ago: 3 of 9 rows; `starlift verify` names them."),
    ],
)
def test_a_status_says_when_the_warehouse_was_proved(seconds: float, text: str, *, is_equal: bool) -> None:
    at = BEGAN + timedelta(seconds=3.25 - seconds)
    record = ProofRecord(taken_at=at, is_equal=is_equal, run=7, rows=9, different=3, in_flight=1, quarantined=2)
    found = replace(status(), proof=record)
    assert text in shown(found)
    assert found.is_healthy is is_equal
    assert found.as_json()["proved"]["rows"] == 9


@pytest.mark.parametrize(("minutes", "is_old"), [(59, False), (61, True)])
def test_a_status_is_not_healthy_when_proofs_are_made_no_longer(minutes: float, *, is_old: bool) -> None:
    at = BEGAN + timedelta(seconds=3.25 - minutes * 60)
    record = ProofRecord(taken_at=at, is_equal=True, run=7, rows=9, different=0, in_flight=0, quarantined=0)
    found = replace(status(), proof=record)
    assert found.is_healthy is not is_old
    assert (f"Proved equal {minutes} min ago, and not since: 9 rows" in shown(found)) is is_old


def test_a_status_of_what_was_never_proved_says_how() -> None:
    assert "Never proved yet: `starlift verify --record`" in shown(status())


@pytest.mark.parametrize(("seconds", "is_told"), [(0, False), (59, False), (90, True)])
def test_a_status_tells_of_a_transaction_that_does_not_end(seconds: float, is_told: bool) -> None:  # noqa: FBT001
    known = checkpoint(7)
    held = known.model_copy(update={"held_back_since": known.snapshot.taken_at - timedelta(seconds=seconds)})
    found = status(Progress(None, (), held))
    assert (f"has been open for {seconds} s: what has changed since is read by every run" in shown(found)) is is_told
    assert found.as_json()["horizon_held_back_seconds"] == seconds


def test_a_status_names_the_columns_that_the_contract_does_not_know() -> None:
    grown = checkpoint(7).model_copy(update={"new_columns": {"design": ("colour text", "[b] integer")}})
    found = status(Progress(None, (), grown))
    assert "the contract does not know 2 columns of source table 'design': colour text, [b] integer" in shown(found)
    assert found.as_json()["new_columns"] == {"design": ["colour text", "[b] integer"]}


def test_a_status_tells_what_is_on_its_way() -> None:
    waiting = Progress(None, (ingested(7, 0, is_last=False), ingested(7, 1)), checkpoint(7))
    text = shown(status(waiting))
    assert "Last run 7 at 2026-11-01 09:30:00 UTC; nothing is loaded yet." in text
    assert "2 batches are not loaded yet" in text


async def test_a_status_for_scripts_has_stable_names() -> None:
    found = replace(status(await loaded_progress(), loading=Depth(3, 2, 1)), quarantined=2)
    assert found.as_json() == {
        "at": "2026-11-01T09:30:03.250000+00:00",
        "healthy": True,
        "queues": {
            "ingestion": {"visible": 0, "in_flight": 0, "delayed": 0},
            "remodelling": {"visible": 0, "in_flight": 0, "delayed": 0},
            "loading": {"visible": 3, "in_flight": 2, "delayed": 1},
        },
        "dead_letters": {"ingestion": 0, "remodelling": 0, "loading": 0},
        "last_run": 7,
        "last_run_at": "2026-11-01T09:30:00+00:00",
        "consistent_through": 7,
        "missing_batches": [],
        "overdue_batches": 0,
        "superseded_batches": [],
        "fresh_as_of": "2026-11-01T09:30:01+00:00",
        "behind_seconds": 2.25,
        "quarantined": 2,
        "proved": None,
        "horizon_held_back_seconds": None,
        "new_columns": {},
        "rows": {"dim_date": 1234, "fact_payment": None},
    }


def test_before_the_first_run_a_status_for_scripts_says_null() -> None:
    found = status().as_json()
    unknown = ("last_run", "last_run_at", "consistent_through", "fresh_as_of", "behind_seconds")
    assert {name: found[name] for name in unknown} == dict.fromkeys(unknown)


@pytest.mark.parametrize("depth", [Depth(1, 0, 0), Depth(0, 1, 0)])
def test_a_dead_letter_is_not_healthy(depth: Depth) -> None:
    assert status().is_healthy
    assert not status(loading_dlq=depth).is_healthy
    assert status(loading_dlq=depth).as_json()["healthy"] is False


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference(Kind.MISSING, (7,)), "7 is missing"),
        (Difference(Kind.EXTRA, (7, "b")), "7, b is extra"),
        (Difference(Kind.EXTRA, ("é\x1b[31m\x9b",)), r"é\x1b[31m\x9b is extra"),  # would steer a terminal
        (
            Difference(Kind.DIFFERENT, (7,), {"city": ("Leeds", None), "phone": ("", "1")}),
            "7 is different (city: expected 'Leeds', found None; phone: expected '', found '1')",
        ),
    ],
)
def test_a_difference_in_words(difference: Difference, text: str) -> None:
    assert describe(difference) == text


def test_equal_is_said_with_run_rows_and_time() -> None:
    equal = Verdict(NOTHING, BEGAN, (TableVerdict("dim_date", expected=1000, actual=1000, in_flight=2, quarantined=1),))
    assert verdict_sentence(equal) == (
        "[bold green]EQUAL[/] before any load: 1,000 rows compared at 2026-11-01 09:30:00 UTC, "
        "2 rows in flight, 1 in quarantine."
    )


async def test_different_is_said_with_how_many_rows() -> None:
    found = TableVerdict("dim_staff", expected=3, actual=2, differences=[Difference(Kind.MISSING, (1,))])
    verdict = Verdict(await loaded_progress(), BEGAN, (found, TableVerdict("dim_date", 2, 2)))
    assert verdict_sentence(verdict) == (
        "[bold red]DIFFERENT[/] as of run 7: 1 of 5 rows differ at 2026-11-01 09:30:00 UTC, 0 rows in flight, 0 in quarantine."
    )


def test_a_verdict_names_the_first_differences_of_each_table() -> None:
    many = [Difference(Kind.MISSING, (key,)) for key in range(1, 8)]
    names = TableVerdict("dim_staff", 9, 2, 1, 0, many), TableVerdict("fact_purchase_order", 5, 5)
    text = shown(Verdict(NOTHING, BEGAN, names))
    assert all(header in text for header in ("expected", "found", "in flight", "quarantine", "different"))
    assert words(text, "fact_purchase") == ["fact_purchase_order", "5", "5", "0", "0", "0"]
    assert "dim_staff 1 is missing" in text
    assert "dim_staff 5 is missing" in text
    assert "dim_staff 6 is missing" not in text
    assert "dim_staff: 2 more; --json names 10,000 at most" in text
    assert "DIFFERENT before any load: 7 of 14 rows differ" in text


@pytest.mark.parametrize("value", ["[/]", "[bold]a[/bold]", "[/nothing]", "a\\", "[link=x]", ":smile:"])
def test_a_value_with_brackets_is_shown_as_it_is(value: str) -> None:
    found = TableVerdict("dim_staff", 1, 1, differences=[Difference(Kind.DIFFERENT, (1,), {"location": (value, "b")})])
    text = shown(Verdict(NOTHING, BEGAN, (found,)))
    assert f"dim_staff 1 is different (location: expected {value!r}, found 'b')" in text


async def test_a_verdict_for_scripts_has_stable_names() -> None:
    different = Difference(Kind.DIFFERENT, (1,), {"city": ("Leeds", None)})
    found = TableVerdict("dim_location", expected=3, actual=2, in_flight=1, quarantined=1, differences=[different])
    assert verdict_as_json(Verdict(await loaded_progress(), snapshot(5).taken_at, (found,))) == {
        "equal": False,
        "as_of_run": 7,
        "taken_at": "2026-11-01T09:30:05+00:00",
        "sample": 1.0,
        "settled_at": None,
        "overdue_batches": 0,
        "stalled": False,
        "in_flight": 1,
        "quarantined": 1,
        "tables": {
            "dim_location": {
                "expected": 3,
                "actual": 2,
                "in_flight": 1,
                "quarantined": 1,
                "different": 1,
                "digest": "",
                "differences": [
                    {"kind": "different", "key": [1], "columns": {"city": {"expected": "Leeds", "actual": None}}},
                ],
            }
        },
    }


def test_numbers_come_with_their_noun() -> None:
    assert [counted(number, "row", "rows") for number in (0, 1, 1000)] == ["0 rows", "1 row", "1,000 rows"]
