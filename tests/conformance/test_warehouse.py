"""What every warehouse promises about loading batches, on memory and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from uuid import uuid4

import pandas as pd
import pytest
from pydantic import SecretStr

from contracts.messages import BatchLoaded, BatchLoadedData, KeyList, LoadedTable, Snapshot
from contracts.objects import ObjectRef
from infra.local.databases import LOADER
from services.loading.memory_warehouse import MemoryWarehouse
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.warehouse import Batch, KeyLists, Warehouse
from shared.codecs import codec_of
from shared.envelope import opening
from shared.errors import PermanentError, TransientError
from shared.source_keys import Key
from shared.postgres import Database
from shared.testing import reference
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SHOP

SOURCE, UNREADABLE = "shop", "unreadable"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
LEAP_DAY = (date(2024, 2, 29) - date(1970, 1, 1)).days
NOON = 12 * 3600 * 1_000_000
MAKER, ITEM, SALE, DAY = (SHOP.warehouse_table(name) for name in ("dim_maker", "dim_item", "fact_sale", "dim_day"))
Row = Sequence[object]


@pytest.fixture(params=["fake", "postgres"])
async def warehouse(request: pytest.FixtureRequest) -> AsyncIterator[Warehouse]:
    if request.param == "fake":
        yield MemoryWarehouse(SHOP)
        return
    cluster: TestCluster = request.getfixturevalue("postgres_cluster")
    url = cluster.url(request.getfixturevalue("warehouse_database"), LOADER)
    async with aclosing(Database("warehouse", SecretStr(url), connections=3)) as database:
        yield PostgresWarehouse(database, SHOP)


async def read(ref: ObjectRef) -> list[Key]:
    """The keys of a list, which its key spells."""
    _, _, text = ref.key.partition("/")
    if text == UNREADABLE:
        raise TransientError("s3 throttles requests")
    return [(int(number),) for number in text.split("/")]


def batch(run: int, rows: Mapping[str, Sequence[Row]], keys: Mapping[str, str] | None = None) -> Batch:
    """The only batch of a run; `keys` are the key lists by table, such as "1/2"."""
    frames = {}
    for name, values in rows.items():
        types = SHOP.warehouse_table(name).star_types
        frame = pd.DataFrame(list(values), columns=list(types))
        frames[name] = frame.astype({column: codec_of(kind).frame for column, kind in types.items()})
    snapshot = Snapshot(taken_at=BEGAN + timedelta(seconds=run), horizon=3 + run, wal_position="0/1")
    data = BatchLoadedData(
        source_name=SOURCE,
        run=run,
        batch_id=uuid4(),
        index=0,
        is_last=True,
        snapshot=snapshot,
        tables=tuple(LoadedTable(table=name, row_count=len(values)) for name, values in rows.items()),
        quarantined=0,
    )
    lists = tuple(
        KeyList(table=name, objects=(reference("keys", f"{name}/{listed}", b"", row_count=1),) if listed else ())
        for name, listed in (keys or {}).items()
    )
    return Batch(BatchLoaded(**opening("tests"), data=data), frames, KeyLists(lists, read))


def sale(item: int, currency: str, day: int = LEAP_DAY) -> Row:
    return (item, day, NOON, None, currency)


async def makers(warehouse: Warehouse) -> dict[object, tuple[object, int, bool]]:
    """By id: name, run, and whether the maker is dead."""
    rows = await warehouse.rows(MAKER)
    return {row.columns["maker_id"]: (row.columns["maker_name"], row.run, row.deleted_at is not None) for row in rows}


async def test_a_batch_is_loaded_once_and_the_ledger_has_it(warehouse: Warehouse) -> None:
    first = batch(1, {"dim_maker": [(1, "Ada", "Leeds")]})
    assert not await warehouse.has(first.event.data.batch_id)
    assert await warehouse.load(first) == 0
    assert await warehouse.load(first) is None
    assert await warehouse.has(first.event.data.batch_id)
    await warehouse.finish_run(SOURCE, 1)
    assert await makers(warehouse) == {1: ("Ada", 1, False)}


async def test_of_two_images_that_of_the_higher_run_stays_and_an_equal_one_raises_the_run(warehouse: Warehouse) -> None:
    for run, name in ((5, "Ada"), (7, "Ada"), (6, "Bob")):
        await warehouse.load(batch(run, {"dim_maker": [(1, name, "Leeds")]}))
    assert await makers(warehouse) == {1: ("Ada", 7, False)}


async def test_another_image_of_the_same_run_replaces_the_row(warehouse: Warehouse) -> None:
    for name in ("wrong", "Ada"):
        await warehouse.load(batch(5, {"dim_maker": [(1, name, "Leeds")]}))
    assert await makers(warehouse) == {1: ("Ada", 5, False)}


async def test_a_fact_before_its_dimension_gets_an_inferred_member_that_the_real_row_replaces(warehouse: Warehouse) -> None:
    await warehouse.load(batch(2, {"fact_sale": [sale(7, "Pound")]}))
    (item,) = await warehouse.rows(ITEM)
    assert (item.run, item.columns["item_id"], item.columns["sold_at"], item.columns["price"]) == (0, 7, datetime.min, None)  # noqa: DTZ901
    (day,) = await warehouse.rows(DAY)
    assert day.columns == {"day": date(2024, 2, 29), "weekday": "Thursday"}
    real = (7, None, 15_000, "abc", None, True, LEAP_DAY, NOON, LEAP_DAY * 86_400_000_000 + NOON, "calm", None, None)
    await warehouse.load(batch(1, {"dim_item": [real]}))
    (item,) = await warehouse.rows(ITEM)
    assert (item.run, item.columns["born"], item.columns["opens"]) == (1, date(2024, 2, 29), time(12))
    assert (item.columns["sold_at"], str(item.columns["price"])) == (datetime(2024, 2, 29, 12), "1.5000")  # noqa: DTZ001


async def test_a_fact_keeps_every_version_and_only_its_newest_dies(warehouse: Warehouse) -> None:
    await warehouse.load(batch(1, {"fact_sale": [sale(7, "Pound"), sale(8, "Yen")]}))
    await warehouse.load(batch(2, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}))
    assert await warehouse.load(batch(3, {}, {"fact_sale": "8"})) == 1
    rows = await warehouse.rows(SALE)
    found = {(row.columns["item_id"], row.columns["currency_name"]): row.deleted_at for row in rows}
    assert found == {(7, "Pound"): None, (7, "Euro"): BEGAN + timedelta(seconds=3), (8, "Yen"): None}


async def test_a_row_that_a_comparison_missed_is_dead_until_a_later_run_sees_it(warehouse: Warehouse) -> None:
    await warehouse.load(batch(1, {"dim_maker": [(1, "Ada", "Leeds"), (2, "Bob", "York")]}))
    assert await warehouse.load(batch(2, {}, {"dim_maker": "2"})) == 1
    assert await makers(warehouse) == {1: ("Ada", 1, True), 2: ("Bob", 1, False)}
    await warehouse.load(batch(3, {"dim_maker": [(1, "Ada", "Leeds")]}))
    assert await makers(warehouse) == {1: ("Ada", 3, False), 2: ("Bob", 1, False)}


async def test_an_older_image_that_arrives_after_the_comparison_is_dead(warehouse: Warehouse) -> None:
    await warehouse.load(batch(5, {}, {"dim_maker": ""}))
    assert await warehouse.load(batch(4, {"dim_maker": [(1, "Ada", "Leeds")]})) == 1
    assert await makers(warehouse) == {1: ("Ada", 4, True)}


async def test_a_comparison_leaves_inferred_members_alone_while_a_fact_refers_to_them(warehouse: Warehouse) -> None:
    await warehouse.load(batch(1, {"fact_sale": [sale(7, "Pound")]}))
    assert await warehouse.load(batch(2, {}, {"dim_item": ""})) == 0
    assert [row.deleted_at for row in await warehouse.rows(ITEM)] == [None]


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_and_any_repetition_gives_the_same_rows(warehouse: Warehouse, seed: int) -> None:
    batches = [
        batch(1, {"dim_maker": [(1, "Ada", "Leeds"), (2, "Bob", "York")], "fact_sale": [sale(7, "Pound")]}),
        batch(2, {"dim_maker": [(1, "Eve", "Leeds")]}, {"dim_maker": "1"}),
        batch(3, {"fact_sale": [sale(7, "Euro")]}, {"fact_sale": "7"}),
        batch(4, {"dim_maker": [(3, "Kit", "Hull")]}, {"dim_maker": "3", "fact_sale": ""}),
    ]
    messages = [*batches, *batches]
    Random(seed).shuffle(messages)  # noqa: S311 (an order)
    for message in messages:
        await warehouse.load(message)
    assert await makers(warehouse) == {1: ("Eve", 2, True), 2: ("Bob", 1, True), 3: ("Kit", 4, False)}
    assert [(row.columns["currency_name"], row.run, row.deleted_at) for row in await warehouse.rows(SALE)] == [
        ("Euro", 3, BEGAN + timedelta(seconds=4))
    ]


async def test_a_batch_that_fails_leaves_nothing(warehouse: Warehouse) -> None:
    await warehouse.load(batch(1, {"dim_maker": [(1, "Ada", "Leeds"), (2, "Bob", "York")]}))
    failing = batch(2, {"dim_maker": [(1, "Eve", "Leeds")], "fact_sale": [sale(7, "Pound")]}, {"dim_maker": UNREADABLE})
    with pytest.raises(TransientError, match="throttles"):
        await warehouse.load(failing)
    assert not await warehouse.has(failing.event.data.batch_id)
    assert await makers(warehouse) == {1: ("Ada", 1, False), 2: ("Bob", 1, False)}
    assert await warehouse.rows(SALE) == []


async def test_a_second_source_is_refused(warehouse: Warehouse) -> None:
    await warehouse.load(batch(1, {"dim_maker": [(1, "Ada", "Leeds")]}))
    other = batch(2, {"dim_maker": [(1, "Eve", "Leeds")]})
    event = other.event.model_copy(update={"data": other.event.data.model_copy(update={"source_name": "other"})})
    with pytest.raises(PermanentError, match="contains the rows of source 'shop'"):
        await warehouse.load(Batch(event, other.rows, other.keys))
    assert await makers(warehouse) == {1: ("Ada", 1, False)}
