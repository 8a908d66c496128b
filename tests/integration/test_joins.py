"""A star with every kind of join stays equal to its source, whatever changes on the paths and in whatever order it arrives."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import asyncpg
import pytest

from contracts.column_types import BIGINT, DATE, INTEGER, TEXT, UUID, ColumnType
from contracts.messages import BatchRemodelled
from contracts.origins import FromLookup
from contracts.proofs import Outcome
from contracts.tables import Column, Lookup
from services.ingestion.source import BatchLimits
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Mismatch
from shared.sql import literal, quoted
from tests.fixtures.joined_contract import BY_HAND, JOINED, SCHEMA
from tests.fixtures.pipeline import Pipeline, tables_read
from tests.fixtures.tracing import life
from tests.integration.plain_star import dimension_of, keys_in_quarantine, of, require_as_by_hand, require_equal, source_table

ROWS = """
INSERT INTO country VALUES (1, 'England', 'GBP'), (2, 'France', 'EUR'), (3, 'Japan', 'JPY');
INSERT INTO city VALUES (1, 'L', 'Leeds'), (1, 'Y', 'York'), (2, 'L', 'Lyon'), (3, 'K', NULL);
INSERT INTO customer VALUES (1, 1, 'L  ', 2, 'L'), (2, 1, 'L', NULL, NULL), (3, 3, 'K', 1, NULL), (4, 2, 'Y', 9, 'L');
INSERT INTO employee VALUES (1, 'Ann', NULL), (2, 'Bob', 1), (3, 'Cy', 2), (4, 'Di', 4), (5, 'Ed', 9);
INSERT INTO "order header" VALUES
    (1, 1, 3, '2026-01-02 03:04:05.000006', NULL, '2026-02-01'), (2, 4, 9, '2026-01-03', '2026-01-04 01:00', NULL),
    (3, NULL, NULL, '0001-01-01', '9999-12-31 23:59:59.999999', '2026-02-02');
