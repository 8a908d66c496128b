from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from contracts.messages import Extract, Role
from contracts.objects import ObjectRef
from contracts.proofs import Outcome, ProofFailure, ProofRecord
from services.operator.progress import Progress
from services.operator.status.report import Service, freshness, problems_of, report_of
from shared.lock_waits import LockWait
from shared.queue import Depth
from tests.fixtures.totesys import CONTRACT
from tests.unit.services.operator.scene import BEGAN, Scene, checkpoint, ingested, snapshot
from tests.unit.services.operator.terminal.status_scene import as_json, loaded_progress, shown, status, words


async def test_a_status_shows_queues_rows_and_the_freshness_of_each_table() -> None:
    text = shown(status(loading=Depth(visible=3, in_flight=2, delayed=1), loading_dlq=Depth(1, 1, 0)))
    assert words(text, "loading") == ["loading", "3", "2", "1", "2"]
    assert words(text, "ingestion") == ["ingestion", "0", "0", "0", "0"]
    assert words(text, "dim_date") == ["dim_date", "1,234", "2026-11-01 09:30:00 UTC"]
    assert words(text, "dim_staff") == ["dim_staff", "about 20"]
    assert words(text, "fact_payment") == ["fact_payment", "not created yet"]
    assert "No run has completed yet." in text
    assert "`starlift dlq list` prints why the messages failed." in text
    assert "not healthy: dead letters of loading: 2" in text
    assert "Services are shown for a local stack only" in text
    assert "quarantine" not in text
    healthy = shown(status(await loaded_progress()))
    assert "dead letters died" not in healthy
    assert "not healthy" not in healthy


async def test_a_status_shows_each_service_and_the_psql_command_for_the_star() -> None:
    services = {
        "ingestion": Service(alive_since=BEGAN, restarts=2, waits_for="the source is down"),
        "loading": Service(restarts=1),
    }
    found = replace(status(await loaded_progress()), queues={}, services=services, psql="psql 'postgresql://me@127.0.0.1/star'")
    text = shown(found)
    assert words(text, "ingestion") == ["ingestion", "2026-11-01 09:30:00 UTC", "2", "the source is down"]
    assert words(text, "loading") == ["loading", "not running", "1"]
    assert "The star: psql 'postgresql://me@127.0.0.1/star'" in text
    assert problems_of(found) == ["loading does not run", "ingestion waits: the source is down"]
    assert as_json(found)["services"]["loading"] == {"alive_since": None, "restarts": 1, "waits_for": None}


def test_parts_without_an_answer_are_named_together_and_the_others_are_shown() -> None:
    down = "nothing listens at the warehouse database's host and port; start it or correct the URL"
    found = replace(
        status(loading=Depth(3, 2, 1)), rows={}, quarantined=None, silent={"progress": down, "rows": down, "proof": "no answer"}
    )
    text = shown(found)
    assert words(text, "loading")[:2] == ["loading", "3"]
    assert "Never proved" not in text
    assert problems_of(found)[:2] == [f"progress, rows: {down}", "proof: no answer"]
    assert as_json(found)["silent"]["rows"] == down


async def test_a_late_answer_alone_leaves_health_unknown() -> None:
    late = replace(
        status(await loaded_progress()), rows={}, late={"rows": "no answer within 2 s", "locks": "no answer within 2 s"}
    )
    report = report_of(late)
    assert (report.healthy, report.problems, report.late) == (None, (), ("rows", "locks"))
    assert report.silent == dict.fromkeys(report.late, "no answer within 2 s")
    text = shown(late)
    assert "not known: rows, locks: no answer within 2 s; `--timeout` sets how long to wait" in text
    assert "not healthy" not in text
    assert report_of(replace(late, silent={"progress": "down"})).healthy is False


async def test_a_warehouse_that_is_stale_or_waits_for_a_lock_is_not_healthy() -> None:
    waits = LockWait(7, "starlift", pid=9, role="ann", application="psql", state="idle in transaction", query=None)
    found = replace(status(await loaded_progress()), at=BEGAN + timedelta(minutes=31), lock_waits=(waits,))
    assert problems_of(found) == [
        "session 7 of Starlift waits for a lock held by session 9 (ann, psql, idle in transaction)",
        "the warehouse shows the source as of 31 min ago",
    ]
    assert as_json(found)["lock_waits"] == problems_of(found)[:1]


async def test_a_source_to_which_nothing_is_delivered_is_healthy() -> None:
    found = replace(status(await loaded_progress()), at=BEGAN + timedelta(days=30), is_delivered=True)
    assert problems_of(found) == []
    assert problems_of(replace(found, is_delivered=False)) != []


