"""Keys and values of types that the source writes in its own way."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from contracts.column_types import DATE, TEXT
from contracts.messages import RowsOf
from contracts.origins import FromLookup, FromSource
from contracts.proofs import Outcome
from contracts.tables import Column, Lookup, SourceColumn
from services.operator.proof import canonical
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Both, Difference, Mismatch
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.small_contract import DIM_ITEM, FACT_SALE, MAKER, SCHEMA, SHOP, with_column, with_table

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
    assert shelf.differences == (Difference(Mismatch.DIFFERENT, (1, "calm"), {"width": Both("3", "4")}),)
    await owner.close()


async def test_an_enum_may_have_a_default_text_for_absent_values(source_url: str, pipeline: Pipeline) -> None:
    column = Column("mood", TEXT, FromSource("mood", absent="(unknown)"))
    shop, owner = pipeline.reading(with_table(SHOP, with_column(DIM_ITEM, column))), await asyncpg.connect(source_url)
    await owner.execute(SCHEMA)
    await owner.execute(GRANT)
    await owner.execute("INSERT INTO item (item_id, mood, sold_at) VALUES (1, NULL, now()), (2, 'wild', now())")
    await shop.run()
    assert (await shop.verify()).is_equal
    assert await shop.select("SELECT mood FROM dim_item ORDER BY item_id") == [("(unknown)",), ("wild",)]
    await owner.close()


FOUNDED = replace(MAKER, columns=(*MAKER.columns, SourceColumn("founded", DATE, nullable=True)))
FOUNDED_SALE = with_column(
    replace(FACT_SALE, lookups=(Lookup("maker", on=("maker_id",)),)),
    Column("founded", DATE, FromLookup("maker", "founded"), nullable=True, references="dim_day"),
)
FOUNDED_SHOP = replace(
    SHOP,
    source_tables=(FOUNDED, *(table for table in SHOP.source_tables if table is not MAKER)),
    warehouse_tables=tuple(FOUNDED_SALE if table is FACT_SALE else table for table in SHOP.warehouse_tables),
)


async def test_a_date_of_a_partner_is_in_the_calendar(source_url: str, pipeline: Pipeline) -> None:
    shop, owner = pipeline.reading(FOUNDED_SHOP), await asyncpg.connect(source_url)
    await owner.execute(f"{SCHEMA}; ALTER TABLE maker ADD COLUMN founded date; {GRANT}")
    await owner.execute("INSERT INTO maker (maker_id, maker_name, founded) VALUES (1, 'Ada', '1815-12-10'), (2, 'Bo', NULL)")
    await owner.execute("INSERT INTO item (item_id, maker_id, sold_at) VALUES (1, 1, '2026-01-02'), (2, 2, '2026-01-02')")
    await shop.run()
    assert (await shop.verify()).outcome is Outcome.EQUAL
    await shop.select("ALTER TABLE fact_sale DROP CONSTRAINT fact_sale_founded_fkey")
    await shop.select("DELETE FROM dim_day WHERE day = '1815-12-10'")
    verdict = await shop.verify()
    assert verdict.tables[0].differences == (Difference(Mismatch.MISSING, ("1815-12-10",)),)
    (wish,) = await plan_repair(shop.system, verdict)
    assert wish.reread == (RowsOf(table="item", keys=((1,),)),)
    await shop.run(reread=wish.reread)
    await owner.execute("UPDATE maker SET founded = '1815-12-11' WHERE maker_id = 1")
    verdict = await shop.verify()
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 2)  # the sale, and the day that it refers to
    await shop.run()
    verdict = await shop.verify()
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 0)
    await owner.close()


async def test_keys_that_are_multiples_of_a_power_of_two_are_in_many_buckets(source: asyncpg.Connection) -> None:
    """Some generators make such keys: in a single bucket, one wrong row would cause all of them to be compared one by one."""
    for shift in (12, 22, 48):
        numbers = f"SELECT number << {shift} AS k0 FROM generate_series(1::bigint, 1000) AS number"
        await source.execute(f"CREATE TEMP TABLE made AS {numbers}")
        bucket = canonical._bucket(SHOP.warehouse_table("dim_item"))
        assert await source.fetchval(f"SELECT count(DISTINCT {bucket}) FROM made") == 1000
        assert await source.fetchval(
            f"SELECT min({bucket}) >= 0 AND max({bucket}) < 4096 FROM (SELECT -k0 AS k0 FROM made) AS _"
        )
        await source.execute("DROP TABLE made")
