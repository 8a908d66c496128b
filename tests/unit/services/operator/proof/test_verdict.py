from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from contracts.proofs import Outcome
from services.operator.progress import Progress
from services.operator.proof.causes import empty_table_cause
from services.operator.proof.row_comparison import Cause, Difference, Mismatch, Row, TableFindings, Wait, WaitingRow, compare
from services.operator.proof.verdict import Scope, judge
from shared.source_keys import Key
from tests.unit.services.operator.proof.test_row_comparison import DELETED, nothing_known, stream
from tests.unit.services.operator.scene import BEGAN

NOTHING = Progress(None, (), None)
STUCK = empty_table_cause("payment")
WRONG = TableFindings("t", 1, 0, differences=[Difference(Mismatch.MISSING, (1,))])


@pytest.mark.parametrize(
    ("tables", "gaps", "outcome"),
    [
        ((TableFindings("t", 1, 1),), (), Outcome.EQUAL),
        ((TableFindings("t", 1, 1, Counter({Cause(Wait.RUN): 1})),), (Cause(Wait.BATCH),), Outcome.EQUAL),
        ((TableFindings("t", 1, 1),), (Cause(Wait.BATCH, "run 7 is overdue"),), Outcome.PENDING),  # even where nothing differs
        ((TableFindings("t", 1, 1, Counter({STUCK: 1})),), (), Outcome.PENDING),
        ((TableFindings("t", 1, 1, Counter({STUCK: 1})), WRONG), (Cause(Wait.BATCH, "run 7 is overdue"),), Outcome.DIFFERENT),
    ],
)
def test_different_outranks_stuck_and_stuck_is_never_equal(
    tables: tuple[TableFindings, ...], gaps: tuple[Cause, ...], outcome: Outcome
) -> None:
    verdict = judge(NOTHING, BEGAN, tables, standing_causes=gaps)
    assert (verdict.outcome, verdict.is_equal) == (outcome, outcome is Outcome.EQUAL)
    assert verdict.sentence.startswith(f"{outcome.value.upper()} before any load: ")


@pytest.mark.parametrize(("sample", "buckets"), [(1, 4096), (0.05, 205), (0.0005, 2), (0.00001, 1)])
def test_a_sample_has_its_share_of_the_buckets_and_at_least_one(sample: float, buckets: int) -> None:
    assert Scope(sample=sample).buckets == buckets


async def test_rows_in_flight_are_kept_with_their_version_and_presence() -> None:
    left = [Row((key,), ("new",), Cause(Wait.RUN), f"v{key}") for key in (1, 2)]
    found = TableFindings("t")
    await compare(found, stream(left), stream([Row((2,), ("old",))]), ("name",), {}, nothing_known)
    assert found.waiting_rows == {(1,): WaitingRow("v1", is_missing=True), (2,): WaitingRow("v2", is_missing=False)}


async def test_rows_that_the_source_had_and_now_lacks_count_as_deleted() -> None:
    async def known(keys: Collection[Key]) -> dict[Key, Cause | None]:
        assert keys == [(1,), (2,), (3,)]
        return {(1,): DELETED, (3,): None}

    right = [Row((key,), ("a",)) for key in (1, 2, 3)]
    found = TableFindings("t")
    await compare(found, stream([]), stream(right), ("name",), {}, known)
    assert (found.deleted, found.in_flight, found.differences) == ({(1,)}, 1, [Difference(Mismatch.EXTRA, (2,))])
    assert found.actual == 2  # an inferred member, which waits for nothing, counts as absent
