"""What every warehouse promises about data sets with a version column, in memory and on PostgreSQL."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.fixtures.shop_warehouse import Shop
from tests.fixtures.versioned_products import STAR, Held, budgets, held, products

pytestmark = pytest.mark.parametrize("star", [STAR], ids=["versioned"])


async def test_the_greatest_version_stays_whatever_its_run_and_of_equal_ones_the_last(shop: Shop) -> None:
    await shop.load(products(1, 0, (1, 5, "five")))
    await shop.load(products(2, 0, (1, 4, "four"), (2, 1, "one")))
    assert await held(shop.warehouse) == {1: Held("five", 5, 1, is_dead=False), 2: Held("one", 1, 2, is_dead=False)}
    await shop.load(products(4, 0, (1, 5, "corrected")))
    await shop.load(products(3, 0, (1, 5, "late")))
    assert (await held(shop.warehouse))[1] == Held("corrected", 5, 4, is_dead=False)
    await shop.load(products(5, 0, (1, 6, "six")))
    assert (await held(shop.warehouse))[1] == Held("six", 6, 5, is_dead=False)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_a_row_of_a_whole_snapshot_is_newer_than_every_version_of_before_it(shop: Shop, order: tuple[int, ...]) -> None:
    """Run 3 is the snapshot, run 2 was before it, and run 4 is after it."""
    batches = [products(2, 1, (1, 9, "before")), products(3, 3, (1, 5, "snapshot")), products(4, 3, (1, 4, "after"))]
    for index in order:
        await shop.load(batches[index])
    assert (await held(shop.warehouse))[1] == Held("snapshot", 5, 3, is_dead=False)


async def test_of_several_versions_in_one_batch_the_greatest_stays(shop: Shop) -> None:
    await shop.load(products(1, 0, (1, 5, "five"), (1, 7, "seven"), (1, 6, "six")))
    assert await held(shop.warehouse) == {1: Held("seven", 7, 1, is_dead=False)}


async def test_a_batch_of_the_same_run_that_comes_again_corrects_the_row(shop: Shop) -> None:
    """As after a replay of the quarantine under a corrected contract."""
    for name in ("wrong", "right"):
        await shop.load(products(1, 0, (1, 5, name)))
    assert await held(shop.warehouse) == {1: Held("right", 5, 1, is_dead=False)}


async def test_an_image_of_any_version_replaces_an_inferred_member(shop: Shop) -> None:
    await shop.load(budgets(2, 1))
    assert (await held(shop.warehouse))[1].run == 0
    await shop.load(products(1, 0, (1, -5, "real")))
    assert await held(shop.warehouse) == {1: Held("real", -5, 1, is_dead=False)}


async def test_a_row_that_a_snapshot_lacked_is_alive_again_with_any_version(shop: Shop) -> None:
    """Run 3 is a snapshot without row 1, which a run answers to be gone, and run 5 brings it again with a lower version."""
    batches = [products(2, 1, (1, 9, "before")), products(4, 0, gone=[(1,)]), products(5, 3, (1, 4, "again"))]
    await shop.load(batches[0])
    await shop.load(batches[1])
    assert (await held(shop.warehouse))[1] == Held("before", 9, 2, is_dead=True)
    await shop.load(batches[2])
    assert (await held(shop.warehouse))[1] == Held("again", 4, 5, is_dead=False)


async def test_a_row_that_comes_late_after_a_snapshot_without_it_is_asked_about(shop: Shop) -> None:
    assert await shop.compare(products(3, 3, (2, 1, "there"), is_whole=True)) == []
    await shop.load(products(1, 0, (1, 9, "late")))
    (question,) = shop.questions
    assert question.keys == ((1,),)
    await shop.load(products(4, 0, gone=question.keys))
    await shop.load(products(2, 0, (1, 10, "later")))
    assert (await held(shop.warehouse))[1] == Held("later", 10, 2, is_dead=True)
