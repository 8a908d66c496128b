"""What every warehouse promises about loading batches, on memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from uuid import UUID, uuid4

import pandas as pd
import pytest
from pydantic import SecretStr

from contracts.key_hashes import KeyHashes
from contracts.messages import BatchLoaded, BatchLoadedData, LoadedTable, RowsOf, Snapshot
from infra.local.databases import LOADER
from services.loading.memory_warehouse import MemoryWarehouse
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.questions import Question
from services.loading.warehouse import Batch, Warehouse
from shared.codecs import codec_of
from shared.envelope import opening
from shared.errors import PermanentError, TransientError
from shared.key_hashes import sums_of, table_hashes
from shared.postgres import Database
from shared.source_keys import Key
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SHOP

SOURCE = "shop"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
LEAP_DAY = (date(2024, 2, 29) - date(1970, 1, 1)).days
NOON = 12 * 3600 * 1_000_000
MAKER, ITEM, SALE, DAY = (SHOP.warehouse_table(name) for name in ("dim_maker", "dim_item", "fact_sale", "dim_day"))
Row = Sequence[object]
TWO_MAKERS = [(1, "Ada", "Leeds"), (2, "Bob", "York")]
MANY = 1_000
MANY_MAKERS = [(number, "Ada", "Leeds") for number in range(MANY)]


@pytest.fixture(params=["fake", "postgres"])
async def warehouse(request: pytest.FixtureRequest) -> AsyncIterator[Warehouse]:
    if request.param == "fake":
        yield MemoryWarehouse(SHOP)
        return
    cluster: TestCluster = request.getfixturevalue("postgres_cluster")
    url = cluster.url(request.getfixturevalue("warehouse_database"), LOADER)
    async with aclosing(Database("warehouse", SecretStr(url), connections=3)) as database:
        yield PostgresWarehouse(database, SHOP)


class Asked:
    """What a warehouse asked; it may be told to fail after sending."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.fails = False

    async def __call__(self, question: Question) -> None:
        self.questions.append(question)
        if self.fails:
            raise TransientError("sqs throttles requests")

    @property
    def keys(self) -> dict[str, list[Key]]:
        """By table, sorted."""
        found: dict[str, list[Key]] = {}
        for question in self.questions:
            found.setdefault(question.table.name, []).extend(question.keys)
        return {table: sorted(keys) for table, keys in found.items()}


@pytest.fixture
def asked() -> Asked:
    return Asked()


def batch(
    run: int,
    rows: Mapping[str, Sequence[Row]] | None = None,
    *,
    unread: Mapping[str, Iterable[int]] | None = None,
    gone: Mapping[str, Iterable[int]] | None = None,
    answers: UUID | None = None,
    index: int = 0,
    is_last: bool = True,
) -> Batch:
    """A batch of a run, usually its only one.

    `unread` and `gone` are by source table: the keys that the run compares, apart from those of its rows, and those it missed.
    """
    frames = {}
    for name, values in (rows or {}).items():
        types = SHOP.warehouse_table(name).star_types
        frame = pd.DataFrame(list(values), columns=list(types))
        frames[name] = frame.astype({column: codec_of(kind).frame for column, kind in types.items()})
    snapshot = Snapshot(taken_at=BEGAN + timedelta(seconds=run), horizon=3 + run, wal_position="0/1")
    data = BatchLoadedData(
        source_name=SOURCE,
        run=run,
        batch_id=uuid4(),
        index=index,
        is_last=is_last,
        snapshot=snapshot,
        tables=tuple(LoadedTable(table=name, row_count=len(values)) for name, values in (rows or {}).items()),
        quarantined=0,
    )
    hashes = None
    if unread is not None:
        tables = tuple(table_hashes(name, sums_of((key,) for key in keys)) for name, keys in unread.items())
        hashes = KeyHashes(run=run, taken_at=snapshot.taken_at, tables=tables)
    missing = tuple(RowsOf(table=name, keys=tuple((key,) for key in keys)) for name, keys in (gone or {}).items())
    return Batch(BatchLoaded(**opening("tests"), data=data), frames, hashes, missing, answers)


def sale(item: int, currency: str, day: int = LEAP_DAY) -> Row:
    return (item, day, NOON, None, currency)


async def makers(warehouse: Warehouse) -> dict[object, tuple[object, int, bool]]:
    """By id: name, run, and whether the maker is dead."""
    rows = await warehouse.rows(MAKER)
    return {row.columns["maker_id"]: (row.columns["maker_name"], row.run, row.deleted_at is not None) for row in rows}


