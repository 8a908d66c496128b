"""Rows that no transaction id shows to be new, in quarantine: every run reads them again."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.yaml_text import read_contract
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import require_equal

TEXT = """
name: full
star:
  dim_date: {calendar: {d: date}}
  fact_sale: {fact: sale, columns: {sale_id: , on: {date_of: at, references: dim_date}}}
source: {tables: {sale: {full: true, key: sale_id, columns: {sale_id: integer, at: timestamptz}}}}
"""


@pytest.fixture
async def pipeline(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(
        "CREATE TABLE sale (sale_id integer, at timestamptz); INSERT INTO sale VALUES (1, 'infinity'), (2, NULL)"
    )
    return empty.reading(read_contract(TEXT, "full.yaml"))


async def test_a_row_that_every_run_refuses_is_in_quarantine_and_waits_for_nothing(pipeline: Pipeline) -> None:
    for _ in range(2):
        await pipeline.run()
        await require_equal(pipeline, quarantined=1)


async def test_a_row_that_left_quarantine_and_is_lost_is_not_called_quarantined(
    owner: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await pipeline.run()
    await owner.execute("UPDATE sale SET at = '2026-01-01'")
    await pipeline.run()
    await require_equal(pipeline)
    await pipeline.select("DELETE FROM fact_sale WHERE sale_id = 1")
    verdict = await pipeline.verify()
    assert (verdict.in_flight + verdict.stuck, verdict.quarantined) == (1, 0)
