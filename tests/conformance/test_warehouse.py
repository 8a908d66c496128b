"""What every warehouse promises about loading batches, on memory and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from uuid import UUID, uuid4

import pandas as pd
import pytest
from pydantic import SecretStr

from contracts.key_hashes import SUMMED_BITS, KeyHashes, TableHashes
from contracts.messages import BatchLoaded, BatchLoadedData, LoadedTable, RowsOf, Snapshot
from infra.local.databases import LOADER
from services.loading.memory_warehouse import MemoryWarehouse
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.warehouse import Batch, Question, Warehouse
from shared.codecs import codec_of
from shared.envelope import opening
from shared.errors import PermanentError, TransientError
from shared.key_hashes import hash_of, sums_of, table_hashes
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


@dataclass
class Shop:
    """A warehouse, what it asked, and what the source has. Its keys: whole numbers, except those of dim_shelf."""

    warehouse: Warehouse
    database: Database | None  # None: the fake
    questions: list[Question] = field(default_factory=list)

    async def ask(self, question: Question) -> None:
        self.questions.append(question)

    async def load(self, batch: Batch) -> int | None:
        return await self.warehouse.load(batch, self.ask)

    async def compare(self, *batches: Batch) -> list[Key]:
        """Load the batches, compare, and return the keys that were asked about since."""
        before = len(self.questions)
        for one in batches:
            await self.load(one)
        await self.warehouse.compare_keys(self.ask)
        return [key for question in self.questions[before:] for key in question.keys]

    async def age(self) -> None:
        """Let more than five minutes pass since the last load."""
        if self.database is None:
            assert isinstance(self.warehouse, MemoryWarehouse)
            self.warehouse.clock = lambda: datetime.now(UTC) + timedelta(minutes=6)
            return
        async with self.database.connection() as connection:
            await connection.execute("UPDATE starlift.ledger SET loaded_at = loaded_at - interval '6 minutes'")


@pytest.fixture(params=["fake", "postgres"])
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    if request.param == "fake":
        yield Shop(MemoryWarehouse(SHOP), None)
        return
    cluster: TestCluster = request.getfixturevalue("postgres_cluster")
    url = cluster.url(request.getfixturevalue("warehouse_database"), LOADER)
    async with aclosing(Database("warehouse", SecretStr(url), connections=6)) as database:
        yield Shop(PostgresWarehouse(database, SHOP), database)


def batch(
    run: int,
    rows: Mapping[str, Sequence[Row]],
    hashes: Sequence[TableHashes] = (),
    gone: Mapping[str, Sequence[Key]] | None = None,
    *,
    index: int = 0,
    is_last: bool = True,
    answers: UUID | None = None,
) -> Batch:
    """A batch of a run, by default the only one."""
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
        index=index,
        is_last=is_last,
        snapshot=snapshot,
        tables=tuple(LoadedTable(table=name, row_count=len(values)) for name, values in rows.items()),
        quarantined=0,
    )
    return Batch(
        BatchLoaded(**opening("tests"), data=data),
        frames,
        KeyHashes(run=run, taken_at=snapshot.taken_at, tables=tuple(hashes)) if hashes else None,
        tuple(RowsOf(table=table, keys=tuple(keys)) for table, keys in (gone or {}).items()),
        answers,
    )


def there(table: str, keys: Iterable[Key], *, believe_empty: bool = False) -> TableHashes:
    """The hashes of the rows that the source has, and the run did not read."""
    return table_hashes(table, sums_of(keys), believe_empty=believe_empty)


def numbers(*keys: int) -> list[Key]:
    return [(key,) for key in keys]


def ada(*keys: int) -> list[Row]:
    return [(key, "Ada", "Leeds") for key in keys]


def sale(item: int, currency: str, day: int = LEAP_DAY) -> Row:
    return (item, day, NOON, None, currency)


async def makers(shop: Shop) -> dict[object, tuple[object, int, bool]]:
    """By id: name, run, and whether the maker is dead."""
    rows = await shop.warehouse.rows(MAKER)
    return {row.columns["maker_id"]: (row.columns["maker_name"], row.run, row.deleted_at is not None) for row in rows}


async def sales(shop: Shop) -> set[tuple[object, int, bool]]:
    """Currency, run, and whether the version is marked."""
    rows = await shop.warehouse.rows(SALE)
    return {(row.columns["currency_name"], row.run, row.deleted_at is not None) for row in rows}


async def test_a_batch_is_loaded_once_and_the_ledger_has_it(shop: Shop) -> None:
    first = batch(1, {"dim_maker": ada(1)})
    assert not await shop.warehouse.has(first.event.data.batch_id)
    assert await shop.load(first) == 0
    assert await shop.load(first) is None
    assert await shop.warehouse.has(first.event.data.batch_id)
    await shop.warehouse.finish_run(SOURCE, 1)
    assert await makers(shop) == {1: ("Ada", 1, False)}


async def test_of_two_images_that_of_the_higher_run_stays_and_an_equal_one_raises_the_run(shop: Shop) -> None:
    for run, name in ((5, "Ada"), (7, "Ada"), (6, "Bob")):
        await shop.load(batch(run, {"dim_maker": [(1, name, "Leeds")]}))
    assert await makers(shop) == {1: ("Ada", 7, False)}


async def test_another_image_of_the_same_run_replaces_the_row(shop: Shop) -> None:
    for name in ("wrong", "Ada"):
        await shop.load(batch(5, {"dim_maker": [(1, name, "Leeds")]}))
    assert await makers(shop) == {1: ("Ada", 5, False)}


async def test_a_fact_before_its_dimension_gets_an_inferred_member_that_the_real_row_replaces(shop: Shop) -> None:
    await shop.load(batch(2, {"fact_sale": [sale(7, "Pound")]}))
    (item,) = await shop.warehouse.rows(ITEM)
    assert (item.run, item.columns["item_id"], item.columns["sold_at"], item.columns["price"]) == (0, 7, datetime.min, None)  # noqa: DTZ901
    (day,) = await shop.warehouse.rows(DAY)
    assert day.columns == {"day": date(2024, 2, 29), "weekday": "Thursday"}
    real = (7, None, 15_000, "abc", None, True, LEAP_DAY, NOON, LEAP_DAY * 86_400_000_000 + NOON, "calm", None, None)
    await shop.load(batch(1, {"dim_item": [real]}))
    (item,) = await shop.warehouse.rows(ITEM)
    assert (item.run, item.columns["born"], item.columns["opens"]) == (1, date(2024, 2, 29), time(12))
    assert (item.columns["sold_at"], str(item.columns["price"])) == (datetime(2024, 2, 29, 12), "1.5000")  # noqa: DTZ001


async def test_a_row_is_dead_whether_its_tombstone_or_its_image_comes_first(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 3)}))
    assert await shop.load(batch(5, {}, gone={"maker": numbers(1, 2)})) == 1
    await shop.load(batch(4, {"dim_maker": ada(2)}))
    assert await makers(shop) == {1: ("Ada", 1, True), 2: ("Ada", 4, True), 3: ("Ada", 1, False)}


async def test_a_tombstone_marks_every_star_table_of_its_source_table_and_of_a_fact_the_newest_version(shop: Shop) -> None:
    await shop.load(batch(1, {"fact_sale": [sale(7, "Pound"), sale(8, "Yen")]}))
    await shop.load(batch(2, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}))
    assert await shop.load(batch(3, {}, gone={"item": numbers(7)})) == 2
    assert await sales(shop) == {("Pound", 1, False), ("Euro", 2, True), ("Yen", 1, False)}
    found = {row.columns["item_id"]: row.deleted_at for row in await shop.warehouse.rows(ITEM)}
    assert found == {7: BEGAN + timedelta(seconds=3), 8: None}


async def test_an_inferred_member_is_dead_whether_it_or_its_tombstone_comes_first(shop: Shop) -> None:
    await shop.load(batch(5, {}, gone={"item": numbers(7)}))
    await shop.load(batch(4, {"fact_sale": [sale(7, "Pound")]}))
    assert [row.deleted_at for row in await shop.warehouse.rows(ITEM)] == [BEGAN + timedelta(seconds=5)]


async def test_older_versions_that_come_after_the_tombstone_leave_the_mark_at_the_newest(shop: Shop) -> None:
    await shop.load(batch(9, {}, gone={"item": numbers(7)}))
    for run, currency in ((5, "Euro"), (7, "Yen"), (3, "Pound")):
        await shop.load(batch(run, {"fact_sale": [sale(7, currency, LEAP_DAY + run)]}))
    assert await sales(shop) == {("Pound", 3, False), ("Euro", 5, False), ("Yen", 7, True)}


async def test_of_two_tombstones_that_of_the_higher_run_counts_in_either_order(shop: Shop) -> None:
    await shop.load(batch(4, {"dim_maker": ada(1, 2)}))
    for run, keys in ((6, numbers(1)), (3, numbers(1, 2)), (5, numbers(2))):
        await shop.load(batch(run, {}, gone={"maker": keys}))
    rows = {row.columns["maker_id"]: row.deleted_at for row in await shop.warehouse.rows(MAKER)}
    assert rows == {1: BEGAN + timedelta(seconds=6), 2: BEGAN + timedelta(seconds=5)}


async def test_a_row_that_comes_back_is_alive_and_its_late_older_image_changes_nothing(shop: Shop) -> None:
    await shop.load(batch(1, {"fact_sale": [sale(7, "Pound")]}))
    await shop.load(batch(5, {}, gone={"item": numbers(7)}))
    await shop.load(batch(6, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}))
    assert await sales(shop) == {("Pound", 1, False), ("Euro", 6, False)}
    await shop.load(batch(4, {"fact_sale": [sale(7, "Yen", LEAP_DAY + 2)]}))
    assert await sales(shop) == {("Pound", 1, False), ("Yen", 4, False), ("Euro", 6, False)}
    assert await shop.compare(batch(7, {}, [there("item", numbers(7))])) == []


async def test_equal_hashes_ask_nothing_although_rows_have_changed(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 50))}))
    changed = batch(2, {"dim_maker": ada(3, 50)}, [there("maker", numbers(*(key for key in range(1, 50) if key != 3)))])
    assert await shop.compare(changed) == []
    assert shop.questions == []


async def test_one_key_too_many_in_a_bucket_is_asked_about_alone(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 101))}))
    hashes = there("maker", numbers(*(key for key in range(1, 101) if key != 42)))
    assert len(hashes.counts) == 1
    assert await shop.compare(batch(2, {}, [hashes])) == [(42,)]
    (question,) = shop.questions
    assert (question.table, question.run, question.believe_empty) == (MAKER, 2, False)
    assert await shop.compare() == []


async def test_with_several_keys_too_many_in_a_bucket_all_its_keys_are_asked_about(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 101))}))
    assert await shop.compare(batch(2, {}, [there("maker", numbers(*range(11, 101)))])) == numbers(*range(1, 101))


async def test_only_the_bucket_that_differs_is_asked_about(shop: Shop) -> None:
    keys = numbers(*range(1, 1001))
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 1001))}))
    hashes = there("maker", keys[2:])
    first, second = (hash_of(key) >> SUMMED_BITS & len(hashes.counts) - 1 for key in keys[:2])
    assert len(hashes.counts) == 8 and first != second  # noqa: PT018 (the premise)
    assert sorted(await shop.compare(batch(2, {}, [hashes]))) == keys[:2]


async def test_one_missing_and_two_gone_in_a_bucket_are_not_taken_for_one_key(shop: Shop) -> None:
    """The star has one key more; no key has the difference of the sums."""
    await shop.load(batch(1, {"dim_maker": ada(1, 2, 3)}))
    assert await shop.compare(batch(2, {}, [there("maker", numbers(3, 4))])) == numbers(1, 2, 3)


async def test_a_full_run_ships_one_empty_bucket_and_asks_about_what_it_did_not_bring(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 10))}))
    assert await shop.compare(batch(2, {"dim_maker": ada(*range(2, 10))}, [there("maker", ())])) == [(1,)]


async def test_keys_of_several_columns_are_hashed_and_buried(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_shelf": [(1, "a", 5), (1, "b:2", 5), (11, "é", 6)]}))
    asked = await shop.compare(batch(2, {}, [there("shelf", [(1, "a"), (11, "é")])]))
    assert asked == [(1, "b:2")]
    assert await shop.load(batch(3, {}, gone={"shelf": asked})) == 1
    rows = await shop.warehouse.rows(SHOP.warehouse_table("dim_shelf"))
    assert {row.columns["label"] for row in rows if row.deleted_at} == {"b:2"}
    assert await shop.compare(batch(4, {}, [there("shelf", [(1, "a"), (11, "é")])])) == []


async def test_a_fact_with_several_versions_counts_once_by_its_newest(shop: Shop) -> None:
    await shop.load(batch(1, {"fact_sale": [sale(7, "Pound"), sale(8, "Yen")]}))
    await shop.load(batch(2, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}))
    assert await shop.compare(batch(3, {"fact_sale": [sale(8, "Yen", LEAP_DAY + 1)]}, [there("item", numbers(7))])) == []
    await shop.load(batch(4, {}, gone={"item": numbers(7)}))
    assert await shop.compare(batch(5, {}, [there("item", numbers(8))])) == []


async def test_a_comparison_leaves_inferred_members_alone_while_a_fact_refers_to_them(shop: Shop) -> None:
    await shop.load(batch(1, {"fact_sale": [sale(7, "Pound")]}))
    await shop.compare(batch(2, {}, [there("item", ())]))
    assert [question.table.name for question in shop.questions] == ["fact_sale"]


async def test_a_late_image_below_a_comparison_is_asked_about_and_dies_with_the_answer(shop: Shop) -> None:
    await shop.compare(batch(5, {"dim_maker": ada(9)}, [there("maker", ())]))
    assert await shop.compare(batch(4, {"dim_maker": ada(1, 9)})) == [(1,)]
    (question,) = shop.questions
    assert (question.table, question.run) == (MAKER, 5)
    await shop.load(batch(6, {}, gone={"maker": question.keys}, answers=question.id))
    assert await makers(shop) == {1: ("Ada", 4, True), 9: ("Ada", 5, False)}


async def test_a_late_image_that_has_its_tombstone_or_is_older_than_the_star_s_is_not_asked_about(shop: Shop) -> None:
    await shop.compare(batch(3, {"dim_maker": ada(2)}), batch(5, {}, [there("maker", numbers(2))]))
    await shop.load(batch(6, {}, gone={"maker": numbers(1)}))
    assert await shop.compare(batch(2, {"dim_maker": ada(1, 2)})) == []


async def test_a_late_image_repeats_that_an_empty_table_is_believed(shop: Shop) -> None:
    await shop.compare(batch(5, {}, [there("maker", (), believe_empty=True)]))
    await shop.load(batch(4, {"dim_maker": ada(1)}))
    assert [question.believe_empty for question in shop.questions] == [True]


async def test_an_image_that_came_before_the_comparison_began_is_left_to_it(shop: Shop) -> None:
    first, last = batch(5, {}, [there("maker", ())]), batch(5, {}, index=1)
    recorded = dataclasses.replace(first, event=renamed(first, is_last=False))
    assert await shop.compare(recorded, batch(4, {"dim_maker": ada(1)})) == []
    assert await shop.compare(last) == [(1,)]


async def test_a_comparison_waits_for_every_batch_of_its_run(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    last = batch(2, {}, [there("maker", numbers(2))], index=1)
    assert await shop.compare(last) == []
    assert await shop.compare(batch(2, {"dim_maker": ada(3)}, is_last=False)) == [(1,)]


async def test_a_comparison_waits_for_an_earlier_run_while_it_makes_progress_and_not_for_a_dead_batch(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    await shop.load(batch(2, {"dim_maker": ada(3)}, is_last=False))
    assert await shop.compare(batch(3, {}, [there("maker", numbers(2, 3))])) == []
    await shop.age()
    assert await shop.compare() == [(1,)]


async def test_the_hashes_of_a_later_run_replace_those_of_an_earlier_one_and_never_the_other_way(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2, 3)}))
    later, earlier = batch(5, {}, [there("maker", numbers(2, 3))]), batch(4, {}, [there("maker", numbers(3))])
    assert await shop.compare(later, earlier) == [(1,)]
    assert {question.run for question in shop.questions} == {5}


async def test_a_comparison_whose_question_could_not_be_sent_is_made_again_with_the_same_question(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    await shop.load(batch(2, {}, [there("maker", numbers(2))]))

    async def fail(question: Question) -> None:
        await shop.ask(question)
        raise TransientError("the queue is throttled")

    with pytest.raises(TransientError, match="throttled"):
        await shop.warehouse.compare_keys(fail)
    assert await shop.compare() == [(1,)]
    assert len(shop.questions) == 2 and shop.questions[0] == shop.questions[1]  # noqa: PT018
    assert await shop.compare() == []


async def test_missing_keys_alone_are_asked_about_in_parts_that_take_turns(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the rows of a dead letter are missing: every bucket has fewer keys than the source's."""
    monkeypatch.setattr("services.loading.questions.UNLIKELY_KEYS", 300)
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 901))}))
    hashes = there("maker", numbers(*range(1, 1800)))
    asked, parts = set[Key](), []
    for run in range(10, 60, 10):
        part = await shop.compare(batch(run, {}, [hashes]))
        asked |= set(part)
        parts.append(len(part))
    assert all(0 < part <= 300 for part in parts)
    assert asked == set(numbers(*range(1, 901)))


