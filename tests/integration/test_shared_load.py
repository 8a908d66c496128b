"""A first load that several tasks of ingestion read in one snapshot, on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import asyncpg
import pytest

from contracts.messages import BatchIngested, Mode
from services.ingestion import chunks as chunks_module
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import Pipeline, tables_read

pytestmark = begins_with(filled_totesys(orders=400))
ROWS = 60  # of a batch
LARGE = {"sales_order", "payment", "transaction"}


@pytest.fixture(autouse=True)
def a_few_batches_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few rows are shared."""
    monkeypatch.setattr(chunks_module, "LARGE", 5)


@pytest.fixture
async def shared(filled: asyncpg.Connection, pipeline: Pipeline) -> Pipeline:
    await filled.execute("ANALYZE")
    return replace(pipeline.cut(ROWS), tasks=2)


def once_each(batches: list[BatchIngested]) -> list[BatchIngested]:
    """The batches of a run, in the order of their indexes; a task may have announced one twice."""
    return sorted({batch.data.batch_id: batch for batch in batches}.values(), key=lambda batch: batch.data.index)


@pytest.mark.parametrize("tasks", [1, 2, 4])
async def test_a_first_load_by_any_number_of_tasks_is_equal(shared: Pipeline, tasks: int) -> None:
    batches = once_each(await replace(shared, tasks=tasks).ingest())
    assert [batch.data.index for batch in batches] == list(range(len(batches)))
    assert [batch.data.is_last for batch in batches] == [*[False] * (len(batches) - 1), True]
    alone = tables_read(await replace(shared, tasks=None).ingest(Mode.FULL))
    assert tables_read(batches) == alone
    assert {table for table, count in alone.items() if count > 5 * ROWS} >= LARGE
    Random(tasks).shuffle(batches)  # noqa: S311 - an order
    await shared.load(*[await shared.remodel(batch) for batch in batches])
    assert (await shared.verify()).is_equal
