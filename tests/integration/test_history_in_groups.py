"""The history check keeps a bounded number of versions in memory, and misses nothing between two of its steps."""

from __future__ import annotations

import asyncpg
import pytest

from services.operator.local.totesys.fill import fill
from services.operator.proof import history
from services.operator.proof.history import check_history
from tests.fixtures.beginnings import begins_with
from tests.fixtures.pipeline import Pipeline


async def small_batches(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    """Loaded in small batches."""
    await fill(source, orders=60, seed=1)
    await pipeline.cut(25).run()


@begins_with(small_batches)
@pytest.mark.parametrize(("rows", "batches"), [(60, 1000), (1000, 2), (1, 1000)])
async def test_a_history_of_many_batches_is_checked_in_groups(
    rows: int, batches: int, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked up in statements of few versions. The last version of each batch is lost."""
    groups: list[list[int]] = []
    check = history._FactCheck._check_group

    async def spy(self: history._FactCheck, group: history.Group, written: int) -> None:
        groups.append([len(versions) for _, versions in group])
        await check(self, group, written)

    monkeypatch.setattr(history._FactCheck, "_check_group", spy)
    monkeypatch.setattr(history, "GROUP_ROWS", rows)
    monkeypatch.setattr(history, "GROUP_BATCHES", batches)
    monkeypatch.setattr(history, "LOOKED_UP_ROWS", 7)
    (payments,) = (await check_history(pipeline.system, ["fact_payment"])).facts
    assert (payments.flawed, payments.versions) == (0, payments.rows)
    assert payments.batches == sum(map(len, groups))
    assert len(groups) > 1
    assert all(len(group) == 1 or (len(group) <= batches and sum(group) <= rows) for group in groups)
    lost = await pipeline.select(
        "DELETE FROM fact_payment WHERE payment_id IN (SELECT max(payment_id) FROM fact_payment GROUP BY _batch_id) "
        "RETURNING payment_id"
    )
    in_order = [(str(key),) for (key,) in sorted(lost)]  # pages are cut in the order of keys
    (payments,) = (await check_history(pipeline.system, ["fact_payment"])).facts
    assert [problem.key for problem in payments.problems] == in_order
