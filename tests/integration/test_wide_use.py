"""A database like no other: names that need quotes, schemas of their own, all kinds of values, keys of uuid and of three."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER, execute
from services.operator.proof.repair import plan_repair
from services.operator.trace.life import AtSource
from tests.fixtures.pipeline import Pipeline, open_pipeline, tables_read
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.tracing import life
from tests.fixtures.wide_contract import SCHEMA, WIDE
from tests.integration.plain_star import require_equal

FIRST, SECOND = UUID(int=1), UUID(int=2**128 - 1)
RECEIPT, STAR = '"Point of Sale"."receipt ""v2"" all"', '"dwh.2026"."Receipt"'
# Each value as PostgreSQL spells it, in a session whose time zone is UTC and whose other settings are PostgreSQL's own.
VALUES = {
    "paid At": ("2026-03-29 01:30:00.123456+00", "9999-12-31 23:59:59.999999+00", "0001-01-01 00:00:00+00"),
    "total €": ("9999999999.99", "-0.01", None),
    "void?": ("true", "false", None),
    "payload": ('{"": {}, "a": [1, 2.50, null, "🚚 \\"x\\""]}', "null", None),
    "tags": ('{a,NULL,"b c","{}","\\"",""}', "{}", None),
    "sizes": ("{{1,2},{3,NULL}}", "[0:1]={7,8}", None),
    "image": ("\\x00ff5c", "\\x", None),
    "ratio": ("0.1", "-Infinity", "NaN"),
    "till's address": ("10.0.0.0/8", "::1/128", None),
    "took": ("-1 days -02:00:00", "1 year 2 mons -3 days +04:05:06.000007", "-00:00:01"),
    "tip": ("$1,234.56", "-$0.01", None),
}


@pytest.fixture
async def shop(postgres_cluster: TestCluster, source_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's session, in a time zone of its own; the reader may use the schema and select from its tables.

    What it has set is also set for the reader, as its role's defaults.
    """
    settings = {
        "TimeZone": "America/St_Johns",
        "bytea_output": "escape",
        "DateStyle": "German",
        "IntervalStyle": "sql_standard",
        "extra_float_digits": "0",
    }
    execute(
        postgres_cluster.url(),
        *(
            f"""ALTER ROLE {READER} IN DATABASE "{source_database}" SET {name} = '{value}'"""
            for name, value in settings.items()
        ),
    )
    connection = await asyncpg.connect(postgres_cluster.url(source_database, SOURCE_OWNER), server_settings=settings)
    await connection.execute(SCHEMA)
    granted = (
        f'GRANT USAGE ON SCHEMA "Point of Sale" TO {READER}; GRANT SELECT ON ALL TABLES IN SCHEMA "Point of Sale" TO {READER}'
    )
    await connection.execute(granted)
    await connection.execute(
        """INSERT INTO "Store" VALUES ('L1', 'Leeds "Central"', '2001-02-03', '08:30'), ('', '', NULL, NULL)"""
    )
    yield connection
    await connection.close()


@pytest.fixture
async def pipeline(postgres_cluster: TestCluster, source_database: str, warehouse_database: str) -> AsyncIterator[Pipeline]:
    urls = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls, contract=WIDE) as opened:
        yield opened


async def put(shop: asyncpg.Connection) -> list[UUID]:
    """A receipt of each place of VALUES, with two lines; the last one has no store."""
    ids = [FIRST, SECOND, uuid4()]
    names = ", ".join(f'"{name}"' for name in VALUES)
    for place, key in enumerate(ids):
        spelled = ", ".join("NULL" if values[place] is None else f"$q${values[place]}$q$" for values in VALUES.values())
        store = ("'L1'", "''", "NULL")[place]
        await shop.execute(f"""INSERT INTO {RECEIPT} ("Receipt Id", store, {names}) VALUES ('{key}', {store}, {spelled})""")
        await shop.execute("INSERT INTO line VALUES ($1, 1, 'L', 1, now()), ($1, 1, 'R', 2, now())", key)
    return ids


