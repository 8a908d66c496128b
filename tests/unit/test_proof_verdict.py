from __future__ import annotations

from collections.abc import Collection

import pytest

from services.operator.progress import Progress
from services.operator.proof.comparison import Awaited, Difference, Key, Kind, Row, TableVerdict, compare
from services.operator.proof.verdict import Scope, Verdict, verdict_as_json
from tests.unit.operator_scene import BEGAN, ingested
from tests.unit.test_comparison import stream


def test_a_warehouse_is_not_equal_while_batches_are_overdue() -> None:
    late = Verdict(Progress(None, (ingested(7),), None, overdue=1), BEGAN, (TableVerdict("t", 1, 1),), settled_at=BEGAN)
    assert not late.is_equal
    document = verdict_as_json(late)
    assert (document["equal"], document["overdue_batches"], document["settled_at"]) == (False, 1, BEGAN.isoformat())


@pytest.mark.parametrize(("sample", "buckets"), [(1, 4096), (0.05, 205), (0.0005, 2), (0.00001, 1)])
def test_a_sample_has_its_share_of_the_buckets_and_at_least_one(sample: float, buckets: int) -> None:
    assert Scope(sample=sample).buckets == buckets


async def test_rows_in_flight_are_remembered_with_their_version_and_whether_they_were_there() -> None:
    left = [Row((key,), ("new",), in_flight=True, version=f"v{key}") for key in (1, 2)]
    found = await compare(TableVerdict("t"), stream(left), stream([Row((2,), ("old",))]), ("name",))
    assert found.awaited == {(1,): Awaited("v1", is_missing=True), (2,): Awaited("v2", is_missing=False)}


async def test_of_the_rows_that_the_source_lacks_those_that_it_had_or_that_a_later_run_saw_are_deleted() -> None:
    async def listed(keys: Collection[Key]) -> set[Key]:
        assert keys == [(2,), (3,)]
        return {(2,)}

    right = [Row((1,), ("a",), in_flight=True), Row((2,), ("a",)), Row((3,), ("a",))]
    found = await compare(TableVerdict("t"), stream([]), stream(right), ("name",), listed=listed)
    assert (found.deleted, found.in_flight, found.differences) == ({(1,), (2,)}, 2, [Difference(Kind.EXTRA, (3,))])
