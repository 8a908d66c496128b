from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from contracts.messages import IngestSourceData, LookUpKeysData, Mode, RowsOf, Snapshot, Trigger
from contracts.state import Checkpoint, SourceIdentity, lsn
from services.ingestion.plan import Plan, plan_run
from services.ingestion.run import held_back_since
from shared.source_facts import HORIZON_AGE_MAXIMUM, SourceFacts, SourceTableFacts
from shared.testing import EPOCH
from tests.fixtures.totesys import CONTRACT

IDENTITY = SourceIdentity(system_identifier=7, timeline=1, database_oid=16384, statistics_reset="2026-01-01")
EVERYTHING = frozenset(table.name for table in CONTRACT.source_tables)
BEFORE = Checkpoint(
    run=5,
    started_at=EPOCH,
    snapshot=Snapshot(taken_at=EPOCH, horizon=1000, wal_position="1/10"),
    identity=IDENTITY,
    contract=CONTRACT.fingerprint,
    tables=dict.fromkeys(EVERYTHING, "same"),
)
NOW = SourceFacts(
    snapshot=Snapshot(taken_at=EPOCH, horizon=1010, wal_position="1/20"),
    next_xid=1012,
    identity=IDENTITY,
    tables={name: SourceTableFacts("same", 100) for name in EVERYTHING},
)


def now(**changes: Any) -> SourceFacts:
    return replace(NOW, **changes)


def identity(**changes: Any) -> SourceFacts:
    return now(identity=IDENTITY.model_copy(update=changes))


def plan(
    source: SourceFacts = NOW, before: Checkpoint | None = BEFORE, mode: Mode = Mode.CHANGES, every: int = 0, **wish: bool
) -> Plan:
    data = IngestSourceData(source_name="totesys", mode=mode, trigger=Trigger.SCHEDULE, **wish)
    return plan_run(CONTRACT, source, before, data, every)


def since(found: Plan) -> int | None:
    return None if found.since is None else found.since.horizon


def compared(found: Plan) -> set[str]:
    return {table.name for table in found.compared_tables}


def after(runs: int | None) -> Checkpoint:
    return BEFORE.model_copy(update={"runs_since_key_comparison": runs})


def test_an_ordinary_run_reads_what_changed_since_the_horizon() -> None:
    found = plan()
    assert (found.reasons, found.full_tables, since(found)) == ((), frozenset(), 1000)


def answer(source: SourceFacts = NOW, before: Checkpoint | None = BEFORE, every: int = 1) -> Plan:
    asked = (RowsOf(table="staff", keys=((1,),)), RowsOf(table="staff", keys=((2,), (3,))))
    return plan_run(CONTRACT, source, before, LookUpKeysData(source_name="totesys", rows=asked), every)


def test_an_answer_compares_no_keys_even_when_a_comparison_is_due() -> None:
    found = answer(before=after(9))
    assert (compared(found), found.runs_since_comparison) == (set(), 10)
    assert found.looked_up == {"staff": ((1,), (2,), (3,))}


def test_an_answer_that_reads_everything_compares_the_keys_it_reads() -> None:
    found = answer(before=None)
    assert (compared(found), found.runs_since_comparison) == (compared(plan(before=None)), 0)


def test_the_first_run_reads_everything() -> None:
    found = plan(before=None)
    assert (found.reasons, found.full_tables, since(found)) == (("first run",), EVERYTHING, None)


@pytest.mark.parametrize(
    ("source", "before", "mode", "reason"),
    [
        (NOW, BEFORE, Mode.FULL, "asked for"),
        (NOW, BEFORE.model_copy(update={"contract": "other"}), Mode.CHANGES, "the contract changed"),
        (identity(system_identifier=8), BEFORE, Mode.CHANGES, "another PostgreSQL cluster"),
        (identity(database_oid=1), BEFORE, Mode.CHANGES, "another database"),
        (identity(timeline=2), BEFORE, Mode.CHANGES, "another timeline: a failover or a restore"),
        (identity(statistics_reset="2026-01-02"), BEFORE, Mode.CHANGES, "PostgreSQL recovered from a crash"),
        (
            now(snapshot=NOW.snapshot.model_copy(update={"wal_position": "0/FFFFFFFF"})),
            BEFORE,
            Mode.CHANGES,
            "the source's WAL position moved back",
        ),
        (now(next_xid=999), BEFORE, Mode.CHANGES, "the horizon is ahead of the source"),
        (now(next_xid=1001 + HORIZON_AGE_MAXIMUM), BEFORE, Mode.CHANGES, "the horizon is too old"),
    ],
)
def test_everything_is_read_if_the_horizon_cannot_be_trusted(
    source: SourceFacts, before: Checkpoint, mode: Mode, reason: str
) -> None:
    found = plan(source, before, mode)
    assert (found.reasons, found.full_tables, since(found)) == ((reason,), EVERYTHING, None)
    assert found.redefined == (frozenset() if mode is Mode.FULL else EVERYTHING)