async def test_many_keys_are_cut_into_questions_of_bounded_size(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.loading.questions.QUESTION_BYTES", 100)
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 101))}))
    assert sorted(await shop.compare(batch(2, {}, [there("maker", ())]))) == numbers(*range(1, 101))
    assert all(len(json.dumps(question.keys, separators=(",", ":"))) <= 102 for question in shop.questions)
    assert len({question.id for question in shop.questions}) == len(shop.questions) > 1


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_and_any_repetition_gives_the_same_rows(shop: Shop, seed: int) -> None:
    """Every question is answered by the run after all others, with what the source has in the end."""
    batches = [
        batch(1, {"dim_maker": ada(1, 2), "fact_sale": [sale(7, "Pound")]}),
        batch(2, {"dim_maker": [(1, "Eve", "Leeds")]}, [there("maker", ())]),
        batch(3, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}, [there("item", ())]),
        batch(4, {"dim_maker": [(3, "Kit", "Hull")]}, [there("maker", ()), there("item", ())]),
    ]
    messages = [*batches, *batches]
    Random(seed).shuffle(messages)  # noqa: S311 (an order)
    for message in messages:
        await shop.compare(message)
    await shop.age()
    await shop.compare()
    for question in [*shop.questions, *shop.questions]:
        gone = {question.table.source: [key for key in question.keys if key != (3,)]}
        await shop.compare(batch(5, {}, gone=gone, answers=question.id))
    assert await makers(shop) == {1: ("Eve", 2, True), 2: ("Ada", 1, True), 3: ("Kit", 4, False)}
    assert await sales(shop) == {("Pound", 1, False), ("Euro", 3, True)}