async def test_every_kind_of_value_arrives_exactly(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    ids = await put(shop)
    await pipeline.run()
    for name, values in VALUES.items():
        for key, value in zip(ids, values, strict=True):
            ((found,),) = await pipeline.select(f"""SELECT "{name}"::text FROM {STAR} WHERE "Receipt Id" = $1""", key)
            assert found == value, name
    types = await pipeline.select(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0",
        STAR,
    )
    assert {name: kind for name, kind in types if name in VALUES} == {
        "paid At": "timestamp(6) with time zone",
        "total €": "numeric(12,2)",
        "void?": "boolean",
        "payload": "jsonb",
        "tags": "text[]",
        "sizes": "integer[]",
        "image": "bytea",
        "ratio": "double precision",
        "till's address": "inet",
        "took": "interval",
        "tip": "money",
    }
    await require_equal(pipeline)


async def test_a_wide_table_is_read_page_by_page_and_again(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop)
    await pipeline.cut(1).run()
    await require_equal(pipeline)
    await shop.execute(
        f"UPDATE {RECEIPT} SET tags = tags || ARRAY['late'], payload = payload || '[]' WHERE payload IS NOT NULL"
    )
    await shop.execute("""UPDATE "Store" SET name = 'Hull' WHERE "Code" = ''""")
    messages = await pipeline.cut(1).ingest()
    assert tables_read(messages) == {"Store": 1, 'receipt "v2" all': 2}
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    names = await pipeline.select(f"""SELECT "store's name" FROM {STAR} ORDER BY 1""")
    assert names == [("(no store)",), ("Hull",), ('Leeds "Central"',)]
    await require_equal(pipeline)


async def test_deletes_are_found_for_uuid_keys_and_for_keys_of_three_columns(
    shop: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await put(shop)
    await pipeline.run()
    await shop.execute("DELETE FROM line WHERE side = 'R' AND \"Receipt Id\" = $1", SECOND)
    await shop.execute(f"""DELETE FROM {RECEIPT} WHERE "Receipt Id" = $1""", FIRST)
    await pipeline.run()
    assert (await pipeline.verify()).in_flight == 2
    await pipeline.run(compare_keys=True)
    assert await pipeline.select(f"""SELECT "Receipt Id" FROM {STAR} WHERE _deleted_at IS NOT NULL""") == [(FIRST,)]
    found = await pipeline.select(
        """SELECT "Receipt Id", side FROM "dwh.2026"."Line; DROP TABLE x" WHERE _deleted_at IS NOT NULL"""
    )
    assert found == [(SECOND, "R")]
    await require_equal(pipeline)


async def test_a_dangling_reference_gets_an_inferred_member(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await shop.execute("INSERT INTO line VALUES ($1, 1, 'L', 1, now())", FIRST)
    await pipeline.run()
    assert await pipeline.select(f"""SELECT "Receipt Id", payload, _run FROM {STAR}""") == [(FIRST, None, 0)]
    await require_equal(pipeline)


async def test_a_fact_can_be_versioned_by_a_time_with_time_zone(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop)
    await pipeline.run()
    await shop.execute("UPDATE line SET qty = 9, last_updated = last_updated + interval '1 microsecond' WHERE side = 'L'")
    await pipeline.run()
    found = await pipeline.select("""SELECT count(*) FROM "dwh.2026"."Line; DROP TABLE x" WHERE side = 'L'""")
    assert found == [(6,)]
    await require_equal(pipeline)


async def test_a_day_missing_from_the_calendar_is_requested_by_a_row_s_uuid(
    shop: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await put(shop)
    await pipeline.run()
    for table, name in await pipeline.select(
        "SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint WHERE contype = 'f'"
    ):
        await pipeline.select(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    await pipeline.select("""DELETE FROM "dwh.2026"."Day" """)
    (wish,) = await plan_repair(pipeline.system, await pipeline.verify())
    ((table, keys),) = [(rows.table, rows.keys) for rows in wish.reread]
    assert (table, UUID(str(keys[0][0])) in {FIRST, SECOND}, len(keys)) == ("line", True, 1)
    await pipeline.run(reread=wish.reread)
    await require_equal(pipeline)


async def test_a_value_out_of_range_is_quarantined_by_its_row_s_uuid(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await shop.execute(
        f"""INSERT INTO {RECEIPT} ("Receipt Id", "paid At") VALUES ($1, 'infinity'), ($2, '0044-03-15 BC')""", FIRST, SECOND
    )
    await pipeline.run()
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.quarantined) == (True, 2)
    assert (await life(pipeline, "Receipt", str(FIRST))).at_source is AtSource.READ
    await shop.execute(f"""UPDATE {RECEIPT} SET "paid At" = now()""")
    await pipeline.run()
    await require_equal(pipeline)
