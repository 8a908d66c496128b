"""A value of a type that both databases have, and read differently: the batch stops, and a sentence says where, not what."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from contracts.column_types import verbatim
from contracts.messages import Mode
from contracts.origins import FromSource
from contracts.tables import Column, SourceColumn
from shared.errors import PermanentError
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.small_contract import DIM_ITEM, SCHEMA, SHOP, with_column

PAIR = verbatim("pair")
ITEM = SHOP.source_table("item")
WIDER_ITEM = replace(ITEM, columns=(*ITEM.columns, SourceColumn("size", PAIR, nullable=True)))
WIDER_STAR = with_column(DIM_ITEM, Column("size", PAIR, FromSource("size"), nullable=True))
WITH_PAIR = replace(
    SHOP,
    source_tables=tuple(WIDER_ITEM if table is ITEM else table for table in SHOP.source_tables),
    warehouse_tables=tuple(WIDER_STAR if table is DIM_ITEM else table for table in SHOP.warehouse_tables),
)


@pytest.fixture
async def shop(source: asyncpg.Connection, pipeline: Pipeline) -> Pipeline:
    """The source's pair takes any text, the warehouse's whole numbers, as with two versions of a type."""
    await source.execute(SCHEMA)
    await source.execute("CREATE TYPE pair AS (width text, height text)")
    await source.execute("ALTER TABLE item ADD COLUMN size pair")
    await source.execute("INSERT INTO item (item_id, sold_at, size) VALUES (1, now(), '(1,2)'), (2, now(), NULL)")
    await pipeline.select("CREATE TYPE pair AS (width int, height int)")
    return pipeline.reading(WITH_PAIR)


async def test_a_value_that_both_databases_can_read_arrives(shop: Pipeline) -> None:
    await shop.run()
    assert await shop.select("SELECT item_id, size::text FROM dim_item ORDER BY 1") == [(1, "(1,2)"), (2, None)]
    assert (await shop.verify()).is_equal


async def test_a_value_the_warehouse_cannot_read_is_named_by_its_column_and_nothing_is_loaded(
    shop: Pipeline, source: asyncpg.Connection
) -> None:
    await source.execute("UPDATE item SET size = '(wide,high)' WHERE item_id = 2")
    expected = (
        r"^column 'size' of 'dim_item' has a value that the warehouse can't read as pair \(InvalidTextRepresentationError; the "
        r"text is withheld because it may quote a row\); correct it at the source or leave the column out of the contract, "
        r"then run "
        r"`starlift ingest --full`$"
    )
    with pytest.raises(PermanentError, match=expected):
        await shop.run()
    assert await shop.select("SELECT count(*) FROM starlift.ledger") == [(0,)]
    await source.execute("UPDATE item SET size = '(3,4)' WHERE item_id = 2")
    await shop.run(Mode.FULL)
    assert (await shop.verify()).is_equal
