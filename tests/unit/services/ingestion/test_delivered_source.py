"""Runs of a source of files, on fakes: which file is taken when, what it announces, and what is recorded of it."""

from __future__ import annotations

import pytest

from contracts.files import Outcome
from tests.unit.services.ingestion.delivered_scene import DeliveredScene, budget


@pytest.fixture
def scene() -> DeliveredScene:
    return DeliveredScene()


async def test_a_file_becomes_a_run(scene: DeliveredScene) -> None:
    await scene.put("budget/a.csv", budget("1;2026-01-01;10.50", "2;2026-02-01;7"))
    (batch,) = await scene.ingest()
    assert [(one.table, one.object.row_count, one.whole_run) for one in batch.data.extracts] == [("budget", 2, batch.data.run)]
    assert batch.data.hashes is not None
    assert await scene.truth() == {(1, "2026-01-01"): 1050, (2, "2026-02-01"): 700}
    (record,) = await scene.records()
    assert (record.outcome, record.run, record.records, record.bad) == (Outcome.TAKEN, batch.data.run, 2, 0)
