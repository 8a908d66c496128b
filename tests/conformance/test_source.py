"""What `Source` promises, on the fake and on PostgreSQL: a run may rely on what holds for both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts.column_types import TEXT
from contracts.expressions import Literal, Operation, ReadColumn
from contracts.messages import LookUpKeysData, Mode, Role, RowsOf
from services.ingestion.source import BatchLimits
from shared.errors import PermanentError
from shared.key_hashes import sums_of, table_hashes
from tests.fixtures.applications import (
    AN_ITEM,
    ITEM,
    MAKER,
    Scene,
    compares,
    item,
    maker,
    rows_of,
)
from tests.fixtures.small_contract import SHELF


async def test_the_first_run_reads_every_row_with_its_partner(scene: Scene) -> None:
    await scene.put("maker", maker(1), maker(2, None))
    await scene.put("item", item(1, 1, "as new"), item(2, None, ""), item(3, 7))
    assert await scene.run() == {
        ("maker", Role.BASE): [maker(1), maker(2, None)],
        ("item", Role.BASE): [item(1, 1, "as new"), item(2, None, ""), item(3, 7)],
        ("maker", Role.PARTNER): [maker(1)],
    }


async def test_a_source_without_rows_has_no_pages(scene: Scene) -> None:
    assert await scene.run() == {}


async def test_a_run_after_which_nothing_changed_reads_nothing(scene: Scene) -> None:
    await scene.put("item", item(1))
    await scene.run()
    assert await scene.run() == {}


async def test_a_changed_row_is_read_with_its_unchanged_partner(scene: Scene) -> None:
    await scene.put("maker", maker(1), maker(2))
    await scene.put("item", item(1, 1), item(2, 2))
    await scene.run()
    await scene.put("item", item(2, 2, "sold"))
    assert await scene.run() == {("item", Role.BASE): [item(2, 2, "sold")], ("maker", Role.PARTNER): [maker(2)]}


async def test_a_row_is_affected_when_its_partner_changed(scene: Scene) -> None:
    await scene.put("maker", maker(1), maker(2))
    await scene.put("item", item(1, 1), item(2, 2), item(3, 1))
    await scene.run()
    await scene.put("maker", maker(1, "York"))
    assert await scene.run() == {
        ("maker", Role.BASE): [maker(1, "York")],
        ("item", Role.BASE): [item(1, 1), item(3, 1)],
        ("maker", Role.PARTNER): [maker(1, "York")],
    }


async def test_a_transaction_that_was_open_during_a_run_is_read_by_the_next_run(scene: Scene) -> None:
    async with scene.application.transaction() as late:
        await late.put("item", item(1))
        await scene.put("item", item(2))
        assert await scene.run() == {("item", Role.BASE): [item(2)]}
    assert item(1) in (await scene.run())["item", Role.BASE]
    assert await scene.run() == {}


async def test_a_snapshot_shows_one_instant_however_long_reading_takes(scene: Scene) -> None:
    await scene.put("item", item(1), item(2))
    async with scene.source.open_snapshot() as snapshot:
        await scene.put("item", item(1, None, "changed"), item(3))
        await scene.delete("item", (2,))
        plan = scene.plan(snapshot)
        assert await rows_of(snapshot, plan, BatchLimits()) == {("item", Role.BASE): [item(1), item(2)]}
        assert await snapshot.missing_keys(ITEM, [(3,), (2,)]) == ((3,),)
    scene.remember(snapshot, plan)
    assert await scene.run() == {("item", Role.BASE): [item(1, None, "changed"), item(3)]}


async def test_rows_are_looked_up_by_key_and_keys_without_a_row_are_skipped(scene: Scene) -> None:
    await scene.put("maker", maker(1))
    await scene.put("item", item(1, 1), item(2))
    await scene.put("shelf", {"row": 1, "label": "a'b", "width": 3}, {"row": 1, "label": "c", "width": 4})
    await scene.run()
    asked = RowsOf(table="item", keys=((1,), (99,))), RowsOf(table="shelf", keys=((1, "a'b"), (2, "c")))
    assert await scene.run(reread=asked) == {
        ("item", Role.BASE): [item(1, 1)],
        ("maker", Role.PARTNER): [maker(1)],
        ("shelf", Role.BASE): [{"row": 1, "label": "a'b", "width": 3}],
    }


async def test_a_look_up_in_a_table_outside_the_contract_is_refused(scene: Scene) -> None:
    await scene.run()
    with pytest.raises(PermanentError, match=r"^'basket' with keys of that length is not in contract 'conformance'"):
        await scene.run(reread=(RowsOf(table="basket", keys=((1,),)),))


@pytest.mark.parametrize(
    ("table", "key", "form"),
    [
        ("shelf", (1, "a\x00"), "'label' is a text in UTF-8 without a NUL"),
        ("shelf", (1, 7), "'label' is a text"),
        ("shelf", ("1", "a"), "'row' is a whole number from -2147483648 to 2147483647"),
        ("item", ("abc",), "'item_id' is a whole number"),
        ("item", (2**31,), "'item_id' is a whole number"),
    ],
)
async def test_an_impossible_key_is_refused_in_one_sentence(
    scene: Scene, table: str, key: tuple[int | str, ...], form: str
) -> None:
    """Only a hand-written command has such a key; PostgreSQL ends the connection at a NUL, which looks like an outage."""
    await scene.run()
    asked = RowsOf(table="item", keys=((1,),)), RowsOf(table=table, keys=(key,))
    with pytest.raises(PermanentError, match=rf"^a key of '{table}' .*: {form}.*; correct the command$"):
        await scene.run(reread=asked)
    async with scene.source.open_snapshot() as snapshot:
        with pytest.raises(PermanentError, match=rf"^a key of '{table}' .*: {form}.*; correct the command$"):
            snapshot.plan(scene.checkpoint, LookUpKeysData(source_name="shop", rows=asked), 0)
    assert await scene.run() == {}


async def test_a_comparison_of_keys_also_reads_rows_that_lost_their_partner(scene: Scene) -> None:
    await scene.put("maker", maker(1), maker(2))
    await scene.put("item", item(1, 1), item(2, 2))
    await scene.run()
    await scene.delete("maker", (2,))
    assert await scene.run() == {}
    assert await scene.run(compare_keys=True) == {("item", Role.BASE): [item(2, 2)]}


LABELS = ['"', ",", "two\nlines", "\\", "\u2028", "é", "1:a", ""]


async def test_missing_keys_are_returned_as_they_were_given(scene: Scene) -> None:
    await scene.put("shelf", *({"row": number, "label": label, "width": 1} for number, label in enumerate(LABELS)))
    await scene.put("item", item(5))
    there = [(number, label) for number, label in enumerate(LABELS)]
    missing = [(number + 1, label) for number, label in enumerate(LABELS)]
    async with scene.source.open_snapshot() as snapshot:
        assert await snapshot.missing_keys(SHELF, [*missing, *there]) == tuple(missing)
        assert await snapshot.missing_keys(ITEM, [(5,), (2**40,), (-1,)]) == ((2**40,), (-1,))
        assert await snapshot.missing_keys(ITEM, []) == ()
        assert [await snapshot.is_empty(table) for table in (ITEM, MAKER)] == [False, True]


async def test_a_run_compares_the_keys_of_rows_it_does_not_read(scene: Scene) -> None:
    await scene.put("maker", maker(1), maker(2), maker(3))
    await scene.put("item", item(1, 1), item(2, 2), item(3, 3), item(4), item(5), item(6))
    await scene.put("shelf", *({"row": number, "label": label, "width": 1} for number, label in enumerate(LABELS)))
    await scene.run()
    await scene.put("maker", maker(1, "York"))  # a changed partner: item 1 is read
    await scene.delete("maker", (2,))  # a lost one: item 2
    await scene.put("item", item(4, None, "changed"))
    await scene.delete("item", (6,))
    async with scene.source.open_snapshot() as snapshot:
        plan = scene.plan(snapshot, compare_keys=True, reread=(RowsOf(table="item", keys=((5,),)),))
        read = await rows_of(snapshot, plan, BatchLimits())
        assert [row["item_id"] for row in read["item", Role.BASE]] == [1, 2, 4, 5]
        assert await compares(snapshot, plan, ITEM, (3,))
        assert await compares(snapshot, plan, SHELF, *((number, label) for number, label in enumerate(LABELS)))


async def test_the_hashes_and_rows_of_a_run_come_from_one_instant(scene: Scene) -> None:
    """A row that changed between the two would be in both, or in neither."""
    await scene.put("item", item(1), item(2), item(3))
    await scene.run()
    await scene.put("item", item(1, None, "changed"))
    async with scene.source.open_snapshot() as snapshot:
        plan = scene.plan(snapshot, compare_keys=True)
        assert await rows_of(snapshot, plan, BatchLimits()) == {("item", Role.BASE): [item(1, None, "changed")]}
        await scene.put("item", item(2, None, "too late"), item(4))
        await scene.delete("item", (1,), (3,))
        assert await compares(snapshot, plan, ITEM, (2,), (3,))
    scene.remember(snapshot, plan)
    async with scene.source.open_snapshot() as snapshot:
        plan = scene.plan(snapshot, compare_keys=True)
        found = await rows_of(snapshot, plan, BatchLimits())
        assert found == {("item", Role.BASE): [item(2, None, "too late"), item(4)]}
        assert await compares(snapshot, plan, ITEM)


async def test_a_table_with_a_filter_compares_the_keys_of_the_rows_that_it_accepts(scene: Scene) -> None:
    await scene.put("item", item(1, None, "sold"), item(2, None, "new"), item(3, None, None), item(4, None, "sold"))
    await scene.run()
    await scene.put("item", item(4, None, "sold again"))
    star = replace(AN_ITEM, where=Operation("equal", (ReadColumn(None, "note", TEXT), Literal("sold"))))
    async with scene.source.open_snapshot() as snapshot:
        found = await snapshot.key_hashes(scene.plan(snapshot, compare_keys=True), ITEM, star)
    assert found == table_hashes("item", sums_of([(1,)]), star_table="dim_item")


async def test_a_full_run_has_no_unread_keys_to_compare(scene: Scene) -> None:
    await scene.put("item", item(1))
    async with scene.source.open_snapshot() as snapshot:
        assert await compares(snapshot, scene.plan(snapshot), ITEM)


@pytest.mark.parametrize("rows", [1, 2, 100])
async def test_pages_respect_the_limit_and_contain_every_row_once(scene: Scene, rows: int) -> None:
    every = [item(number) for number in range(1, 8)]
    await scene.put("item", *every)
    async with scene.source.open_snapshot() as snapshot:
        pages = [page async for pages in snapshot.pages(scene.plan(snapshot), BatchLimits(rows=rows)) for page in pages]
    assert max(page.row_count for page in pages) <= rows
    read = [number for page in pages for number in (await page.frame)["item_id"].tolist()]
    assert read == [row["item_id"] for row in every]


async def test_a_full_run_also_reads_unchanged_rows(scene: Scene) -> None:
    await scene.put("item", item(1))
    await scene.run()
    assert await scene.run(mode=Mode.FULL) == {("item", Role.BASE): [item(1)]}


async def test_another_source_under_the_same_name_is_read_in_full(scene: Scene) -> None:
    await scene.put("item", item(1))
    await scene.run()
    assert scene.checkpoint is not None
    other = scene.checkpoint.identity.model_copy(update={"system_identifier": 42})
    scene.checkpoint = scene.checkpoint.model_copy(update={"identity": other})
    assert await scene.run() == {("item", Role.BASE): [item(1)]}


async def test_the_position_of_a_snapshot_never_decreases(scene: Scene) -> None:
    async with scene.source.open_snapshot() as first:
        await scene.put("item", item(1))
    async with scene.source.open_snapshot() as second:
        pass
    assert second.facts.snapshot.horizon >= first.facts.snapshot.horizon
    assert second.facts.snapshot.taken_at >= first.facts.snapshot.taken_at
    assert second.facts.identity == first.facts.identity
