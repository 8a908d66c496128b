"""What `Source` promises to the tasks that share a snapshot, on the fake and on PostgreSQL."""

from __future__ import annotations

import pytest

from contracts.messages import KeyRange, Role
from contracts.tables import SourceTable
from services.ingestion.source import BatchLimits, OpenSnapshot, SnapshotLostError, TablePart
from tests.fixtures.applications import ITEM, Scene, item, maker, rows_of, shelf
from tests.fixtures.small_contract import SHELF

EVERYTHING = KeyRange()
LABELS = ["a'b", "", "é", "two\nlines", "\\"]


async def ranges(
    snapshot: OpenSnapshot, table: SourceTable, row_count: int, within: KeyRange = EVERYTHING
) -> list[tuple[object, object]]:
    return [(rows.after, rows.until) async for rows in snapshot.ranges(table, within, row_count)]


async def test_a_table_is_cut_into_ranges_of_so_many_rows(scene: Scene) -> None:
    await scene.put("item", *map(item, (3, 5, 8, 9, 20)))
    async with scene.source.open_snapshot() as snapshot:
        assert await ranges(snapshot, ITEM, 2) == [(None, (5,)), ((5,), (9,)), ((9,), None)]
        assert await ranges(snapshot, ITEM, 5) == [(None, (20,)), ((20,), None)]
        assert await ranges(snapshot, ITEM, 6) == [(None, None)]
        assert await ranges(snapshot, ITEM, 1, KeyRange(after=(4,), until=(9,))) == [
            ((4,), (5,)),
            ((5,), (8,)),
            ((8,), (9,)),
        ]
        assert await ranges(snapshot, SHELF, 2) == [(None, None)]


async def test_the_parts_of_a_table_have_every_row_once_with_its_partner(scene: Scene) -> None:
    await scene.put("maker", maker(1), maker(2))
    await scene.put("item", *(item(number, 1 + number % 2) for number in range(1, 8)))
    await scene.put("shelf", *(shelf(row, label) for row in (1, 2) for label in LABELS))
    async with scene.source.open_snapshot() as snapshot:
        plan = scene.plan(snapshot)
        for table, whole in ((ITEM, 7), (SHELF, 10)):
            read = []
            async for rows in snapshot.ranges(table, EVERYTHING, 3):
                found = await rows_of(snapshot, plan, BatchLimits(rows=2), TablePart(table, rows))
                read += found.get((table.name, Role.BASE), [])
                if table is ITEM and read:
                    assert {row["maker_id"] for row in found["item", Role.BASE]} == {
                        row["maker_id"] for row in found["maker", Role.PARTNER]
                    }
            keys = [tuple(row[name] for name in table.key) for row in read]
            assert (len(keys), len(set(keys))) == (whole, whole)


async def test_who_joins_a_snapshot_sees_its_instant(scene: Scene) -> None:
    await scene.put("item", item(1), item(2), item(3))
    async with scene.source.open_snapshot() as snapshot:
        exported = await snapshot.export()
        await scene.put("item", item(1, None, "changed"), item(4))
        await scene.delete("item", (2,))
        for _ in range(2):
            async with scene.source.join_snapshot(exported) as joined:
                assert joined.facts.snapshot.horizon == snapshot.facts.snapshot.horizon
                assert joined.facts.next_xid == snapshot.facts.next_xid
                assert (await rows_of(joined, scene.plan(joined), BatchLimits()))["item", Role.BASE] == [
                    item(1),
                    item(2),
                    item(3),
                ]


async def test_a_snapshot_that_no_one_holds_open_is_lost(scene: Scene) -> None:
    async with scene.source.open_snapshot() as snapshot:
        exported = await snapshot.export()
    for name in (exported, "00000009-00000001-1", "no name's form"):
        with pytest.raises(SnapshotLostError):
            async with scene.source.join_snapshot(name):
                pass