async def test_a_batch_that_fails_leaves_nothing(shop: Shop) -> None:
    await shop.compare(batch(5, {"dim_maker": ada(2)}, [there("maker", ())]))

    async def fail(question: Question) -> None:
        raise TransientError(f"{question.id} is throttled")

    failing = batch(2, {"dim_maker": ada(1, 2), "fact_sale": [sale(7, "Pound")]})
    with pytest.raises(TransientError, match="throttled"):
        await shop.warehouse.load(failing, fail)
    assert not await shop.warehouse.has(failing.event.data.batch_id)
    assert await makers(shop) == {2: ("Ada", 5, False)}
    assert await shop.warehouse.rows(SALE) == []
    assert await shop.compare(failing) == [(1,)]


async def test_a_second_source_is_refused(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1)}))
    other = batch(2, {"dim_maker": [(1, "Eve", "Leeds")]})
    with pytest.raises(PermanentError, match="contains the rows of source 'shop'"):
        await shop.load(Batch(renamed(other, source_name="other"), other.rows))
    assert await makers(shop) == {1: ("Ada", 1, False)}


def renamed(given: Batch, **update: object) -> BatchLoaded:
    """The event of a batch with other data."""
    return given.event.model_copy(update={"data": given.event.data.model_copy(update=update)})
