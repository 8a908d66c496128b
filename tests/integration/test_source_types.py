"""Types as databases have them: domains, extensions, numbers without bounds, moments in keys."""

from __future__ import annotations

import re

import asyncpg
import pytest

from contracts.column_types import BIGINT, BOOLEAN, DATE, INTEGER, JSONB, TEXT, TIME, TIMESTAMP, TIMESTAMPTZ, numeric, verbatim
from contracts.messages import Mode
from contracts.origins import DateOf, FromLookup, FromSource, TimeOf
from contracts.tables import Column, Fact, Lookup
from infra.local.databases import LOADER, READER
from services.operator.proof.history import check_history
from services.operator.proof.repair import plan_repair
from shared.star_schema.evolution import SchemaNotReadyError
from tests.fixtures.pipeline import Pipeline, row_count
from tests.fixtures.plans import problems_of
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.tracing import life, printed
from tests.integration.plain_star import DIM_DATE, dimension_of, keys_in_quarantine, of, require_equal, source_table


async def test_a_domain_is_read_as_its_base_type(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(
        """
        CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
        CREATE DOMAIN email AS text;
        CREATE DOMAIN price AS numeric(8, 2);
        CREATE DOMAIN net_price AS price;
        CREATE DOMAIN flag AS boolean;
        CREATE DOMAIN settings AS jsonb;
        CREATE DOMAIN moment AS timestamptz;
        CREATE TABLE t (id posint PRIMARY KEY, mail email, net net_price, ok flag, has settings, at moment);
        INSERT INTO t VALUES (1, 'a@b', 12.5, true, '{"a": 1}', '2026-01-01 00:00+00'), (2, NULL, NULL, NULL, NULL, NULL);
        """
    )
    kinds = {"net": numeric(10, 2), "ok": BOOLEAN, "has": JSONB, "at": TIMESTAMPTZ}
    pipeline = empty.reading(of(source_table("t", "id", id=INTEGER, mail=TEXT, **kinds)))
    await pipeline.run()
    found = await pipeline.select("SELECT id, mail, net::text, ok, has::text, at::text FROM dim_t ORDER BY id")
    assert found == [(1, "a@b", "12.50", True, '{"a": 1}', "2026-01-01 00:00:00+00"), (2, *[None] * 5)]
    await require_equal(pipeline)
    await owner.execute("ALTER DOMAIN posint ADD CHECK (VALUE < 100); ALTER DOMAIN email SET DEFAULT 'x'")
    assert row_count(await pipeline.ingest()) == 0
    await owner.execute("DELETE FROM t WHERE id = 2")
    await pipeline.run(compare_keys=True)
    await require_equal(pipeline)


async def test_types_of_extensions_and_other_schemas_are_transferred(
    postgres_cluster: TestCluster, warehouse_database: str, owner: asyncpg.Connection, empty: Pipeline
) -> None:
    types = """
        CREATE SCHEMA extensions;
        CREATE EXTENSION citext SCHEMA extensions;
        CREATE TYPE "Role" AS ENUM ('A', 'b c');
    """
    await owner.execute(types)
    await owner.execute(
        f"""
        GRANT USAGE ON SCHEMA extensions TO {READER};
        CREATE TYPE extensions.pair AS (a int, b text);
        CREATE TABLE t (
            id int PRIMARY KEY, mail extensions.citext, roles "Role"[], code bpchar, other extensions.citext, of extensions.pair
        );
        INSERT INTO t VALUES (1, 'A@b', '{{A,"b c"}}', 'x', 'C@d', '(1,"x y")'), (2, NULL, NULL, NULL, NULL, NULL);
        """
    )
    mail, roles = verbatim("extensions.citext"), verbatim('"Role"[]')
    pipeline = empty.reading(of(source_table("t", "id", id=INTEGER, mail=mail, roles=roles, code=TEXT, other=TEXT, of=TEXT)))
    lacks = re.escape(
        """takes verbatim: extensions.citext (dim_t.mail), "Role"[] (dim_t.roles); create them there, or declare"""
    )
    url = postgres_cluster.url(warehouse_database, LOADER)
    (problem,) = await problems_of(pipeline.contract, warehouse=url)
    assert re.search(lacks, problem)
    with pytest.raises(SchemaNotReadyError, match=lacks):
        await pipeline.run()
    async with empty.warehouse.connection() as warehouse:
        await warehouse.execute(types)
    assert await problems_of(pipeline.contract, warehouse=url) == []
    await pipeline.run(Mode.FULL)
    found = await pipeline.select("SELECT id, mail::text, roles::text, code, other, of FROM dim_t ORDER BY id")
    assert found == [(1, "A@b", '{A,"b c"}', "x", "C@d", '(1,"x y")'), (2, *[None] * 5)]
    await require_equal(pipeline)
    await owner.execute("""ALTER TYPE "Role" RENAME VALUE 'b c' TO 'd'""")  # gives no row another version
    async with pipeline.warehouse.connection() as warehouse:
        await warehouse.execute("""ALTER TYPE "Role" ADD VALUE 'd'""")
    await pipeline.run()
    assert await pipeline.select("SELECT roles::text FROM dim_t WHERE id = 1") == [("{A,d}",)]
    await require_equal(pipeline)


async def test_an_unbounded_number_is_accepted_where_it_fits(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(
        """
        CREATE TABLE t (id int PRIMARY KEY, price numeric, total numeric(20, 2), any_number numeric(5, 1));
        INSERT INTO t VALUES (1, 9.99, 123456789012345678.90, 1.0), (2, 9.990000, NULL, NULL), (3, 9999999999.99, 1, 1),
            (4, -0.5, NULL, NULL), (5, NULL, NULL, NULL),
            (11, 9.999, 1, 1), (12, 10000000000, 1, 1), (13, 'NaN', 1, 1), (14, 'Infinity', 1, 1), (15, 1e100, 1, 1);
        """
    )
    total, any_number = verbatim("numeric(20,2)"), verbatim("numeric")
    table = source_table("t", "id", id=INTEGER, price=numeric(12, 2), total=total, any_number=any_number)
    pipeline = empty.reading(of(table))
    await pipeline.run()
    found = await pipeline.select("SELECT id, price::text, total::text, any_number::text FROM dim_t ORDER BY id")
    assert found == [
        (1, "9.99", "123456789012345678.90", "1.0"),
        (2, "9.99", None, None),
        (3, "9999999999.99", "1.00", "1.0"),
        (4, "-0.50", None, None),
        (5, None, None, None),
    ]
    assert await keys_in_quarantine(pipeline) == {"dim_t": [(11,), (12,), (13,), (14,), (15,)]}
    await require_equal(pipeline, quarantined=5)
    await owner.execute("UPDATE t SET price = 1 WHERE id > 10")
    await pipeline.run()
    await require_equal(pipeline)


EVENT = source_table("event", ("id", "at"), id=BIGINT, at=TIMESTAMPTZ, v=INTEGER)
DAY = source_table("day", "day", day=DATE, name=TEXT)
VISIT = source_table("visit", "id", id=INTEGER, on=DATE)
BY_TIME = of(
    EVENT,
    DAY,
    VISIT,
    star=(
        dimension_of(EVENT),
        dimension_of(DAY),
        dimension_of(
            VISIT, Column("name", TEXT, FromLookup("day", "name"), nullable=True), lookups=(Lookup("day", on=("on",)),)
        ),
    ),
)


async def test_a_key_may_be_a_timestamp(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(
        """
        CREATE TABLE event (id bigint, at timestamptz NOT NULL, v int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE event_2026_01 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
        CREATE TABLE event_rest PARTITION OF event DEFAULT;
        CREATE TABLE day (day date PRIMARY KEY, name text);
        CREATE TABLE visit (id int PRIMARY KEY, "on" date REFERENCES day);
        INSERT INTO event VALUES (1, '2026-01-05 00:00:00.000001+00', 1), (2, '2026-03-05', 1),
            (2, '2026-03-05 10:00:00.5+00', 2), (3, '0044-03-15 BC', 1), (3, '-infinity', 1), (3, 'infinity', 1),
            (3, '9999-12-31 23:59:59.999999+00', 9);
        INSERT INTO day VALUES ('2026-01-05', 'Mon'), ('0001-01-01', 'first'), ('infinity', 'never'), ('0044-03-15 BC', 'Ides');
        INSERT INTO visit VALUES (1, '2026-01-05'), (2, '0001-01-01'), (3, NULL);
        """
    )
    pipeline = empty.reading(BY_TIME).cut(1)
    await pipeline.run()
    found = await pipeline.select("SELECT id, at::text FROM dim_event ORDER BY id, at")
    assert found == [
        (1, "2026-01-05 00:00:00.000001+00"),
        (2, "2026-03-05 00:00:00+00"),
        (2, "2026-03-05 10:00:00.5+00"),
        (3, "9999-12-31 23:59:59.999999+00"),
    ]
    assert await pipeline.select("SELECT id, name FROM dim_visit ORDER BY id") == [(1, "Mon"), (2, "first"), (3, None)]
    refused = {"dim_event": [(3, "-infinity"), (3, "0044-03-15 00:00:00+00 BC"), (3, "infinity")]}
    assert await keys_in_quarantine(pipeline) == refused | {"dim_day": [("0044-03-15 BC",), ("infinity",)]}
    await require_equal(pipeline, quarantined=5)
    await owner.execute(
        "DELETE FROM event WHERE v = 2; DELETE FROM event WHERE at = 'infinity'; DELETE FROM day WHERE name = 'x'"
    )
    await owner.execute("UPDATE event SET v = 7 WHERE id = 1")
    await pipeline.run(compare_keys=True)
    dead = await pipeline.select("SELECT id, at::text FROM dim_event WHERE _deleted_at IS NOT NULL")
    assert dead == [(2, "2026-03-05 10:00:00.5+00")]
    await require_equal(pipeline, quarantined=4)


async def test_a_version_that_is_null_before_the_first_update_uses_its_fallback(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    await owner.execute(
        """
        CREATE TABLE t (id int PRIMARY KEY, v int, created_at timestamptz NOT NULL, updated_at timestamptz);
        INSERT INTO t VALUES (1, 1, '2026-01-01', NULL), (2, 1, '2026-01-01', '2026-01-02 10:00:00.000001+00');
        """
    )
    table = source_table("t", "id", id=INTEGER, v=INTEGER, created_at=TIMESTAMPTZ, updated_at=TIMESTAMPTZ)
    fact = Fact(
        "fact_t",
        ("id",),
        (
            Column("id", INTEGER, FromSource("id")),
            Column("on", DATE, DateOf("updated_at", absent="created_at"), references="dim_date"),
            Column("at", TIME, TimeOf("updated_at", absent="created_at")),
        ),
        "t",
        version=("on", "at"),
    )
    pipeline = empty.reading(of(table, star=(DIM_DATE, fact)))
    await pipeline.run()
    found = await pipeline.select('SELECT id, "on"::text, at::text FROM fact_t ORDER BY id')
    assert found == [(1, "2026-01-01", "00:00:00"), (2, "2026-01-02", "10:00:00.000001")]
    await require_equal(pipeline)


async def test_columns_and_tables_may_have_the_names_of_starlift_s_own(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(
        """
        CREATE TABLE t (at date PRIMARY KEY, _defect text, _key text, _run int, xid int, b int);
        CREATE TABLE b (b int PRIMARY KEY, t text, p text, d text);
        INSERT INTO b VALUES (1, 'x', 'y', 'z');
        INSERT INTO t VALUES ('2026-01-01', 'w', 'k', 9, 9, 1), ('infinity', 'w', NULL, NULL, NULL, NULL);
        """
    )
    own = {"_defect": TEXT, "_key": TEXT, "_run": INTEGER}
    t = source_table("t", "at", at=DATE, **own, xid=INTEGER, b=INTEGER)
    b = source_table("b", "b", b=INTEGER, t=TEXT, p=TEXT, d=TEXT)
    looked_up = tuple(Column(f"b_{name}", b.column(name).type, FromLookup("b", name), nullable=True) for name in "btpd")
    pipeline = empty.reading(
        of(t, b, star=(DIM_DATE, dimension_of(b), dimension_of(t, *looked_up, lookups=(Lookup("b", on=("b",)),))))
    )
    await pipeline.run()
    found = await pipeline.select("SELECT at::text, defect, key, run, b_b, b_t, b_p, b_d FROM dim_t")
    assert found == [("2026-01-01", "w", "k", 9, 1, "x", "y", "z")]
    assert await keys_in_quarantine(pipeline) == {"dim_t": [("infinity",)]}
    await require_equal(pipeline, quarantined=1)


async def test_a_row_with_a_timestamp_key_is_found_repaired_and_traced(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(
        """
        CREATE TABLE reading (at timestamp PRIMARY KEY, v int, seen timestamptz NOT NULL);
        INSERT INTO reading
        SELECT timestamp '2026-03-05 10:00:00.5' + n * interval '1 hour', n, now() FROM generate_series(0, 9) AS n;
        """
    )
    reading = source_table("reading", "at", at=TIMESTAMP, v=INTEGER, seen=TIMESTAMPTZ)
    fact = Fact(
        "fact_reading",
        ("at",),
        (
            Column("at", TIMESTAMP, FromSource("at")),
            Column("v", INTEGER, FromSource("v")),
            Column("on", DATE, DateOf("at"), references="dim_date"),
            Column("seen", TIMESTAMPTZ, FromSource("seen")),
        ),
        "reading",
        version=("seen",),
    )
    pipeline = empty.reading(of(reading, star=(DIM_DATE, fact)))
    await pipeline.run()
    await pipeline.select("UPDATE fact_reading SET v = v + 1 WHERE v = 0")
    await pipeline.select("DELETE FROM fact_reading WHERE v = 9")
    verdict = await pipeline.verify()
    first, last = "2026-03-05 10:00:00.5", "2026-03-05 19:00:00.5"
    assert [difference.key for table in verdict.tables for difference in table.differences] == [(first,), (last,)]
    (wish,) = await plan_repair(pipeline.system, verdict)
    await pipeline.run(reread=wish.reread)
    await require_equal(pipeline)
    await owner.execute("DELETE FROM reading WHERE v = 9; UPDATE reading SET v = NULL, seen = now() WHERE v = 0")
    await pipeline.run(compare_keys=True)
    await require_equal(pipeline, quarantined=1)
    assert (await check_history(pipeline.system)).facts[0].problems == ()
    assert "2026-03-05 19:00:00.5" in await printed(pipeline, "fact_reading", "2026-03-05T19:00:00.500")
    assert (await life(pipeline, "fact_reading", last)).tombstone is not None
    assert (await life(pipeline, "fact_reading", first)).quarantine