async def test_a_batch_is_loaded_once_and_the_ledger_has_it(warehouse: Warehouse, asked: Asked) -> None:
    first = batch(1, {"dim_maker": [(1, "Ada", "Leeds")]})
    assert not await warehouse.has(first.event.data.batch_id)
    assert await warehouse.load(first, asked) == 0
    assert await warehouse.load(first, asked) is None
    assert await warehouse.has(first.event.data.batch_id)
    await warehouse.finish_run(SOURCE, 1)
    assert await makers(warehouse) == {1: ("Ada", 1, False)}


async def test_of_two_images_that_of_the_higher_run_stays_and_an_equal_one_raises_it(
    warehouse: Warehouse, asked: Asked
) -> None:
    for run, name in ((5, "Ada"), (7, "Ada"), (6, "Bob")):
        await warehouse.load(batch(run, {"dim_maker": [(1, name, "Leeds")]}), asked)
    assert await makers(warehouse) == {1: ("Ada", 7, False)}


async def test_another_image_of_the_same_run_replaces_the_row(warehouse: Warehouse, asked: Asked) -> None:
    for name in ("wrong", "Ada"):
        await warehouse.load(batch(5, {"dim_maker": [(1, name, "Leeds")]}), asked)
    assert await makers(warehouse) == {1: ("Ada", 5, False)}


async def test_a_fact_before_its_dimension_gets_an_inferred_member_until_the_row_comes(
    warehouse: Warehouse, asked: Asked
) -> None:
    await warehouse.load(batch(2, {"fact_sale": [sale(7, "Pound")]}), asked)
    (item,) = await warehouse.rows(ITEM)
    assert (item.run, item.columns["item_id"], item.columns["sold_at"], item.columns["price"]) == (0, 7, datetime.min, None)  # noqa: DTZ901
    (day,) = await warehouse.rows(DAY)
    assert day.columns == {"day": date(2024, 2, 29), "weekday": "Thursday"}
    real = (7, None, 15_000, "abc", None, True, LEAP_DAY, NOON, LEAP_DAY * 86_400_000_000 + NOON, "calm", None, None)
    await warehouse.load(batch(1, {"dim_item": [real]}), asked)
    (item,) = await warehouse.rows(ITEM)
    assert (item.run, item.columns["born"], item.columns["opens"]) == (1, date(2024, 2, 29), time(12))
    assert (item.columns["sold_at"], str(item.columns["price"])) == (datetime(2024, 2, 29, 12), "1.5000")  # noqa: DTZ001


async def test_a_fact_keeps_every_version_and_only_its_newest_dies(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"fact_sale": [sale(7, "Pound"), sale(8, "Yen")]}), asked)
    await warehouse.load(batch(2, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}), asked)
    assert await warehouse.load(batch(3, gone={"item": [7]}), asked) == 1
    rows = await warehouse.rows(SALE)
    found = {(row.columns["item_id"], row.columns["currency_name"]): row.deleted_at for row in rows}
    assert found == {(7, "Pound"): None, (7, "Euro"): BEGAN + timedelta(seconds=3), (8, "Yen"): None}


async def test_a_row_that_was_looked_up_in_vain_is_dead_until_a_later_run_sees_it(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"dim_maker": TWO_MAKERS}), asked)
    assert await warehouse.load(batch(2, gone={"maker": [1]}), asked) == 1
    assert await makers(warehouse) == {1: ("Ada", 1, True), 2: ("Bob", 1, False)}
    await warehouse.load(batch(3, {"dim_maker": [(1, "Ada", "Leeds")]}), asked)
    assert await makers(warehouse) == {1: ("Ada", 3, False), 2: ("Bob", 1, False)}


async def test_an_older_image_that_arrives_after_its_tombstone_is_dead(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(5, gone={"maker": [1]}), asked)
    await warehouse.load(batch(4, {"dim_maker": [(1, "Ada", "Leeds")]}), asked)
    assert await makers(warehouse) == {1: ("Ada", 4, True)}


async def test_the_tombstone_of_the_highest_run_stays(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(5, gone={"maker": [1]}), asked)
    await warehouse.load(batch(3, gone={"maker": [1]}), asked)
    await warehouse.load(batch(4, {"dim_maker": [(1, "Ada", "Leeds")]}), asked)
    assert await makers(warehouse) == {1: ("Ada", 4, True)}


async def test_a_comparison_asks_about_the_key_that_the_source_lacks_and_changes_nothing(
    warehouse: Warehouse, asked: Asked
) -> None:
    await warehouse.load(batch(1, {"dim_maker": MANY_MAKERS}), asked)
    await warehouse.load(batch(2, unread={"maker": range(1, MANY)}), asked)
    assert await warehouse.compare_keys(asked) == 1
    assert asked.keys == {"dim_maker": [(0,)]}
    assert not any(is_dead for _, _, is_dead in (await makers(warehouse)).values())


