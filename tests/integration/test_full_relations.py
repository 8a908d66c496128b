"""What is read in full by every run: views, foreign tables, and tables whose rows have no key."""

from __future__ import annotations

import random
import re

import asyncpg
import pytest
from structlog.testing import capture_logs

from contracts.contract import Contract
from contracts.yaml_text import read_contract
from infra.local.databases import READER, SOURCE_OWNER, execute
from shared.catalog import SourceMismatchError
from tests.fixtures.pipeline import Pipeline
from tests.fixtures.plans import plan_for, problems_of
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.tracing import life
from tests.integration.plain_star import require_equal

SCHEMA = """
CREATE TABLE sale (sale_id integer PRIMARY KEY, city text, amount numeric(8, 2));
CREATE VIEW sale_of_city AS SELECT city, sum(amount) AS total, count(*) AS sales FROM sale GROUP BY city;
CREATE MATERIALIZED VIEW best AS SELECT city, max(amount) AS amount FROM sale WHERE city IS NOT NULL GROUP BY city;
CREATE TABLE visit (city text, at timestamptz, note jsonb);
INSERT INTO sale SELECT n, chr(64 + n % 5), n FROM generate_series(1, 20) AS n;
REFRESH MATERIALIZED VIEW best;
INSERT INTO visit VALUES ('A', '2026-01-01 10:00+00', '{"a": 1}'), ('A', '2026-01-01 10:00+00', '{"a": 1}'), (NULL, NULL, NULL),
    (NULL, NULL, NULL), ('', '2026-01-01 10:00+00', NULL), ('B', NULL, NULL);
"""
TEXT = """
name: full
star:
  dim_date: {calendar: {d: date}}
  dim_city:
    dimension: sale_of_city
    columns: {city: , total: , sales: , best: best.amount}
    joins: {best: {table: best, on: city}}
  fact_visit:
    fact: visit
    columns:
      visit:
      city:
      total: city.total
      on: {date_of: at, references: dim_date}
      note:
    joins: {city: {table: sale_of_city, on: city}}
source:
  tables:
    sale_of_city: {full: true, key: city, columns: {city: text, total: numeric, sales: bigint}}
    best: {full: true, key: city, columns: {city: text, amount: numeric}}
    visit: {row_id: visit, columns: {city: text, at: timestamptz, note: jsonb}}
"""


def contract(text: str = TEXT) -> Contract:
    return read_contract(text, "full.yaml")


@pytest.fixture
async def shop(owner: asyncpg.Connection, empty: Pipeline) -> tuple[asyncpg.Connection, Pipeline]:
    await owner.execute(SCHEMA)
    return owner, empty.reading(contract())


CITIES = "SELECT city, total::text, best::text FROM dim_city WHERE _deleted_at IS NULL ORDER BY city"
VISITS = """
SELECT count(*), city, total::text, "on"::text, note::text FROM fact_visit_current
GROUP BY 2, 3, 4, 5 ORDER BY 2, 3
"""


async def test_views_and_rows_without_a_key_are_followed(shop: tuple[asyncpg.Connection, Pipeline]) -> None:
    owner, pipeline = shop
    await pipeline.run()
    assert await pipeline.select(CITIES) == [
        ("@", "50.00", "20.00"),
        ("A", "34.00", "16.00"),
        ("B", "38.00", "17.00"),
        ("C", "42.00", "18.00"),
        ("D", "46.00", "19.00"),
    ]
    same = [(1, "B", "38.00", None, None), (2, None, None, None, None)]
    first = (1, "", None, "2026-01-01", None)
    assert await pipeline.select(VISITS) == [first, (2, "A", "34.00", "2026-01-01", '{"a": 1}'), *same]
    await require_equal(pipeline)
    await owner.execute(
        """
        UPDATE sale SET amount = 100 WHERE sale_id = 1; DELETE FROM sale WHERE city = '@';
        INSERT INTO visit VALUES ('C', '2026-01-02 00:00+00', NULL);
        DELETE FROM visit WHERE ctid = (SELECT min(ctid) FROM visit WHERE city = 'A');
        """
    )
    with capture_logs() as logs:
        await pipeline.run()
    (ended, *_) = [entry for entry in logs if entry["event"] == "run_completed"]
    assert ended["read_in_full"] == {"sale_of_city": 4, "best": 5, "visit": 6}
    assert [entry for entry in logs if entry["event"] == "row_versions_unreadable"] == []
    assert await pipeline.select(CITIES) == [
        ("A", "133.00", "16.00"),
        ("B", "38.00", "17.00"),
        ("C", "42.00", "18.00"),
        ("D", "46.00", "19.00"),
    ]
    assert await pipeline.select(VISITS) == [
        first,
        (1, "A", "133.00", "2026-01-01", '{"a": 1}'),
        same[0],
        (1, "C", "42.00", "2026-01-02", None),
        same[1],
    ]
    await require_equal(pipeline)


