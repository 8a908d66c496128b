"""The small contract: every kind of value, keys of two columns and of text, optional joins, between real databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal

import asyncpg
import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.operator.proof.history import Flaw, check_history
from services.operator.trace.life import AtSource
from shared.sql import literal
from tests.fixtures.pipeline import PROCESSED, Pipeline, open_pipeline, tables_read
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SCHEMA, SHOP
from tests.fixtures.tracing import life
from tests.integration.plain_star import require_equal

# Every value as its text: asyncpg takes the first and the last date that Python has for infinities.
SOLD = "2026-11-01 09:30:00.000001"
COLUMNS = ("maker_id", "serial", "price", "code", "note", "good", "born", "opens", "sold_at", "mood", "due", "currency")
SAME = ("serial", "price", "code", "note", "good", "born", "opens", "sold_at", "mood")  # in the warehouse under the same name
Values = dict[str, str | None]
LABELS = ("", "a", "B", "it's", 'say "x"', "back\\slash", "\\", "é", "🚚", "z\nz")
EXTREMES: tuple[Values, ...] = (
    {"serial": "9223372036854775807", "price": "99999999999999.9999", "code": "🚚é", "born": "9999-12-31"},
    {"serial": "-9223372036854775808", "price": "-99999999999999.9999", "note": "", "born": "0001-01-01"},
    {"sold_at": "9999-12-31 23:59:59.999999", "good": "false", "mood": "wild", "price": "0.0001", "opens": "23:59:59.999999"},
    {"sold_at": "0001-01-01 00:00:00", "good": "true", "price": "0.0000", "opens": "00:00:00"},
    {"sold_at": "2300-01-01 00:00:00.123457", "serial": "9007199254740993"},
    {"sold_at": "1600-12-31 23:59:59.999999", "serial": "-1"},
)


@pytest.fixture
async def shop(postgres_cluster: TestCluster, source_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's session."""
    connection = await asyncpg.connect(postgres_cluster.url(source_database, SOURCE_OWNER))
    await connection.execute(SCHEMA)
    await connection.execute("INSERT INTO maker VALUES (1, 'Bell Ltd', 'Leeds', 10.50), (2, 'Quinn', NULL, NULL)")
    yield connection
    await connection.close()


@pytest.fixture
async def pipeline(postgres_cluster: TestCluster, source_database: str, warehouse_database: str) -> AsyncIterator[Pipeline]:
    urls = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls, contract=SHOP) as opened:
        yield opened


async def put(shop: asyncpg.Connection, *items: Values) -> None:
    """Put items numbered from 1; values not given are NULL, except for the moment of sale."""
    for number, item in enumerate(items, start=1):
        values = {"sold_at": SOLD} | item
        texts = ", ".join("NULL" if values.get(name) is None else literal(str(values[name])) for name in COLUMNS)
        await shop.execute(f"INSERT INTO item (item_id, {', '.join(COLUMNS)}) VALUES ({number}, {texts})")


async def test_the_extremes_of_every_kind_are_exact(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop, *EXTREMES, {})
    await pipeline.run()
    found = await pipeline.select(f"SELECT {', '.join(f'{name}::text' for name in SAME)} FROM dim_item ORDER BY item_id")
    assert found == [tuple(({"sold_at": SOLD} | item).get(name) for name in SAME) for item in (*EXTREMES, {})]
    await require_equal(pipeline)


async def test_a_join_is_optional_if_its_reference_is_nullable(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop, {"maker_id": "1"}, {"maker_id": "2"}, {})
    await pipeline.run()
    found = await pipeline.select("SELECT maker_town, maker_capital FROM dim_item ORDER BY item_id")
    assert found == [("Leeds", Decimal("10.50")), (None, None), (None, None)]
    await require_equal(pipeline)