async def test_equal_keys_lead_to_no_question_however_many_rows_changed(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"dim_maker": MANY_MAKERS}), asked)
    changed = [(number, "New", "Hull") for number in range(0, MANY + 50, 2)]
    await warehouse.load(batch(2, {"dim_maker": changed}, unread={"maker": range(1, MANY, 2)}), asked)
    assert (await warehouse.compare_keys(asked), asked.questions) == (0, [])


async def test_a_run_that_read_every_row_asks_about_each_that_it_did_not_see(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"dim_maker": TWO_MAKERS}), asked)
    await warehouse.load(batch(2, {"dim_maker": TWO_MAKERS[:1]}, unread={"maker": ()}), asked)
    assert await warehouse.compare_keys(asked) == 1
    assert asked.keys == {"dim_maker": [(2,)]}


async def test_two_keys_too_many_put_their_whole_bucket_in_question(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"dim_maker": MANY_MAKERS[:9]}), asked)
    await warehouse.load(batch(2, unread={"maker": range(2, 9)}), asked)
    await warehouse.compare_keys(asked)
    assert asked.keys == {"dim_maker": [(number,) for number in range(9)]}


async def test_a_key_that_the_star_lacks_may_hide_one_that_it_has_too_many(warehouse: Warehouse, asked: Asked) -> None:
    """As many keys on both sides: a row in quarantine and a deleted one."""
    await warehouse.load(batch(1, {"dim_maker": MANY_MAKERS[:9]}), asked)
    await warehouse.load(batch(2, unread={"maker": [*range(1, 9), 77]}), asked)
    await warehouse.compare_keys(asked)
    assert (0,) in asked.keys["dim_maker"]


async def test_a_dead_row_is_not_asked_about_again_and_one_that_came_back_is(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"dim_maker": TWO_MAKERS}), asked)
    await warehouse.load(batch(2, gone={"maker": [1, 2]}), asked)
    await warehouse.load(batch(3, {"dim_maker": TWO_MAKERS[:1]}), asked)
    await warehouse.load(batch(4, unread={"maker": ()}), asked)
    await warehouse.compare_keys(asked)
    assert asked.keys == {"dim_maker": [(1,)]}


async def test_a_fact_is_asked_about_by_its_business_key_once(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"fact_sale": [sale(7, "Pound")]}), asked)
    await warehouse.load(batch(2, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}), asked)
    await warehouse.load(batch(3, unread={"item": ()}), asked)
    await warehouse.compare_keys(asked)
    assert asked.keys["fact_sale"] == [(7,)]


async def test_a_comparison_leaves_inferred_members_alone_while_a_fact_refers_to_them(
    warehouse: Warehouse, asked: Asked
) -> None:
    await warehouse.load(batch(1, {"fact_sale": [sale(7, "Pound")]}), asked)
    await warehouse.load(batch(2, unread={"item": [7]}), asked)
    await warehouse.compare_keys(asked)
    assert "dim_item" not in asked.keys


async def test_a_comparison_waits_for_every_batch_of_its_run_and_of_runs_under_way(warehouse: Warehouse, asked: Asked) -> None:
    first, second = batch(1, {"dim_maker": TWO_MAKERS}, is_last=False), batch(1, {"dim_maker": [(3, "Kit", "Hull")]}, index=1)
    rows, hashes = batch(2, {"dim_maker": TWO_MAKERS[:1]}, is_last=False), batch(2, unread={"maker": [3]}, index=1)
    for waits in (first, hashes, rows):
        await warehouse.load(waits, asked)
        assert await warehouse.compare_keys(asked) == 0
    await warehouse.load(second, asked)
    assert await warehouse.compare_keys(asked) == 1
    assert asked.keys == {"dim_maker": [(2,)]}
    assert await warehouse.compare_keys(asked) == 0  # it has ended


async def test_an_image_that_comes_too_late_for_a_comparison_is_asked_about(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(3, unread={"maker": [1]}), asked)
    await warehouse.load(batch(2, {"dim_maker": TWO_MAKERS[:1]}), asked)
    assert asked.questions == []  # the comparison has not begun, so it will see the row
    assert await warehouse.compare_keys(asked) == 0
    await warehouse.load(batch(1, {"dim_maker": TWO_MAKERS}), asked)
    assert asked.keys == {"dim_maker": [(1,), (2,)]}
    asked.questions.clear()
    await warehouse.load(batch(4, {"dim_maker": [(9, "Zoe", "Bath")]}), asked)
    await warehouse.load(batch(1, {"dim_maker": [(9, "Old", "Bath")]}), asked)
    assert asked.questions == []  # a later image says that the row exists
    await warehouse.load(batch(5, gone={"maker": [2]}), asked)
    await warehouse.load(batch(1, {"dim_maker": TWO_MAKERS[1:]}), asked)
    assert asked.questions == []  # a tombstone says that it does not


