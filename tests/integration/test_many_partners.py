"""Rows that refer to very many partners, by keys of several columns."""

from __future__ import annotations

import asyncpg

from contracts.column_types import INTEGER, TEXT
from contracts.origins import FromLookup
from contracts.tables import Column, Lookup
from tests.fixtures.pipeline import Pipeline
from tests.integration.plain_star import dimension_of, of, require_equal, source_table

ROWS = 12_000
STOCK = source_table("stock", ("place", "code"), place=INTEGER, code=TEXT, label=TEXT)
ITEM = source_table("item", "id", id=INTEGER, place=INTEGER, code=TEXT)
LABEL = Column("label", TEXT, FromLookup("stock", "label"), nullable=True)
CONTRACT = of(STOCK, ITEM, star=(dimension_of(ITEM, LABEL, lookups=(Lookup("stock", on=("place", "code")),)),))


async def test_more_partners_are_read_than_one_statement_can_name(owner: asyncpg.Connection, empty: Pipeline) -> None:
    """As a list of rows PostgreSQL would nest them as deep as there are keys, and refuse the statement."""
    await owner.execute(
        f"""
        CREATE TABLE stock (place int, code varchar(9), label text, PRIMARY KEY (place, code));
        CREATE TABLE item (id int PRIMARY KEY, place int, code varchar(9));
        INSERT INTO stock SELECT n % 7, n::text, 'l' || n FROM generate_series(1, {ROWS}) AS n;
        INSERT INTO item SELECT n, n % 7, n::text FROM generate_series(1, {ROWS}) AS n;
        """
    )
    pipeline = empty.reading(CONTRACT)
    await pipeline.run()
    assert await pipeline.select("SELECT count(*) FROM dim_item WHERE label = 'l' || id") == [(ROWS,)]
    await require_equal(pipeline)
