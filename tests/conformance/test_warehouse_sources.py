"""What every warehouse promises about a star of several sources, in memory and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from services.loading.warehouse import Batch
from shared.errors import PermanentError
from tests.fixtures.several_sources import SEVERAL
from tests.fixtures.shop_warehouse import LEAP_DAY, Shop, ada, batch, makers, numbers, renamed, sale, there

REGION = SEVERAL.warehouse_table("dim_region")
REAL_ITEM = (7, None, 15_000, "abc", None, True, LEAP_DAY, 0, LEAP_DAY * 86_400_000_000, "calm", None, None)

pytestmark = pytest.mark.parametrize("star", [SEVERAL], ids=["several"])


def of(source: str, given: Batch) -> Batch:
    return replace(given, event=renamed(given, source_name=source))


def budget(run: int, *keys: int, item: int = 7, region: int = 1) -> Batch:
    return of("plans", batch(run, {"fact_budget": [(key, item, region, LEAP_DAY, 100_00) for key in keys]}))


async def found(shop: Shop, name: str) -> dict[object, tuple[int, bool]]:
    """By key: run, and whether the row is dead."""
    table = SEVERAL.warehouse_table(name)
    return {row.columns[table.key[0]]: (row.run, row.deleted_at is not None) for row in await shop.warehouse.rows(table)}


@pytest.mark.parametrize("seed", range(3))
async def test_sources_whose_runs_have_any_numbers_give_the_same_star_in_any_order(shop: Shop, seed: int) -> None:
    """The facts' source counts from 1,000, those of the dimensions from 1, and two runs have one number."""
    batches = [
        budget(1_000, 1),
        budget(1_001, 2, item=8, region=2),
        batch(1, {"dim_maker": ada(1), "dim_item": [REAL_ITEM]}),
        of("regions", batch(1, {"dim_region": [(1, "North")]})),
        of("regions", batch(2, {"dim_region": [(1, "Far North")]})),
    ]
    messages = [*batches, *batches]
    Random(seed).shuffle(messages)  # noqa: S311 (an order)
    for message in messages:
        await shop.compare(message)
    assert await found(shop, "fact_budget") == {1: (1_000, False), 2: (1_001, False)}
    assert await found(shop, "dim_item") == {7: (1, False), 8: (0, False)}
    assert await found(shop, "dim_region") == {1: (2, False), 2: (0, False)}
    names = {row.columns["region_id"]: row.columns["region_name"] for row in await shop.warehouse.rows(REGION)}
    assert names == {1: "Far North", 2: "(unknown)"}


async def test_a_comparison_asks_about_rows_of_its_own_source(shop: Shop) -> None:
    await shop.load(budget(1_000, 1, 2))
    await shop.load(of("regions", batch(1, {"dim_region": [(1, "North"), (3, "South")]})))
    assert await shop.compare(of("regions", batch(2, {}, [there("region", numbers(1))]))) == [(3,)]
    (question,) = shop.questions
    assert (question.source_name, question.table) == ("regions", REGION)
    assert await shop.load(of("regions", batch(3, {}, gone={"region": numbers(3)}, answers=question.id))) == 1
    assert await found(shop, "dim_region") == {1: (1, False), 3: (1, True)}
    assert await found(shop, "fact_budget") == {1: (1_000, False), 2: (1_000, False)}


async def test_a_comparison_does_not_wait_for_an_incomplete_run_of_another_source(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1)}, is_last=False))
    await shop.load(of("regions", batch(2, {"dim_region": [(1, "North")]})))
    assert await shop.compare(of("regions", batch(3, {}, [there("region", ())]))) == [(1,)]


async def test_two_first_loads_at_once_give_the_same_star(shop: Shop) -> None:
    """The first batch of the second source ends the bulk load of the first one, whose other batches are merged."""
    await shop.load(batch(5, {"dim_item": [REAL_ITEM]}, is_last=False))
    await shop.load(budget(5, 1, 2))
    await shop.load(batch(5, {"dim_maker": ada(1), "fact_sale": [sale(7, "Pound")]}, index=1))
    assert await found(shop, "dim_item") == {7: (5, False)}
    assert await found(shop, "fact_budget") == {1: (5, False), 2: (5, False)}
    assert await makers(shop) == {1: ("Ada", 5, False)}
    for source in ("shop", "plans"):
        await shop.warehouse.finish_run(source, 5)


async def test_a_table_that_moves_to_another_source_is_refused(shop: Shop) -> None:
    moved = batch(7, {"dim_region": [(1, "North")]})
    await shop.load(budget(1, 1))
    await shop.load(moved)
    with pytest.raises(PermanentError, match="rows of source 'shop'"):
        await shop.load(of("regions", batch(8, {"dim_region": [(1, "South")]})))