async def test_an_unseen_difference_is_found_and_a_row_without_a_key_is_traced(
    shop: tuple[asyncpg.Connection, Pipeline],
) -> None:
    _, pipeline = shop
    await pipeline.run()
    await pipeline.select("UPDATE fact_visit SET note = '{}' WHERE city = ''")
    verdict = await pipeline.verify()
    assert verdict.in_flight + verdict.stuck == 1, "not equal without a word"
    await pipeline.run()
    await require_equal(pipeline)
    ((visit,),) = await pipeline.select("SELECT visit::text FROM fact_visit WHERE city = ''")
    assert (await life(pipeline, "fact_visit", visit)).rows[0].run > 0


async def test_rows_without_a_key_of_which_no_column_is_read_are_counted(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(SCHEMA)
    star, source = (
        "star: {f: {fact: visit, columns: {visit: }}}",
        "source: {tables: {visit: {row_id: visit, columns: {city: text}}}}",
    )
    pipeline = empty.reading(contract(f"name: counted\n{star}\n{source}\n"))
    await pipeline.run()
    await owner.execute("DELETE FROM visit WHERE city = 'A'")
    await pipeline.run(compare_keys=True)
    assert await pipeline.select("SELECT count(*) FROM f_current") == [(4,)]
    await require_equal(pipeline)


async def test_pages_of_what_is_read_in_full_are_whole(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(SCHEMA)
    await owner.execute(
        "INSERT INTO visit SELECT 'A', timestamptz '2026-01-01' + n % 7 * interval '1 day' FROM generate_series(1, 100) AS n"
    )
    pipeline = empty.reading(contract()).cut(7)
    await pipeline.run()
    assert await pipeline.select("SELECT count(*), count(DISTINCT visit) FROM fact_visit") == [(106, 106)]
    await require_equal(pipeline)


REMEDY = (
    "declare columns that are never NULL and differ in every row, or, for a fact without version, write `row_id: row_id` "
    "instead of `key`"
)
REPEATED = (
    "CREATE OR REPLACE VIEW sale_of_city AS SELECT city, sum(amount) AS total, count(*) AS sales FROM sale GROUP BY sale_id"
)


@pytest.mark.parametrize(
    ("change", "what"),
    [("INSERT INTO sale VALUES (21, NULL, 1)", "a row has NULL in"), (REPEATED, "several rows have one value of")],
)
async def test_a_declared_key_that_is_none_stops_the_run(
    shop: tuple[asyncpg.Connection, Pipeline], postgres_cluster: TestCluster, source_database: str, change: str, what: str
) -> None:
    owner, pipeline = shop
    sentence = f"'sale_of_city': {what} its declared key (city); {REMEDY}"
    url = postgres_cluster.url(source_database, READER)
    assert await problems_of(pipeline.contract, source=url) == []
    await pipeline.run()
    await owner.execute(change)
    with pytest.raises(SourceMismatchError, match=f"^{re.escape(sentence)}$"):
        await pipeline.ingest()
    assert await problems_of(pipeline.contract, source=url) == [sentence]


async def test_a_plan_says_what_is_read_in_full_and_what_that_costs(
    shop: tuple[asyncpg.Connection, Pipeline], postgres_cluster: TestCluster, source_database: str
) -> None:
    owner, pipeline = shop
    await owner.execute("ANALYZE")
    plan = await plan_for(pipeline.contract, source=postgres_cluster.url(source_database, READER))
    found = {read.table: (read.why_in_full, read.in_full_every_run, read.rows) for read in plan.reads}
    assert found == {
        "sale_of_city": ("a view", True, 5),
        "best": ("a materialized view", True, 5),
        "visit": ("no key", True, 6),
    }
    without = contract(
        TEXT.replace("full: true, key: city, columns: {city: text, total", "key: city, columns: {city: text, total")
    )
    (problem,) = await problems_of(without, source=postgres_cluster.url(source_database, READER))
    assert problem.startswith("'sale_of_city' is a view: no transaction id of its rows shows what changed; write `full: true`")


async def test_a_table_whose_key_no_index_guarantees_may_be_read_in_full(owner: asyncpg.Connection, empty: Pipeline) -> None:
    """Such as a unique index over columns that may be NULL, a parent of tables that inherit, or a foreign table."""
    await owner.execute(
        """
        CREATE TABLE vehicle (id integer, name text, UNIQUE (id)); CREATE TABLE truck (load integer) INHERITS (vehicle);
        INSERT INTO vehicle VALUES (1, 'car'); INSERT INTO truck VALUES (2, 'lorry');
        """
    )
    text = """
name: full
star: {dim_vehicle: {dimension: vehicle, columns: {id: , name: }}}
source: {tables: {vehicle: {full: true, key: id, columns: {id: integer, name: text}}}}
"""
    pipeline = empty.reading(contract(text))
    await pipeline.run()
    assert await pipeline.select("SELECT id, name FROM dim_vehicle ORDER BY id") == [(1, "car"), (2, "lorry")]
    await owner.execute("DELETE FROM truck")
    await pipeline.run()
    assert await pipeline.select("SELECT id FROM dim_vehicle WHERE _deleted_at IS NULL") == [(1,)]
    await require_equal(pipeline)


FILTERED = TEXT.replace(
    "    dimension: sale_of_city\n", "    dimension: sale_of_city\n    where: total > 40\n    history: true\n"
).replace("    fact: visit\n", "    fact: visit\n    where: city <> 'B'\n")


async def test_filters_and_history_hold_for_what_is_read_in_full(owner: asyncpg.Connection, empty: Pipeline) -> None:
    await owner.execute(SCHEMA)
    pipeline = empty.reading(contract(FILTERED.replace("total: numeric", "total: 'numeric(12,2)'")))
    await pipeline.run()
    cities = "SELECT city, total::text FROM dim_city WHERE _deleted_at IS NULL ORDER BY city"
    assert await pipeline.select(cities) == [("@", "50.00"), ("C", "42.00"), ("D", "46.00")]
    assert await pipeline.select("SELECT city, count(*) FROM fact_visit_current GROUP BY 1 ORDER BY 1") == [("", 1), ("A", 2)]
    await require_equal(pipeline)
    await owner.execute("UPDATE sale SET amount = 0 WHERE city = 'C'; UPDATE sale SET amount = 99 WHERE sale_id = 1")
    await pipeline.run()
    assert await pipeline.select(cities) == [("@", "50.00"), ("A", "132.00"), ("D", "46.00")]
    await require_equal(pipeline)
    await owner.execute("UPDATE sale SET amount = 50 WHERE sale_id = 3; UPDATE visit SET city = 'A' WHERE city = 'B'")
    await pipeline.run()
    assert await pipeline.select(cities) == [("@", "50.00"), ("A", "132.00"), ("C", "50.00"), ("D", "46.00")]
    history = "SELECT total::text, version, is_current FROM dim_city_history WHERE city = 'C' ORDER BY valid_from"
    assert await pipeline.select(history) == [("42.00", 1, False), ("50.00", 2, True)]
    await require_equal(pipeline)


async def test_batches_of_what_is_read_in_full_may_arrive_in_any_order_and_number(
    owner: asyncpg.Connection, empty: Pipeline
) -> None:
    await owner.execute(SCHEMA)
    pipeline, chance = empty.reading(contract()).cut(3), random.Random(15)  # noqa: S311 (a shuffle)
    changes = (
        "SELECT 1",
        "DELETE FROM visit WHERE ctid = (SELECT min(ctid) FROM visit WHERE city = 'A'); UPDATE sale SET amount = 100",
        "INSERT INTO visit VALUES (NULL, NULL, NULL), ('A', '2026-01-01 10:00+00', NULL); DELETE FROM sale WHERE city = 'C'",
        "INSERT INTO visit VALUES ('A', '2026-01-01 10:00+00', '{\"a\": 1}'); INSERT INTO sale VALUES (30, 'C', 3)",
    )
    batches = []
    for change in changes:
        await owner.execute(change)
        batches += await pipeline.read(compare_keys=True)
    shuffled = [*batches, *chance.sample(batches, len(batches) // 2)]
    chance.shuffle(shuffled)
    await pipeline.settle(await pipeline.load(*shuffled))
    await pipeline.run(compare_keys=True)
    await require_equal(pipeline)


async def test_a_foreign_table_is_followed(
    postgres_cluster: TestCluster, source_database: str, owner: asyncpg.Connection, empty: Pipeline
) -> None:
    server = f"host '127.0.0.1', port '{postgres_cluster.port}', dbname '{source_database}'"
    mapping = f"user '{READER}', password '{postgres_cluster.password(READER)}'"
    execute(
        postgres_cluster.url(source_database),
        "CREATE EXTENSION postgres_fdw",
        f"CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({server})",
        f"GRANT USAGE ON FOREIGN SERVER elsewhere TO {SOURCE_OWNER}",
        f"CREATE USER MAPPING FOR {READER} SERVER elsewhere OPTIONS ({mapping})",
    )
    await owner.execute(
        """
        CREATE TABLE city (id integer PRIMARY KEY, name text); INSERT INTO city VALUES (1, 'York'), (2, 'Bath');
        CREATE FOREIGN TABLE far (id integer, name text) SERVER elsewhere OPTIONS (table_name 'city');
        """
    )
    text = """
name: far
star: {dim_city: {dimension: far, columns: {id: , name: }}}
source: {tables: {far: {full: true, key: id, columns: {id: integer, name: text}}}}
"""
    pipeline = empty.reading(contract(text))
    await pipeline.run()
    await owner.execute("DELETE FROM city WHERE id = 2; UPDATE city SET name = 'Leeds'")
    await pipeline.run()
    assert await pipeline.select("SELECT id, name FROM dim_city WHERE _deleted_at IS NULL") == [(1, "Leeds")]
    await require_equal(pipeline)