@pytest.mark.parametrize(("state", "is_healthy"), [("active", True), ("idle in transaction", False)])
async def test_a_load_that_waits_for_another_running_load_is_healthy(state: str, *, is_healthy: bool) -> None:
    waits = LockWait(7, "starlift", pid=9, role="loader", application="starlift", state=state, query="COPY")
    found = replace(status(await loaded_progress()), lock_waits=(waits,))
    assert report_of(found).healthy is is_healthy
    assert len(as_json(found)["lock_waits"]) == 1


@pytest.mark.parametrize(("overdue", "read_at_min", "is_healthy"), [(0, 60, True), (1, 60, False), (0, 10, False)])
async def test_a_batch_in_flight_after_an_idle_hour_is_healthy(overdue: int, read_at_min: int, *, is_healthy: bool) -> None:
    """An idle source leaves no manifests; `read_at_min` is when run 8 read the change whose batch is on its way."""
    whole, read = await Scene().end_run(7, second=1), checkpoint(8)
    just_now = read.snapshot.model_copy(update={"taken_at": BEGAN + timedelta(minutes=read_at_min)})
    progress = Progress(whole, (ingested(8),), read.model_copy(update={"snapshot": just_now}), overdue=overdue)
    found = replace(status(progress), at=BEGAN + timedelta(minutes=61))
    assert report_of(found).healthy is is_healthy


async def test_a_table_is_as_old_as_the_first_run_with_a_missing_batch_for_it() -> None:
    scene = Scene()
    whole = await scene.end_run(7, second=1)
    extract = Extract(
        table="department", role=Role.BASE, object=ObjectRef(bucket="b", key="k", byte_count=1, row_count=1, sha256="0" * 64)
    )
    batch = ingested(8)
    batch = batch.model_copy(update={"data": batch.data.model_copy(update={"extracts": (extract,)})})
    fresh = freshness(CONTRACT, Progress(whole, (batch,), checkpoint(9, second=5)))
    assert (fresh["dim_staff"], fresh["dim_date"]) == (snapshot(1).taken_at, snapshot(1).taken_at)
    assert fresh["fact_payment"] == snapshot(5).taken_at


async def test_a_status_shows_how_fresh_the_warehouse_is() -> None:
    text = shown(replace(status(await loaded_progress()), quarantined=1))
    assert "Last run 7 at 2026-11-01 09:30:00 UTC; the warehouse shows the source as of 2026-11-01 09:30:01 UTC, 2.2 s" in text
    assert "1 row is in quarantine: `starlift quarantine list` prints why" in text


@pytest.mark.parametrize(
    ("seconds", "outcome", "text"),
    [
        (60, Outcome.EQUAL, "Proved equal 60 s ago: 9 rows, 1 in flight, 2 in quarantine."),
        (604, Outcome.EQUAL, "Proved equal 10 min ago: 9 rows, 1 in flight, 2 in quarantine."),
        (604, Outcome.DIFFERENT, "Found different 10 min ago: 3 of 9 rows; `starlift verify` names them."),
        (604, Outcome.PENDING, "Pending 10 min ago: 4 rows: table 'a' is empty; run 7 is overdue."),
    ],
)
async def test_a_status_shows_the_result_of_the_last_proof(seconds: float, outcome: Outcome, text: str) -> None:
    at = BEGAN + timedelta(seconds=3.25 - seconds)
    counts = {"rows": 9, "different": 3, "in_flight": 1, "quarantined": 2, "stuck": 4}
    reasons = {"table 'a' is empty": 4, "run 7 is overdue": 0}
    record = ProofRecord(taken_at=at, outcome=outcome, run=7, reasons=reasons, **counts)
    found = replace(status(await loaded_progress()), proof=record)
    assert text in shown(found)
    assert report_of(found).healthy is (outcome is Outcome.EQUAL)
    assert as_json(found)["proved"]["rows"] == 9


@pytest.mark.parametrize(("minutes", "is_old"), [(59, False), (61, True)])
async def test_a_status_is_not_healthy_when_scheduled_proofs_stop(minutes: float, *, is_old: bool) -> None:
    at = BEGAN + timedelta(seconds=3.25 - minutes * 60)
    record = ProofRecord(taken_at=at, outcome=Outcome.EQUAL, run=7, rows=9, different=0, in_flight=0, quarantined=0)
    found = replace(status(await loaded_progress()), proof=record)
    assert report_of(found).healthy is not is_old
    assert f"Proved equal {minutes} min ago: 9 rows" in shown(found)
    assert ("No proof since: check that the proof schedule is running." in shown(found)) is is_old
    by_hand = replace(found, proof=record.model_copy(update={"is_regular": False}))
    assert report_of(by_hand).healthy


