"""What every warehouse promises about deleted rows, in memory and on PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import pytest

from contracts.key_hashes import KEYS_PER_BUCKET, SUMMED_BITS
from services.loading.memory_warehouse import MemoryWarehouse
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.warehouse import Question
from shared.errors import TransientError
from shared.key_hashes import hash_of
from shared.source_keys import Key
from tests.fixtures.shop_warehouse import (
    BEGAN,
    ITEM,
    LEAP_DAY,
    MAKER,
    Shop,
    ada,
    batch,
    makers,
    numbers,
    renamed,
    sale,
    sales,
    there,
)
from tests.fixtures.small_contract import DIM_ITEM, SHOP, with_table


async def test_a_row_is_marked_whether_its_tombstone_or_its_image_comes_first(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 3)}))
    assert await shop.load(batch(5, {}, gone={"maker": numbers(1, 2)})) == 1
    await shop.load(batch(4, {"dim_maker": ada(2)}))
    assert await makers(shop) == {1: ("Ada", 1, True), 2: ("Ada", 4, True), 3: ("Ada", 1, False)}


async def test_a_tombstone_marks_every_star_table_and_the_newest_version_of_a_fact(shop: Shop) -> None:
    await shop.load(batch(1, {"fact_sale": [sale(7, "Pound"), sale(8, "Yen")]}))
    await shop.load(batch(2, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}))
    assert await shop.load(batch(3, {}, gone={"item": numbers(7)})) == 2
    assert await sales(shop) == {("Pound", 1, False), ("Euro", 2, True), ("Yen", 1, False)}
    found = {row.columns["item_id"]: row.deleted_at for row in await shop.warehouse.rows(ITEM)}
    assert found == {7: BEGAN + timedelta(seconds=3), 8: None}


async def test_an_inferred_member_is_marked_whether_it_or_its_tombstone_comes_first(shop: Shop) -> None:
    await shop.load(batch(5, {}, gone={"item": numbers(7)}))
    await shop.load(batch(4, {"fact_sale": [sale(7, "Pound")]}))
    assert [row.deleted_at for row in await shop.warehouse.rows(ITEM)] == [BEGAN + timedelta(seconds=5)]


async def test_the_member_of_an_unknown_key_is_neither_asked_about_nor_marked(shop: Shop) -> None:
    contract = with_table(SHOP, dataclasses.replace(DIM_ITEM, unknown="7"))
    shop.warehouse = MemoryWarehouse(contract) if shop.database is None else PostgresWarehouse(shop.database, contract)
    await shop.load(batch(3, {"fact_sale": [sale(7, "Pound"), sale(8, "Yen")]}))
    assert await shop.compare(batch(4, {}, [there("item", ())])) == [(7,), (8,)]
    assert {question.table.name for question in shop.questions} == {"fact_sale"}
    assert await shop.load(batch(5, {}, gone={"item": numbers(7, 8)})) == 3
    found = {row.columns["item_id"]: row.deleted_at for row in await shop.warehouse.rows(contract.warehouse_table("dim_item"))}
    assert found == {7: None, 8: BEGAN + timedelta(seconds=5)}


async def test_a_row_that_a_filter_rejects_is_marked_in_its_table_alone_in_either_order(shop: Shop) -> None:
    rejecting = dataclasses.replace(batch(3, {"fact_sale": [sale(8, "Yen")]}), rejected={"fact_sale": tuple(numbers(7))})
    for one in (rejecting, batch(2, {"fact_sale": [sale(7, "Pound")]}), rejecting):
        await shop.load(one)
    assert await sales(shop) == {("Pound", 2, True), ("Yen", 3, False)}
    assert [row.deleted_at for row in await shop.warehouse.rows(ITEM)] == [None, None]
    await shop.load(batch(4, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}))
    assert await sales(shop) == {("Pound", 2, False), ("Yen", 3, False), ("Euro", 4, False)}


async def test_older_versions_after_the_tombstone_leave_the_mark_on_the_newest(shop: Shop) -> None:
    await shop.load(batch(9, {}, gone={"item": numbers(7)}))
    for run, currency in ((5, "Euro"), (7, "Yen"), (3, "Pound")):
        await shop.load(batch(run, {"fact_sale": [sale(7, currency, LEAP_DAY + run)]}))
    assert await sales(shop) == {("Pound", 3, False), ("Euro", 5, False), ("Yen", 7, True)}


async def test_the_tombstone_of_the_higher_run_wins_in_either_order(shop: Shop) -> None:
    await shop.load(batch(4, {"dim_maker": ada(1, 2)}))
    for run, keys in ((6, numbers(1)), (3, numbers(1, 2)), (5, numbers(2))):
        await shop.load(batch(run, {}, gone={"maker": keys}))
    rows = {row.columns["maker_id"]: row.deleted_at for row in await shop.warehouse.rows(MAKER)}
    assert rows == {1: BEGAN + timedelta(seconds=6), 2: BEGAN + timedelta(seconds=5)}


async def test_a_row_that_returns_is_alive_and_its_late_older_image_changes_nothing(shop: Shop) -> None:
    await shop.load(batch(1, {"fact_sale": [sale(7, "Pound")]}))
    await shop.load(batch(5, {}, gone={"item": numbers(7)}))
    await shop.load(batch(6, {"fact_sale": [sale(7, "Euro", LEAP_DAY + 1)]}))
    assert await sales(shop) == {("Pound", 1, False), ("Euro", 6, False)}
    await shop.load(batch(4, {"fact_sale": [sale(7, "Yen", LEAP_DAY + 2)]}))
    assert await sales(shop) == {("Pound", 1, False), ("Yen", 4, False), ("Euro", 6, False)}
    assert await shop.compare(batch(7, {}, [there("item", numbers(7))])) == []


async def test_equal_hashes_raise_no_question_even_if_rows_have_changed(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 50))}))
    changed = batch(2, {"dim_maker": ada(3, 50)}, [there("maker", numbers(*(key for key in range(1, 50) if key != 3)))])
    assert await shop.compare(changed) == []
    assert shop.questions == []


async def test_a_single_surplus_key_in_a_bucket_is_asked_about_alone(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, KEYS_PER_BUCKET + 1))}))
    hashes = there("maker", numbers(*(key for key in range(1, KEYS_PER_BUCKET + 1) if key != 12)))
    assert len(hashes.counts) == 1
    assert await shop.compare(batch(2, {}, [hashes])) == [(12,)]
    (question,) = shop.questions
    assert (question.table, question.run, question.believe_empty) == (MAKER, 2, False)
    assert await shop.compare() == []


async def test_several_surplus_keys_in_a_bucket_make_all_its_keys_questionable(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, KEYS_PER_BUCKET + 1))}))
    hashes = there("maker", numbers(*range(11, KEYS_PER_BUCKET + 1)))
    assert await shop.compare(batch(2, {}, [hashes])) == numbers(*range(1, KEYS_PER_BUCKET + 1))


async def test_only_the_bucket_that_differs_is_asked_about(shop: Shop) -> None:
    keys = numbers(*range(1, 8 * KEYS_PER_BUCKET + 1))
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 8 * KEYS_PER_BUCKET + 1))}))
    hashes = there("maker", keys[2:])
    first, second = (hash_of(key) >> SUMMED_BITS & len(hashes.counts) - 1 for key in keys[:2])
    assert len(hashes.counts) == 8
    assert first != second
    assert sorted(await shop.compare(batch(2, {}, [hashes]))) == keys[:2]


async def test_one_missing_and_two_deleted_keys_in_a_bucket_are_not_taken_for_one(shop: Shop) -> None:
    """The star has one key more; no key has the difference of the sums."""
    await shop.load(batch(1, {"dim_maker": ada(1, 2, 3)}))
    assert await shop.compare(batch(2, {}, [there("maker", numbers(3, 4))])) == numbers(1, 2, 3)


async def test_a_full_run_sends_one_empty_bucket_and_asks_about_rows_it_did_not_bring(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 10))}))
    assert await shop.compare(batch(2, {"dim_maker": ada(*range(2, 10))}, [there("maker", ())])) == [(1,)]


async def test_keys_of_several_columns_are_hashed_and_marked_deleted(shop: Shop) -> None:
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


async def test_a_comparison_skips_inferred_members_that_a_fact_references(shop: Shop) -> None:
    await shop.load(batch(1, {"fact_sale": [sale(7, "Pound")]}))
    await shop.compare(batch(2, {}, [there("item", ())]))
    assert [question.table.name for question in shop.questions] == ["fact_sale"]


async def test_a_late_image_from_before_a_comparison_is_asked_about_and_marked_by_the_answer(shop: Shop) -> None:
    await shop.compare(batch(5, {"dim_maker": ada(9)}, [there("maker", ())]))
    assert await shop.compare(batch(4, {"dim_maker": ada(1, 9)})) == [(1,)]
    (question,) = shop.questions
    assert (question.table, question.run) == (MAKER, 5)
    await shop.load(batch(6, {}, gone={"maker": question.keys}, answers=question.id))
    assert await makers(shop) == {1: ("Ada", 4, True), 9: ("Ada", 5, False)}


async def test_a_late_image_with_a_tombstone_or_a_newer_row_is_not_asked_about(shop: Shop) -> None:
    await shop.compare(batch(3, {"dim_maker": ada(2)}), batch(5, {}, [there("maker", numbers(2))]))
    await shop.load(batch(6, {}, gone={"maker": numbers(1)}))
    assert await shop.compare(batch(2, {"dim_maker": ada(1, 2)})) == []


async def test_a_question_about_a_late_image_repeats_believe_empty(shop: Shop) -> None:
    await shop.compare(batch(5, {}, [there("maker", (), believe_empty=True)]))
    await shop.load(batch(4, {"dim_maker": ada(1)}))
    assert [question.believe_empty for question in shop.questions] == [True]


async def test_a_late_image_whose_question_could_not_be_sent_is_not_loaded_and_asks_when_its_batch_comes_again(
    shop: Shop,
) -> None:
    """Loaded first and asked about afterwards, a crash in between would leave a deleted row that no question names."""
    await shop.compare(batch(5, {}, [there("maker", ())]))
    late = batch(4, {"dim_maker": ada(1)})

    async def fail(_question: Question) -> None:
        raise TransientError("the queue is throttled")

    with pytest.raises(TransientError, match="throttled"):
        await shop.warehouse.load(late, fail)
    assert not await shop.warehouse.has(late.event.data.batch_id)
    assert await makers(shop) == {}
    assert await shop.compare(late) == [(1,)]


async def test_an_image_loaded_before_the_comparison_began_is_left_to_it(shop: Shop) -> None:
    first, last = batch(5, {}, [there("maker", ())]), batch(5, {}, index=1)
    recorded = dataclasses.replace(first, event=renamed(first, is_last=False))
    assert await shop.compare(recorded, batch(4, {"dim_maker": ada(1)})) == []
    assert await shop.compare(last) == [(1,)]


async def test_a_comparison_waits_for_every_batch_of_its_run(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    last = batch(2, {}, [there("maker", numbers(2))], index=1)
    assert await shop.compare(last) == []
    assert await shop.compare(batch(2, {"dim_maker": ada(3)}, is_last=False)) == [(1,)]


async def test_a_comparison_waits_for_an_earlier_run_in_progress_but_not_for_a_dead_batch(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    await shop.load(batch(2, {"dim_maker": ada(3)}, is_last=False))
    assert await shop.compare(batch(3, {}, [there("maker", numbers(2, 3))])) == []
    await shop.age()
    assert await shop.compare() == [(1,)]


async def test_only_hashes_of_a_later_run_replace_stored_hashes(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2, 3)}))
    later, earlier = batch(5, {}, [there("maker", numbers(2, 3))]), batch(4, {}, [there("maker", numbers(3))])
    assert await shop.compare(later, earlier) == [(1,)]
    assert {question.run for question in shop.questions} == {5}


async def test_a_comparison_whose_question_was_not_sent_is_repeated_with_the_same_question(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    await shop.load(batch(2, {}, [there("maker", numbers(2))]))

    async def fail(question: Question) -> None:
        await shop.ask(question)
        raise TransientError("the queue is throttled")

    with pytest.raises(TransientError, match="throttled"):
        await shop.warehouse.compare_keys(fail)
    assert await shop.compare() == [(1,)]
    first, again = shop.questions
    assert first == again
    assert await shop.compare() == []


async def test_buckets_with_only_missing_keys_are_asked_about_in_turns(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens when the rows of a dead letter are missing: every bucket has fewer keys than the source's."""
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


async def test_many_keys_are_split_into_questions_of_bounded_size(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.loading.questions.QUESTION_BYTES", 100)
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 101))}))
    assert sorted(await shop.compare(batch(2, {}, [there("maker", ())]))) == numbers(*range(1, 101))
    assert all(len(json.dumps(question.keys, separators=(",", ":"))) <= 102 for question in shop.questions)
    assert len({question.id for question in shop.questions}) == len(shop.questions) > 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_row_that_its_run_also_found_gone_is_alive(shop: Shop, order: tuple[int, ...]) -> None:
    """As when a filter has rejected it, and a corrected contract accepts the same image when its batch comes again."""
    batches = [batch(3, {}, gone={"maker": [(1,)]}), batch(3, {"dim_maker": ada(1)})]
    for index in order:
        await shop.load(batches[index])
    assert await makers(shop) == {1: ("Ada", 3, False)}