INSERT INTO line VALUES (1, 1, 5), (1, 2, 6), (2, 1, 7), (3, 1, 8), (4, 1, 9);
"""


@pytest.fixture
async def joined(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(SCHEMA)
    return empty.reading(JOINED)


async def test_every_kind_of_join_gives_the_rows_of_a_hand_written_select(owner: asyncpg.Connection, joined: Pipeline) -> None:
    await owner.execute(ROWS)
    await joined.run()
    customers = "SELECT bill_city, ship_city, ship_country, bill_currency FROM dim_customer ORDER BY customer_id"
    assert await joined.select(customers) == [
        ("Leeds", "Lyon", "France", "Pound Sterling"),
        ("Leeds", "(none)", "(none)", "Pound Sterling"),
        (None, "(none)", "(none)", "Yen"),
        (None, "(none)", "(none)", None),
    ]
    assert await joined.select("SELECT manager, director FROM dim_employee WHERE _run > 0 ORDER BY employee_id") == [
        ("(none)", None),
        ("Ann", None),
        ("Bob", "Ann"),
        ("Di", "Di"),
        ("(none)", None),
    ]
    await require_as_by_hand(owner, joined, BY_HAND)
    await require_equal(joined)


async def test_a_change_deep_in_a_path_makes_only_the_rows_leading_to_it_be_read(
    owner: asyncpg.Connection, joined: Pipeline
) -> None:
    await owner.execute(ROWS)
    await joined.run()
    await owner.execute("UPDATE country SET name = 'UK' WHERE country_id = 1")
    verdict = await joined.verify()
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 5)  # a country, two customers, two lines
    assert tables_read(await joined.ingest()) == {"country": 1, "customer": 2, "line": 2}
    await owner.execute("UPDATE employee SET name = 'Anna' WHERE employee_id = 1")
    assert tables_read(await joined.ingest()) == {"employee": 3}


async def test_a_lost_row_in_the_middle_of_a_path_is_found_by_a_comparison_of_keys(
    owner: asyncpg.Connection, joined: Pipeline
) -> None:
    await owner.execute(ROWS)
    await joined.run()
    await owner.execute("DELETE FROM customer WHERE customer_id = 1; DELETE FROM employee WHERE employee_id = 1")
    verdict = await joined.verify()
    assert verdict.outcome is Outcome.EQUAL
    assert verdict.in_flight > 0
    await joined.run(compare_keys=True)
    await require_as_by_hand(owner, joined, BY_HAND)
    await require_equal(joined)
    assert await joined.select("SELECT country, customer_id FROM fact_line_current WHERE order_id = 1 AND line_no = 1") == [
        ("(unknown)", 1)
    ]


IDS, CITIES = (1, 2, 3, 4, None), ("L", "L  ", "Y", "K", None)
NAMES = ("A", "B", "", "a 'quoted' name", None)
MOMENTS = ("2026-01-02 03:04:05.000006", "2026-01-03", "0001-01-01", "9999-12-31 23:59:59.999999", None)
VALUES: dict[str, tuple[Any, ...]] = {  # by column
    "name": NAMES,
    "currency": ("GBP", "EUR", "JPY", "XQX", None),
    **dict.fromkeys(("code", "bill_city", "ship_city"), CITIES),
    **dict.fromkeys(("ordered_at", "shipped_at"), MOMENTS),
    "due": ("2026-02-01", "1999-12-31", "soon", None),
    "line_no": (1, 2, None),
}


def random_change(random: Random) -> str:
    """A statement that inserts, changes or deletes a row of any table; what it refers to may not exist."""
    table = random.choice(JOINED.source_tables)
    row = {
        column.name: random.choice([one for one in VALUES.get(column.name, IDS) if one is not None or column.nullable])
        for column in table.columns
    }
    names, key = ", ".join(row), ", ".join(table.key)
    values = {name: "NULL" if value is None else literal(str(value)) for name, value in row.items()}
    if random.random() < 0.25:
        return f"DELETE FROM {quoted(table.name)} WHERE ({key}) = ({', '.join(values[name] for name in table.key)})"
    changed = ", ".join(f"{name} = excluded.{name}" for name in row)
    inserted = f"INSERT INTO {quoted(table.name)} ({names}) VALUES ({', '.join(values.values())})"
    return f"{inserted} ON CONFLICT ({key}) DO UPDATE SET {changed}"


@pytest.mark.parametrize("seed", range(4))
async def test_any_changes_on_the_paths_in_any_order_end_equal(owner: asyncpg.Connection, joined: Pipeline, seed: int) -> None:
    random, messages = Random(seed), list[BatchRemodelled]()  # noqa: S311 (repeatable on purpose)
    await owner.execute(ROWS)
    pipeline = joined.cut(random.choice([2, 100]))
    for _ in range(8):
        messages += await pipeline.read(compare_keys=random.random() < 0.3)
        for _ in range(random.randint(1, 8)):
            await owner.execute(random_change(random))
    messages += await pipeline.read(compare_keys=True)
    random.shuffle(messages)
    await pipeline.settle(await pipeline.load(*messages, *random.choices(messages, k=3)))
    verdict = await pipeline.verify()
    assert [difference for table in verdict.tables for difference in table.differences] == []
    assert (verdict.outcome, verdict.in_flight) == (Outcome.EQUAL, 0)
    await require_as_by_hand(owner, pipeline, BY_HAND)


async def test_a_corrupted_joined_value_is_found_and_repaired(owner: asyncpg.Connection, joined: Pipeline) -> None:
    await owner.execute(ROWS)
    await joined.run()
    for table in (one for one in JOINED.remodelled_tables if one.lookups):
        key = " AND ".join(f"{name} = 1" for name in table.key)
        for column in (one for one in table.columns if getattr(one.origin, "lookup", None) is not None):
            name = quoted(column.name)
            other = "'corrupted'" if column.type.is_text else "NULL"
            await joined.select(f"UPDATE {table.name} SET {name} = {other} WHERE {key}")
            verdict = await joined.verify()
            found = [(one.kind, one.key, list(one.columns)) for of in verdict.tables for one in of.differences]
            assert found == [(Mismatch.DIFFERENT, (1,) * len(table.key), [column.name])]
            (wish,) = await plan_repair(joined.system, verdict)
            await joined.run(reread=wish.reread)
            await require_equal(joined)


async def test_a_row_is_traced_to_the_objects_of_all_its_partners(owner: asyncpg.Connection, joined: Pipeline) -> None:
    await owner.execute(ROWS)
    await replace(joined, limits=BatchLimits(bundle_rows=0)).run()
    (row,) = (await life(joined, "fact_line", "1", "1")).rows
    assert row.batch is not None
    names = {piece.key.rpartition("/")[2].split(".")[0] for piece in row.batch.landing}
    assert names == {"line", "order header", "customer", "city", "country", "employee"}


async def test_a_date_from_a_joined_row_alone_is_in_the_calendar(owner: asyncpg.Connection, joined: Pipeline) -> None:
    await owner.execute(ROWS)
    await joined.run()
    days = await joined.select("SELECT d::text FROM dim_date ORDER BY 1")
    assert [day for (day,) in days] == [
        *("0001-01-01", "2026-01-02", "2026-01-03", "2026-01-04", "2026-02-01", "2026-02-02", "9999-12-31")
    ]
    await joined.select("ALTER TABLE fact_line DROP CONSTRAINT fact_line_due_date_fkey")
    await joined.select("DELETE FROM dim_date WHERE d = '2026-02-02'")
    verdict = await joined.verify()
    assert [(one.kind, one.key) for of in verdict.tables for one in of.differences] == [(Mismatch.MISSING, ("2026-02-02",))]
    (wish,) = await plan_repair(joined.system, verdict)
    assert [(rows.table, rows.keys) for rows in wish.reread] == [("line", ((3, 1),))]
    await joined.run(reread=wish.reread)
    await require_equal(joined)


async def test_a_row_is_quarantined_if_a_joined_row_cannot_give_its_value(owner: asyncpg.Connection, joined: Pipeline) -> None:
    await owner.execute(ROWS)
    await owner.execute("""UPDATE "order header" SET due = 'soon' WHERE order_id = 1;
        UPDATE "order header" SET shipped_at = 'infinity' WHERE order_id = 2""")
    await joined.run()
    assert await keys_in_quarantine(joined) == {"fact_line": [(1, 1), (1, 2), (2, 1)]}
    verdict = await joined.verify()
    assert (verdict.outcome, verdict.quarantined) == (Outcome.EQUAL, 3)
    await owner.execute("""UPDATE "order header" SET due = NULL, shipped_at = NULL""")
    await joined.run()
    await require_as_by_hand(owner, joined, BY_HAND)
    await require_equal(joined)


@pytest.mark.parametrize(
    ("kind", "contracted", "values"),
    [
        ("mood", TEXT, ("calm", "wild")),
        ("char(5)", TEXT, ("A", "B    ")),
        ("short", TEXT, ("A", "B")),
        ("varchar(9)", TEXT, ("A", "B ")),
        ("uuid", UUID, ("00000000-0000-0000-0000-00000000000A", "00000000-0000-0000-0000-00000000000b")),
        ("date", DATE, ("2026-01-02", "0001-01-01")),
        ("bigint", BIGINT, ("7", "9223372036854775807")),
    ],
)
async def test_a_key_of_two_columns_may_be_of_any_types_that_join(
    owner: asyncpg.Connection, empty: Pipeline, kind: str, contracted: ColumnType, values: tuple[str, str]
) -> None:
    one, other = values
    await owner.execute(
        f"""
        CREATE TYPE mood AS ENUM ('calm', 'wild');
        CREATE DOMAIN short AS char(3) CHECK (VALUE <> 'zzz');
        CREATE TABLE place (n smallint, of {kind}, name text, PRIMARY KEY (n, of));
        CREATE TABLE thing (id int PRIMARY KEY, n bigint, of {kind});
        INSERT INTO place VALUES (1, '{one}', 'one'), (1, '{other}', 'other'), (2, '{one}', 'two');
        INSERT INTO thing VALUES (1, 1, '{one}'), (2, 1, '{other}'), (3, 2, '{one}'), (4, 2, '{other}'), (5, NULL, '{one}'),
            (6, 1, NULL), (7, 5000000000, '{one}');
        """
    )
    place = source_table("place", ("n", "of"), n=INTEGER, of=contracted, name=TEXT)
    thing = source_table("thing", "id", id=INTEGER, n=BIGINT, of=contracted)
    named = Column("name", TEXT, FromLookup("place", "name", absent="-"))
    star = dimension_of(place), dimension_of(thing, named, lookups=(Lookup("place", on=("n", "of")),))
    pipeline = empty.reading(of(place, thing, star=star))
    names = "SELECT string_agg(name, ' ' ORDER BY id) FROM dim_thing"
    await pipeline.run()
    assert await pipeline.select(names) == [("one other two - - - -",)]
    await require_equal(pipeline)
    await owner.execute("UPDATE place SET name = name || '!'; DELETE FROM place WHERE n = 2")
    assert tables_read(await pipeline.ingest()) == {"place": 2, "thing": 2}
    await owner.execute("UPDATE place SET name = 'last'")
    await pipeline.run(compare_keys=True)
    assert await pipeline.select(names) == [("last last - - - - -",)]
    await require_equal(pipeline)