def test_every_reason_for_a_full_read_is_given() -> None:
    assert plan(identity(timeline=2, database_oid=1), mode=Mode.FULL).reasons == (
        "asked for",
        "another database",
        "another timeline: a failover or a restore",
    )


def test_the_horizon_of_an_idle_source_or_one_just_young_enough_is_trusted() -> None:
    assert plan(now(snapshot=BEFORE.snapshot, next_xid=1000)).reasons == ()
    assert plan(now(next_xid=1000 + HORIZON_AGE_MAXIMUM)).reasons == ()


def test_only_the_table_whose_definition_changed_is_read_in_full() -> None:
    found = plan(now(tables={**NOW.tables, "staff": SourceTableFacts("other", 100)}))
    assert found.reasons == ("the definition of 'staff' changed",)
    assert (found.full_tables, since(found)) == (frozenset({"staff"}), 1000)


def test_a_table_unknown_to_the_last_run_is_read_in_full() -> None:
    known = {name: fingerprint for name, fingerprint in BEFORE.tables.items() if name != "design"}
    assert plan(before=BEFORE.model_copy(update={"tables": known})).full_tables == frozenset({"design"})


@pytest.mark.parametrize(("text", "position"), [("0/0", 0), ("0/FF", 255), ("1/0", 2**32), ("16/B374D848", 0x16_B374D848)])
def test_a_log_position_is_parsed_into_a_number_of_bytes(text: str, position: int) -> None:
    assert lsn(text) == position


# --- which keys are compared ---------------------------------------------------------------------------------------

STARS = set(EVERYTHING) - {"department"}  # no star table is made of departments: they are only joined


def test_an_ordinary_run_compares_no_keys_and_is_counted() -> None:
    found = plan(before=after(3), every=10)
    assert (compared(found), found.runs_since_comparison, found.reads_orphans) == (set(), 4, False)


@pytest.mark.parametrize(("before", "every"), [(after(9), 10), (after(0), 1), (after(12), 10), (after(None), 10)])
def test_keys_are_compared_every_n_runs(before: Checkpoint, every: int) -> None:
    found = plan(before=before, every=every)
    assert (compared(found), found.runs_since_comparison, found.reads_orphans) == (STARS, 0, True)


def test_keys_are_compared_on_request() -> None:
    found = plan(before=after(3), compare_keys=True)
    assert (compared(found), found.runs_since_comparison, found.reads_orphans) == (STARS, 0, True)


def test_without_an_interval_no_comparison_is_ever_due() -> None:
    assert compared(plan(before=after(10**6))) == set()
    assert plan(before=after(None)).runs_since_comparison is None


@pytest.mark.parametrize(("before", "mode"), [(None, Mode.CHANGES), (after(3), Mode.FULL)])
def test_a_full_run_compares_keys(before: Checkpoint | None, mode: Mode) -> None:
    found = plan(before=before, mode=mode)
    assert (compared(found), found.runs_since_comparison) == (STARS, 0)


def test_comparing_a_fully_read_table_does_not_count_as_comparing_all_tables() -> None:
    found = plan(now(tables={**NOW.tables, "staff": SourceTableFacts("other", 100)}), before=after(3), every=10)
    assert (compared(found), found.runs_since_comparison) == ({"staff"}, 4)


# --- a horizon that does not move ----------------------------------------------------------------------------------


def seen(horizon: int, minutes: int, since: int | None = None) -> Checkpoint:
    snapshot = Snapshot(taken_at=EPOCH + timedelta(minutes=minutes), horizon=horizon, wal_position="1/10")
    held = None if since is None else EPOCH + timedelta(minutes=since)
    return BEFORE.model_copy(update={"snapshot": snapshot, "held_back_since": held})


@pytest.mark.parametrize(
    ("before", "next_xid", "minute"),
    [
        (None, 1010, None),
        (seen(1010, 5), 1010, None),  # nothing has happened since
        (seen(1010, 5, since=2), 1010, None),
        (None, 1012, 9),
        (seen(1005, 5, since=2), 1012, 9),  # another transaction
        (seen(1010, 5), 1012, 5),
        (seen(1010, 5, since=2), 1012, 2),
    ],
)
def test_a_horizon_counts_as_held_back_since_the_run_that_first_saw_it(
    before: Checkpoint | None, next_xid: int, minute: int | None
) -> None:
    at = NOW.snapshot.model_copy(update={"taken_at": EPOCH + timedelta(minutes=9)})
    expected = None if minute is None else EPOCH + timedelta(minutes=minute)
    assert held_back_since(now(snapshot=at, next_xid=next_xid), before) == expected
