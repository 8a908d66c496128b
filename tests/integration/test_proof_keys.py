"""Keys and values of types that the source spells in its own way."""

from __future__ import annotations

import asyncpg
import pytest

from contracts.column_types import TEXT
from contracts.origins import FromSource
from contracts.tables import Column
from services.operator.proof import statements
from services.operator.proof.comparison import Difference, Kind
from tests.pipeline import Pipeline
from tests.small_contract import DIM_ITEM, SCHEMA, SHOP, with_column, with_table

GRANT = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC"


@pytest.mark.parametrize("kind", ["character(5)", "mood"])
async def test_a_key_of_any_kind_of_text_is_compared(kind: str, source_url: str, pipeline: Pipeline) -> None:
    """A character(n) comes with blanks, an enum has no collation."""
    shop, owner = pipeline.reading(SHOP), await asyncpg.connect(source_url)
    await owner.execute(SCHEMA.replace("label text", f"label {kind}"))
    await owner.execute(GRANT)
    await owner.execute("INSERT INTO shelf SELECT number, 'calm', 3 FROM generate_series(1, 2) AS number")
    await shop.run()
    assert (await shop.verify()).is_equal
    await shop.select("UPDATE dim_shelf SET width = 4 WHERE row = 1")
    (shelf,) = [table for table in (await shop.verify()).tables if table.table == "dim_shelf"]
    assert shelf.differences == [Difference(Kind.DIFFERENT, (1, "calm"), {"width": ("3", "4")})]
    await owner.close()


async def test_an_enum_may_have_a_text_for_absent_values(source_url: str, pipeline: Pipeline) -> None:
    column = Column("mood", TEXT, FromSource("mood", absent="(unknown)"))
    shop, owner = pipeline.reading(with_table(SHOP, with_column(DIM_ITEM, column))), await asyncpg.connect(source_url)
    await owner.execute(SCHEMA)
    await owner.execute(GRANT)
    await owner.execute("INSERT INTO item (item_id, mood, sold_at) VALUES (1, NULL, now()), (2, 'wild', now())")
    await shop.run()
    assert (await shop.verify()).is_equal
    assert await shop.select("SELECT mood FROM dim_item ORDER BY item_id") == [("(unknown)",), ("wild",)]
    await owner.close()


async def test_keys_that_are_multiples_of_a_power_of_two_are_in_many_buckets(source: asyncpg.Connection) -> None:
    """As those that some generators make: in one bucket, one wrong row would have all of them compared one by one."""
    for shift in (12, 22, 48):
        numbers = f"SELECT number << {shift} AS k0 FROM generate_series(1::bigint, 1000) AS number"
        await source.execute(f"CREATE TEMP TABLE made AS {numbers}")
        bucket = statements._bucket(SHOP.warehouse_table("dim_item"))
        assert await source.fetchval(f"SELECT count(DISTINCT {bucket}) FROM made") == 1000
        assert await source.fetchval(
            f"SELECT min({bucket}) >= 0 AND max({bucket}) < 4096 FROM (SELECT -k0 AS k0 FROM made) AS _"
        )
        await source.execute("DROP TABLE made")
