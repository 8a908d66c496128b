"""References by numerics and booleans: 1.0, 1.00 and 1 are equal for PostgreSQL, and so for lookups, deletes and the proof."""

from __future__ import annotations

import asyncpg

from contracts.column_types import BIGINT, BOOLEAN, INTEGER, TEXT, numeric, verbatim
from contracts.origins import FromLookup, FromSource
from contracts.tables import Column, Dimension, Fact, Lookup
from services.operator.proof.repair import plan_repair
from services.operator.trace.life import AtSource
from tests.fixtures.pipeline import Pipeline, tables_read
from tests.fixtures.tracing import life
from tests.integration.plain_star import dimension_of, keys_in_quarantine, of, require_equal, source_table

UNBOUNDED, LONG = verbatim("numeric"), verbatim("numeric(30,4)")
SCHEMA = """
CREATE TABLE rate (rate numeric PRIMARY KEY, label text NOT NULL);
CREATE TABLE flag (flag boolean, number numeric(10), label text NOT NULL, PRIMARY KEY (flag, number));
CREATE TABLE sale (
    id numeric(12, 2) PRIMARY KEY, rate numeric REFERENCES rate, long_rate numeric(30, 4), flag boolean, number integer,
    FOREIGN KEY (flag, number) REFERENCES flag
);
INSERT INTO rate VALUES (1.50, 'a'), (20, 'b'), (0, 'c'), (300.000, 'd');
INSERT INTO flag VALUES (true, 1, 'yes 1'), (false, 1, 'no 1'), (true, 20, 'yes 20');
INSERT INTO sale VALUES (1, 1.5, 1.5, true, 1), (2.00, 20.000, 20, false, 1), (3.5, 0.00, 0, true, 20),
    (4, 3e2, 300, NULL, 1), (5, NULL, 77, true, NULL);
"""
RATE = source_table("rate", "rate", rate=UNBOUNDED, label=TEXT)
FLAG = source_table("flag", ("flag", "number"), flag=BOOLEAN, number=numeric(10, 0), label=TEXT)
SALE = source_table("sale", "id", id=numeric(12, 2), rate=UNBOUNDED, long_rate=LONG, flag=BOOLEAN, number=INTEGER)
FACT_SALE = Fact(
    "fact_sale",
    ("id",),
    (
        Column("id", numeric(12, 2), FromSource("id")),
        Column("rate", UNBOUNDED, FromSource("rate"), nullable=True, references="dim_rate"),
        Column("label", TEXT, FromLookup("rate", "label"), nullable=True),
        Column("long_label", TEXT, FromLookup("long", "label"), nullable=True),
        Column("flag", TEXT, FromLookup("flag", "label"), nullable=True),
    ),
    "sale",
    (Lookup("rate", on=("rate",)), Lookup("rate", on=("long_rate",), name="long"), Lookup("flag", on=("flag", "number"))),
)
CONTRACT = of(RATE, FLAG, SALE, star=(dimension_of(RATE), dimension_of(FLAG), FACT_SALE))


async def test_equal_numerics_are_one_key_however_they_are_spelled(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(SCHEMA)
    pipeline = empty.reading(CONTRACT)
    await pipeline.run()
    found = await pipeline.select("SELECT id::text, rate::text, label, long_label, flag FROM fact_sale ORDER BY id")
    assert found == [
        ("1.00", "1.5", "a", "a", "yes 1"),
        ("2.00", "20", "b", "b", "no 1"),
        ("3.50", "0", "c", "c", "yes 20"),
        ("4.00", "300", "d", "d", None),
        ("5.00", None, None, None, None),
    ]
    await require_equal(pipeline)
    # The same keys, spelled otherwise, are neither deleted nor new; a changed partner brings the rows that refer to it.
    await owner.execute(
        "UPDATE rate SET rate = 1.5000, label = 'A' WHERE rate = 1.5; UPDATE flag SET label = '20!' WHERE number = 20"
    )
    messages = await pipeline.ingest()
    assert tables_read(messages) == {"rate": 1, "flag": 1, "sale": 2}
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    await pipeline.run(compare_keys=True)
    assert await pipeline.select("SELECT count(*) FROM dim_rate WHERE _deleted_at IS NULL") == [(4,)]
    await require_equal(pipeline)
    await owner.execute("DELETE FROM sale WHERE id = 3.5; DELETE FROM flag WHERE number = 20")
    await pipeline.run(compare_keys=True)
    assert await pipeline.select("SELECT id::text FROM fact_sale WHERE _deleted_at IS NOT NULL") == [("3.50",)]
    assert await pipeline.select("SELECT number::text FROM dim_flag WHERE _deleted_at IS NOT NULL") == [("20",)]
    await require_equal(pipeline)


async def test_a_row_with_a_numeric_key_is_repaired_and_traced(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(SCHEMA)
    pipeline = empty.reading(CONTRACT)
    await pipeline.run()
    await pipeline.select("UPDATE fact_sale SET label = 'wrong' WHERE id = 3.5")
    await pipeline.select("DELETE FROM fact_sale WHERE id = 2")
    verdict = await pipeline.verify()
    assert [difference.key for table in verdict.tables for difference in table.differences] == [("2",), ("3.5",)]
    (wish,) = await plan_repair(pipeline.system, verdict)
    await pipeline.run(reread=wish.reread)
    await require_equal(pipeline)
    await owner.execute("DELETE FROM sale WHERE id = 2")
    await pipeline.run(compare_keys=True)
    assert (await life(pipeline, "fact_sale", "2.0")).tombstone is not None
    assert (await life(pipeline, "dim_flag", "true", "7")).at_source is AtSource.NOWHERE


async def test_a_key_that_does_not_fit_its_type_is_in_quarantine_by_its_text(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    await owner.execute("CREATE TABLE t (id numeric PRIMARY KEY); INSERT INTO t VALUES (1.00), (2.555), ('NaN'), (1e15)")
    pipeline = empty.reading(of(source_table("t", "id", id=numeric(12, 2))))
    await pipeline.run()
    assert await pipeline.select("SELECT id::text FROM dim_t") == [("1.00",)]
    assert await keys_in_quarantine(pipeline) == {"dim_t": [("1000000000000000",), ("2.555",), ("NaN",)]}
    await require_equal(pipeline, quarantined=3)
    await owner.execute("DELETE FROM t WHERE id = 1")
    await pipeline.run(compare_keys=True)
    await require_equal(pipeline, quarantined=3)


async def test_an_integer_may_refer_to_a_numeric_key_in_which_it_has_no_room(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    await owner.execute(
        """
        CREATE TABLE small (id numeric(3) PRIMARY KEY, label text NOT NULL);
        CREATE TABLE t (id bigint PRIMARY KEY, small bigint);
        INSERT INTO small VALUES (1, 'one');
        INSERT INTO t VALUES (1, 1), (2, 9223372036854775807);
        """
    )
    small, t = source_table("small", "id", id=numeric(3, 0), label=TEXT), source_table("t", "id", id=BIGINT, small=BIGINT)
    star = Dimension(
        "dim_t",
        ("id",),
        (Column("id", BIGINT, FromSource("id")), Column("label", TEXT, FromLookup("small", "label"), nullable=True)),
        "t",
        (Lookup("small", on=("small",)),),
    )
    pipeline = empty.reading(of(small, t, star=(star,)))
    await pipeline.run()
    assert await pipeline.select("SELECT id, label FROM dim_t ORDER BY id") == [(1, "one"), (2, None)]
    await require_equal(pipeline)