async def test_a_question_sent_before_a_failure_is_asked_again_under_its_id(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(3, unread={"maker": [1]}), asked)
    await warehouse.compare_keys(asked)
    late = batch(1, {"dim_maker": TWO_MAKERS})
    asked.fails = True
    with pytest.raises(TransientError, match="throttles"):
        await warehouse.load(late, asked)
    assert not await warehouse.has(late.event.data.batch_id)
    assert await makers(warehouse) == {}
    asked.fails = False
    await warehouse.load(late, asked)
    first, again = asked.questions
    assert (first.id, first.keys) == (again.id, again.keys)


async def test_a_late_comparison_does_not_replace_a_later_one(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"dim_maker": TWO_MAKERS}), asked)
    await warehouse.load(batch(4, unread={"maker": [1, 2]}), asked)
    await warehouse.load(batch(3, unread={"maker": ()}), asked)
    assert await warehouse.compare_keys(asked) == 0


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_and_any_repetition_gives_the_same_rows(warehouse: Warehouse, asked: Asked, seed: int) -> None:
    """Maker 1 and sale 7 are deleted, maker 2 is deleted before run 2 and inserted again before run 4."""
    batches = [
        batch(1, {"dim_maker": TWO_MAKERS, "fact_sale": [sale(7, "Pound")]}),
        batch(2, {"dim_maker": [(1, "Eve", "Leeds")]}, unread={"maker": ()}),
        batch(3, {"fact_sale": [sale(7, "Euro")]}, gone={}),
        batch(4, {"dim_maker": [(2, "Kit", "Hull")]}),
        batch(5, unread={"maker": [2], "item": ()}),
    ]
    present = {"maker": {2}, "item": set[int]()}
    messages = [*batches, *batches]
    shuffled = Random(seed)  # noqa: S311 (an order)
    shuffled.shuffle(messages)
    run = 5
    while messages:
        await warehouse.load(messages.pop(), asked)
        await warehouse.compare_keys(asked)
        if asked.questions and (not messages or shuffled.random() < 0.5):
            question, run = asked.questions.pop(shuffled.randrange(len(asked.questions))), run + 1
            gone = [key[0] for key in question.keys if key[0] not in present[question.table.source]]
            messages.insert(0, batch(run, gone={question.table.source: gone}, answers=question.id))
    assert await makers(warehouse) == {1: ("Eve", 2, True), 2: ("Kit", 4, False)}
    (found,) = await warehouse.rows(SALE)
    assert (found.columns["currency_name"], found.run, found.deleted_at is not None) == ("Euro", 3, True)


async def test_a_second_source_is_refused(warehouse: Warehouse, asked: Asked) -> None:
    await warehouse.load(batch(1, {"dim_maker": [(1, "Ada", "Leeds")]}), asked)
    other = batch(2, {"dim_maker": [(1, "Eve", "Leeds")]})
    event = other.event.model_copy(update={"data": other.event.data.model_copy(update={"source_name": "other"})})
    with pytest.raises(PermanentError, match="contains the rows of source 'shop'"):
        await warehouse.load(Batch(event, other.rows), asked)
    assert await makers(warehouse) == {1: ("Ada", 1, False)}


async def test_of_two_versions_of_a_dead_row_that_are_loaded_at_once_only_the_newest_is_marked(
    warehouse: Warehouse, asked: Asked
) -> None:
    numbers = range(30)
    await warehouse.load(batch(9, gone={"item": numbers}), asked)
    # Items and days that are there already: no load waits for another that inserts them.
    there = [*(sale(number, "Pound") for number in numbers), *(sale(99, "Pound", LEAP_DAY + run) for run in (1, 2, 3))]
    await warehouse.load(batch(1, {"fact_sale": there}), asked)
    versions = [batch(run, {"fact_sale": [sale(number, "Pound", LEAP_DAY + run) for number in numbers]}) for run in (1, 2, 3)]
    await asyncio.gather(*(warehouse.load(version, asked) for version in versions))
    marked = [(row.columns["item_id"], row.run) for row in await warehouse.rows(SALE) if row.deleted_at is not None]
    assert sorted(marked) == [(number, 3) for number in numbers]
