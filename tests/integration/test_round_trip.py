"""Every value of the source arrives exactly or is in quarantine with its reason: none is turned into another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.operator.quarantine import open_entries
from shared.postgres import SESSION_SETTINGS
from shared.sql import literal, quoted
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.properties import examples
from tests.fixtures.small_contract import SCHEMA, SHOP

MEGABYTE = 1024 * 1024
CODES = frozenset(currency.code for currency in Currency)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
TEXTS = TEXT | st.sampled_from(
    ("", " ", "NULL", "nan", r"\N", r"\.", "\\", '"', "'", ",", "\r\n", "\ufeff", "\u2028", "{}", "\x01\x02")
)
DIGITS = st.integers(-(10**18) + 1, 10**18 - 1).map(lambda number: f"{Decimal(number).scaleb(-4):f}")
TIMES = st.times().map(lambda time: time.isoformat())
DAYS = st.dates().map(date.isoformat)
INFINITE = frozenset({"infinity", "-infinity"})
FAR = frozenset({"10000-01-01", "0001-12-31 BC", "294276-12-31"})
ODD = st.sampled_from(sorted(INFINITE | FAR))
MOMENTS = st.tuples(DAYS, TIMES).map(" ".join)
VALUES = {
    "serial": st.integers(-(2**63), 2**63 - 1).map(str),
    "price": DIGITS | st.just("NaN"),
    "code": TEXTS,
    "note": TEXTS,
    "good": st.sampled_from(("true", "false")),
    "born": DAYS | ODD,
    "opens": TIMES | st.just("24:00"),
    "sold_at": MOMENTS | ODD,
    "mood": st.sampled_from(("calm", "wild")),
    "due": DAYS | TEXTS | st.sampled_from(("2023-02-30", "soon", "20230301")),
    "currency": st.sampled_from((*sorted(CODES)[:20], "XQX", "gbp", "")),
}
SAME = ("serial", "price", "code", "note", "good", "born", "opens", "sold_at", "mood")
Item = dict[str, str | None]
ITEMS = st.lists(
    st.fixed_dictionaries({name: values if name == "sold_at" else st.none() | values for name, values in VALUES.items()}),
    min_size=1,
    max_size=25,
)


def is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def dates_of(item: Item) -> tuple[str | None, ...]:
    return item["sold_at"], item["born"]


def has_defect(item: Item) -> bool:
    """True if one of its values can't be transferred at all."""
    is_late = item["sold_at"] == "294276-12-31"
    return is_late or item["price"] == "NaN" or item["opens"] == "24:00" or not INFINITE.isdisjoint(dates_of(item))


def fits_dimension(item: Item) -> bool:
    is_near = FAR.isdisjoint(dates_of(item))
    return not has_defect(item) and is_near and len(item["code"] or "") <= 3


def fits_fact(item: Item) -> bool:
    due, currency = item["due"], item["currency"]
    is_known = currency is None or currency in CODES
    return not has_defect(item) and item["sold_at"] not in FAR and (due is None or is_date(due)) and is_known


@dataclass(frozen=True)
class Shop:
    owner: str
    reader: str
    loader: str


async def prepared(shop: Shop) -> None:
    connection = await asyncpg.connect(shop.owner)
    await connection.execute(SCHEMA)
    await connection.close()


@pytest.fixture(scope="module")
def shop(postgres_cluster: TestCluster) -> Iterator[Shop]:
    source, warehouse = postgres_cluster.create_database(), postgres_cluster.create_warehouse()
    urls = (postgres_cluster.url(source, SOURCE_OWNER), postgres_cluster.url(source, READER))
    found = Shop(*urls, postgres_cluster.url(warehouse, LOADER))
    asyncio.run(prepared(found))
    yield found
    postgres_cluster.drop_database(source)
    postgres_cluster.drop_database(warehouse)


async def put(connection: asyncpg.Connection, items: Sequence[Item]) -> None:
    """Replace all items by these, numbered from 1."""
    await connection.execute("TRUNCATE item")
    for number, item in enumerate(items, start=1):
        texts = ", ".join("NULL" if value is None else literal(value) for value in item.values())
        await connection.execute(f"INSERT INTO item (item_id, {', '.join(item)}) VALUES ({number}, {texts})")


async def texts_of(
    connection: asyncpg.Connection, table: str, columns: Sequence[str], condition: str
) -> list[tuple[object, ...]]:
    """Some columns as PostgreSQL writes them, by item."""
    spelled = ", ".join(f"{quoted(name)}::text" for name in columns)
    return [
        tuple(row) for row in await connection.fetch(f"SELECT item_id, {spelled} FROM {table} WHERE {condition} ORDER BY 1")
    ]


async def refused(pipeline: Pipeline, table: str) -> set[int]:
    """The items in quarantine."""
    async with pipeline.warehouse.connection() as warehouse:
        entries = await open_entries(pipeline.system, warehouse)
    return {key[0] for key in entries.get(table, {})}


async def check(shop: Shop, items: Sequence[Item]) -> None:
    source = await asyncpg.connect(shop.owner, server_settings=SESSION_SETTINGS)
    try:
        async with open_pipeline(shop.reader, shop.loader, contract=SHOP) as pipeline:
            await put(source, items)
            if await pipeline.select("SELECT to_regclass('starlift.ledger') IS NOT NULL") == [(True,)]:
                await pipeline.empty_warehouse()
            await pipeline.run()
            numbered = list(enumerate(items, start=1))
            assert await refused(pipeline, "dim_item") == {number for number, item in numbered if not fits_dimension(item)}
            assert await refused(pipeline, "fact_sale") == {number for number, item in numbered if not fits_fact(item)}
            held = [number for number, item in numbered if fits_dimension(item)]
            async with pipeline.warehouse.connection() as warehouse:
                arrived = await texts_of(warehouse, "dim_item", SAME, "_run > 0")
            assert arrived == await texts_of(source, "item", SAME, f"item_id = ANY ('{{{','.join(map(str, held))}}}')")
            verdict = await pipeline.verify()
            assert [difference for table in verdict.tables for difference in table.differences] == []
    finally:
        await source.close()


def test_every_row_arrives_unchanged_or_is_in_quarantine(shop: Shop) -> None:
    @given(ITEMS)
    @examples(15)
    def holds(items: list[Item]) -> None:
        asyncio.run(check(shop, items))

    holds()


def test_texts_of_a_megabyte_arrive_unchanged(shop: Shop) -> None:
    item: Item = dict.fromkeys(VALUES) | {"sold_at": "2026-11-01 09:30:00"}
    texts = ("x" * MEGABYTE, "🚚" * (MEGABYTE // 4), ('"\\N",\n' * MEGABYTE)[:MEGABYTE])
    asyncio.run(check(shop, [item | {"note": text} for text in texts]))
