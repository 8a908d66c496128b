"""What every warehouse promises about loading batches, in memory and on PostgreSQL."""

from __future__ import annotations

from datetime import date, datetime, time
from random import Random

import pytest

from services.loading.warehouse import Batch, Question
from shared.errors import PermanentError, TransientError
from tests.fixtures.shop_warehouse import (
    DAY,
    ITEM,
    LEAP_DAY,
    NOON,
    SALE,
    SOURCE,
    Shop,
    ada,
    batch,
    makers,
    renamed,
    sale,
    sales,
    there,
)


async def test_a_batch_is_loaded_once_and_recorded_in_the_ledger(shop: Shop) -> None:
    first = batch(1, {"dim_maker": ada(1)})
    assert not await shop.warehouse.has(first.event.data.batch_id)
    assert await shop.load(first) == 0
    assert await shop.load(first) is None
    assert await shop.warehouse.has(first.event.data.batch_id)
    await shop.warehouse.finish_run(SOURCE, 1)
    assert await makers(shop) == {1: ("Ada", 1, False)}


async def test_the_image_of_the_higher_run_wins_and_an_equal_image_raises_the_run(shop: Shop) -> None:
    for run, name in ((5, "Ada"), (7, "Ada"), (6, "Bob")):
        await shop.load(batch(run, {"dim_maker": [(1, name, "Leeds")]}))
    assert await makers(shop) == {1: ("Ada", 7, False)}


async def test_another_image_of_the_same_run_replaces_the_row(shop: Shop) -> None:
    for name in ("wrong", "Ada"):
        await shop.load(batch(5, {"dim_maker": [(1, name, "Leeds")]}))
    assert await makers(shop) == {1: ("Ada", 5, False)}


async def test_an_early_fact_gets_an_inferred_member_that_the_real_row_replaces(shop: Shop) -> None:
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


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_and_any_repetition_gives_the_same_rows(shop: Shop, seed: int) -> None:
    """Every question is answered by a final run, with the final state of the source."""
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
