"""Rows so wide that a batch of the usual number of them would fit into nobody's memory."""

from __future__ import annotations

import asyncpg

from infra.local.totesys.fill import fill
from services.ingestion.extraction import Destination, Reader, read_batches
from services.ingestion.selection import Selection
from services.ingestion.source import open_snapshot
from tests.pipeline import LANDING, SOURCE, Pipeline

ROWS = 3_000
WIDE_DESIGNS = f"""
INSERT INTO design (design_name, file_location, file_name, last_updated)
SELECT 'wide', rpad('', 1900, md5(number::text)), 'x', now() FROM generate_series(1, {ROWS}) AS number
"""


async def test_wide_rows_are_cut_into_batches_by_their_bytes(source: asyncpg.Connection, pipeline: Pipeline) -> None:
    await fill(source, orders=0, seed=1)
    await source.execute("DELETE FROM design")
    await source.execute(WIDE_DESIGNS)  # and nobody has analysed the table
    selection = Selection(pipeline.contract, frozenset(), None)
    async with open_snapshot(pipeline.source, pipeline.contract) as (connection, now):
        reader = Reader(connection, selection, now.tables, batch_bytes=2_000_000)
        destination = Destination(pipeline.objects, LANDING, SOURCE, 1)
        batches = [batch async for batch in read_batches(reader, destination)]
    designs = [[extract.object.row_count for extract in batch if extract.table == "design"] for batch in batches]
    assert sum(map(sum, designs)) == ROWS
    assert max(map(sum, designs)) < 1_200, "about 2 MB of them"