async def test_a_failed_proof_is_not_healthy_and_shows_its_reason() -> None:
    failure = ProofFailure(failed_at=BEGAN, reason="the source database [bold]cannot[/] be reached")
    found = replace(status(await loaded_progress()), proof_failure=failure)
    assert problems_of(found) == [f"the last proof failed: {failure.reason}"]
    assert f"The last proof failed 3 s ago: {failure.reason}" in shown(found)
    assert as_json(found)["proof_failure"]["reason"] == failure.reason


def test_a_status_without_a_proof_suggests_the_command_for_one() -> None:
    assert "Never proved yet: `starlift verify` compares" in shown(status())


@pytest.mark.parametrize(("seconds", "is_told"), [(0, False), (59, False), (90, True)])
def test_a_status_shows_a_long_running_transaction(seconds: float, is_told: bool) -> None:  # noqa: FBT001
    known = checkpoint(7)
    held = known.model_copy(update={"held_back_since": known.snapshot.taken_at - timedelta(seconds=seconds)})
    found = status(Progress(None, (), held))
    assert (f"has been open for {seconds} s: every run reads again what has changed since" in shown(found)) is is_told
    assert as_json(found)["horizon_held_back_seconds"] == seconds


def test_a_status_lists_columns_that_the_contract_lacks() -> None:
    grown = checkpoint(7).model_copy(update={"new_columns": {"design": ("colour text", "[b] integer")}})
    found = status(Progress(None, (), grown))
    assert "the contract does not name 2 columns of source table 'design': colour text, [b] integer" in shown(found)
    assert as_json(found)["new_columns"] == {"design": ["colour text", "[b] integer"]}


def test_a_status_shows_rows_on_their_way() -> None:
    waiting = Progress(None, (ingested(7, 0, is_last=False), ingested(7, 1)), checkpoint(7))
    text = shown(status(waiting))
    assert "Last run 7 at 2026-11-01 09:30:00 UTC; nothing is loaded yet." in text
    assert "2 batches are not loaded yet" in text


async def test_the_json_of_a_status_has_stable_names() -> None:
    found = replace(status(await loaded_progress(), loading=Depth(3, 2, 1)), quarantined=2)
    assert as_json(found) == {
        "at": "2026-11-01T09:30:03.250000Z",
        "healthy": True,
        "problems": [],
        "silent": {},
        "late": [],
        "services": None,
        "queues": {
            "ingestion": {"visible": 0, "in_flight": 0, "delayed": 0},
            "remodelling": {"visible": 0, "in_flight": 0, "delayed": 0},
            "loading": {"visible": 3, "in_flight": 2, "delayed": 1},
        },
        "dead_letters": {"ingestion": 0, "remodelling": 0, "loading": 0},
        "last_run": 7,
        "last_run_at": "2026-11-01T09:30:00Z",
        "consistent_through": 7,
        "missing_batches": [],
        "overdue_batches": 0,
        "superseded_batches": [],
        "fresh_as_of": "2026-11-01T09:30:01Z",
        "behind_seconds": 2.25,
        "quarantined": 2,
        "keys_compared_as_of": None,
        "tables_in_comparison": [],
        "open_questions": 0,
        "oldest_question_seconds": None,
        "proved": None,
        "proof_failure": None,
        "horizon_held_back_seconds": None,
        "new_columns": {},
        "files_waiting": None,
        "files_refused": None,
        "lock_waits": [],
        "rows": {"dim_date": 1234, "dim_staff": 20, "fact_payment": None},
        "rows_estimated": ["dim_staff"],
        "tables_not_created": ["fact_payment"],
        "tables_fresh_as_of": {"dim_date": "2026-11-01T09:30:00Z", "dim_staff": None, "fact_payment": None},
        "psql": None,
    }


def test_before_the_first_run_the_json_of_a_status_has_null() -> None:
    found = as_json(status())
    unknown = ("last_run", "last_run_at", "consistent_through", "fresh_as_of", "behind_seconds")
    assert {name: found[name] for name in unknown} == dict.fromkeys(unknown)


@pytest.mark.parametrize("depth", [Depth(1, 0, 0), Depth(0, 1, 0)])
async def test_a_dead_letter_is_not_healthy(depth: Depth) -> None:
    progress = await loaded_progress()
    assert report_of(status(progress)).healthy is True
    assert as_json(status(progress, loading_dlq=depth))["healthy"] is False


def test_before_the_first_load_a_status_is_not_healthy() -> None:
    assert problems_of(status()) == ["nothing is loaded yet"]