async def test_a_padded_code_is_read_without_its_padding(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    """PostgreSQL ignores blanks at the end of character(n), and drops them in a conversion to text."""
    await put(shop, {"currency": "GBP"}, {"currency": None})
    await pipeline.run()
    assert await pipeline.select("SELECT currency_name FROM fact_sale ORDER BY item_id") == [("Pound Sterling",), (None,)]
    await require_equal(pipeline)


async def test_a_value_without_an_exact_form_is_quarantined(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop, {}, {"price": "NaN"}, {"code": "long"})
    await shop.execute("INSERT INTO item (item_id, sold_at, born) VALUES (4, now(), 'infinity'), (5, 'infinity', NULL)")
    await shop.execute("INSERT INTO item (item_id, sold_at, opens) VALUES (6, now(), '24:00')")
    await shop.execute("INSERT INTO maker VALUES (3, 'x', 'y', 'NaN')")
    await shop.execute("INSERT INTO item (item_id, sold_at, maker_id) VALUES (7, now(), 3)")
    await pipeline.run()
    lines = [
        line for key, body in pipeline.objects.buckets[PROCESSED].items() if "quarantine" in key for line in body.splitlines()
    ]
    entries = [json.loads(line) for line in lines]
    assert {entry["key"]["item_id"]: entry["problems"][0]["reason"] for entry in entries if entry["table"] == "dim_item"} == {
        2: "price is NaN",
        3: "is longer than 3",
        4: "born is infinite",
        5: "sold_at is infinite",
        6: "opens is 24:00:00",
        7: "comes from a row of 'maker' that could not be read: capital is NaN",
    }
    assert await pipeline.select("SELECT item_id FROM dim_item WHERE _run > 0") == [(1,)]
    assert (await pipeline.verify()).is_equal


async def test_tables_with_composite_and_text_keys_are_read_page_by_page(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await shop.executemany("INSERT INTO shelf VALUES ($1, $2, $3)", [(row, label, 7) for row in (1, -2, 3) for label in LABELS])
    messages = await pipeline.cut(4).ingest()
    assert tables_read(messages)["shelf"] == 30
    await pipeline.load(*[await pipeline.remodel(message) for message in messages])
    await require_equal(pipeline)
    await shop.execute("""UPDATE shelf SET width = 8 WHERE label IN ('it''s', 'z' || chr(10) || 'z', E'\\\\')""")
    await pipeline.cut(2).run()
    assert await pipeline.select("SELECT count(*) FROM dim_shelf WHERE width = 8") == [(9,)]
    await require_equal(pipeline)


async def test_a_deleted_row_with_a_composite_text_key_is_found_among_many(
    shop: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await shop.executemany("INSERT INTO shelf VALUES ($1, $2, 7)", [(row, label) for row in (1, -2) for label in LABELS])
    await shop.execute("INSERT INTO shelf SELECT row, 'many', 7 FROM generate_series(10, 40000) AS row")
    await pipeline.run()
    for label in LABELS:
        await shop.execute("DELETE FROM shelf WHERE row = 1 AND label = $1", label)
        await pipeline.run(compare_keys=True)
        dead = await pipeline.select("SELECT label FROM dim_shelf WHERE _deleted_at IS NOT NULL ORDER BY _deleted_at DESC")
        assert dead[0] == (label,)
    assert await pipeline.select("SELECT count(*) FROM dim_shelf WHERE _deleted_at IS NOT NULL") == [(len(LABELS),)]
    await require_equal(pipeline)


async def test_a_deleted_row_is_marked_in_every_table_made_of_it(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop, {}, {}, {})
    await pipeline.run()
    await shop.execute("DELETE FROM item WHERE item_id = 2")
    await pipeline.run(compare_keys=True)
    assert await pipeline.select("SELECT item_id FROM dim_item WHERE _deleted_at IS NOT NULL") == [(2,)]
    assert await pipeline.select("SELECT item_id FROM fact_sale_current ORDER BY item_id") == [(1,), (3,)]
    await require_equal(pipeline)


async def test_a_text_key_does_not_depend_on_the_session_s_backslash_setting(
    shop: asyncpg.Connection, pipeline: Pipeline, postgres_cluster: TestCluster, source_database: str
) -> None:
    await shop.execute(f'ALTER DATABASE "{source_database}" SET standard_conforming_strings = off')
    await shop.executemany("INSERT INTO shelf VALUES (1, $1, 7)", [(label,) for label in ("\\", "\\'; --", "a")])
    assert tables_read(await pipeline.cut(1).ingest())["shelf"] == 3


async def test_every_kind_of_value_can_be_updated_and_removed(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop, EXTREMES[0] | {"maker_id": "1", "due": "2026-12-31", "currency": "GBP", "mood": "calm"})
    await pipeline.run()
    await shop.execute("UPDATE item SET " + ", ".join(f"{name} = NULL" for name in COLUMNS if name != "sold_at"))
    await pipeline.run()
    found = await pipeline.select("SELECT serial, price, code, note, good, born, opens, mood, maker_town FROM dim_item")
    assert found == [(None,) * 9]
    assert await pipeline.select("SELECT due_date, currency_name FROM fact_sale") == [(None, None)]
    await require_equal(pipeline)


async def test_every_version_of_the_history_is_recognised(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop, *EXTREMES)
    await pipeline.run()
    (sales,) = (await check_history(pipeline.system)).facts
    assert (sales.versions, sales.rows, sales.flawed) == (len(EXTREMES), len(EXTREMES), 0)
    lost = await pipeline.select("DELETE FROM fact_sale RETURNING item_id::text, sold_date::text, sold_time::text")
    (sales,) = (await check_history(pipeline.system)).facts
    assert sorted((*problem.key, *problem.version) for problem in sales.problems) == sorted(lost)
    assert {problem.flaw for problem in sales.problems} == {Flaw.LOST}


@pytest.mark.parametrize("label", ["a b", "", "Ö'\"--", "7", "--json", "-1"])
async def test_a_row_with_a_key_of_two_columns_is_traced(label: str, shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    add = "INSERT INTO shelf VALUES ($1, $2, 80)"
    await shop.execute(add, 7, label)
    await shop.execute(add, 8, "another")
    await pipeline.run()
    told = await life(pipeline, "dim_shelf", "7", label)
    assert (told.key, [row.values for row in told.rows]) == ((7, label), [{"row": "7", "label": label, "width": "80"}])
    assert (await life(pipeline, "dim_shelf", "8", label)).at_source is AtSource.NOWHERE
    await shop.execute(add, 9, label)
    assert (await life(pipeline, "dim_shelf", "9", label)).at_source is AtSource.WAITING


async def test_a_quarantined_row_is_found_by_all_columns_of_its_key(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await put(shop, {"due": "31.12.2026"}, {"currency": "XXZ"})
    (message,) = await pipeline.run()
    (refusal,) = (await life(pipeline, "fact_sale", "1")).quarantine
    (problem,) = refusal.problems
    assert (refusal.run, problem.column, problem.reason) == (message.data.run, "due_date", "is not a date (YYYY-MM-DD)")
    assert (await life(pipeline, "dim_item", "1")).quarantine == ()
