"""What `Source` promises about joined rows, over any number of steps, on the fake and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from contracts.messages import Role, RowsOf
from services.ingestion.source import BatchLimits
from tests.fixtures.applications import Row, Scene, part, shelf
from tests.fixtures.small_contract import SHELF

PARTS = part(1, 2), part(2, 3), part(3, 1, 7, "a"), part(4, 3), part(5, 4, 7, "b"), part(6), part(7, 7, 7, "a")


def numbers(rows: Sequence[Row]) -> list[int]:
    return [row["part_id"] for row in rows]


async def test_a_row_is_read_with_every_row_on_its_paths_once(scene: Scene) -> None:
    await scene.put("shelf", shelf(7, "a"), shelf(7, "b"), shelf(8, "a"))
    await scene.put("part", *PARTS)
    found = await scene.run()
    assert found["part", Role.BASE] == list(PARTS)
    assert sorted(numbers(found["part", Role.PARTNER])) == [1, 2, 3, 4, 7]
    assert found["shelf", Role.PARTNER] == [shelf(7, "a")]
    await scene.put("part", part(1, 2, 8))
    found = await scene.run()  # 1 is the next of 3, and the next but one of 2 and 4
    assert numbers(found["part", Role.BASE]) == [1, 2, 3, 4]
    assert sorted(numbers(found["part", Role.PARTNER])) == [1, 2, 3]
    assert found["shelf", Role.PARTNER] == [shelf(7, "a")]
    assert await scene.run() == {}


async def test_a_row_is_affected_when_any_row_on_its_paths_changed(scene: Scene) -> None:
    await scene.put("shelf", shelf(7, "a"), shelf(7, "b"), shelf(8, "a"))
    await scene.put("part", *PARTS)
    await scene.run()
    await scene.put("shelf", shelf(8, "a", 2), shelf(7, "b", 2))
    assert set(await scene.run()) == {("shelf", Role.BASE)}
    await scene.put("shelf", shelf(7, "a", 2))  # the shelf of 3 and 7
    found = await scene.run()
    assert numbers(found["part", Role.BASE]) == [1, 5, 7]
    assert found["shelf", Role.PARTNER] == [shelf(7, "a", 2)]


async def test_a_comparison_of_keys_also_reads_rows_with_a_broken_path(scene: Scene) -> None:
    await scene.put("shelf", shelf(7, "a"))
    await scene.put("part", part(1, 2), part(2, 3), part(3, None, 7, "a"), part(4, None, 9, "z"), part(5, 4), part(6, 5, 7))
    await scene.run()
    await scene.delete("shelf", (7, "a"))
    assert await scene.run() == {}
    found = await scene.run(compare_keys=True)
    assert numbers(found["part", Role.BASE]) == [1, 6]  # 6 has lacked its shelf from the beginning
    await scene.delete("part", (3,))
    found = await scene.run(compare_keys=True)
    assert numbers(found["part", Role.BASE]) == [1, 2, 6]
    await scene.put("part", part(3, None, 7, "b"))
    assert numbers((await scene.run())["part", Role.BASE]) == [1, 2, 3]


async def test_a_page_whose_partners_are_too_large_is_split(scene: Scene) -> None:
    await scene.put("shelf", *(shelf(number, "x" * 500) for number in range(20)))
    await scene.put("part", *(part(number, number, number, "x" * 500) for number in range(20)))
    async with scene.source.open_snapshot() as snapshot:
        limits = BatchLimits(byte_count=20_000)
        read = [pages async for pages in snapshot.pages(scene.plan(snapshot), limits)]
    of_parts = [pages for pages in read if pages[0].table.name == "part"]
    assert all(sum(page.byte_count for page in pages) < 20_000 for pages in of_parts)
    assert [page.table.name for page in of_parts[0]] == ["part", "part", "shelf"]
    base = [number for pages in of_parts for number in (await pages[0].frame)["part_id"].tolist()]
    assert base == list(range(20))


async def test_thousands_of_rows_are_found_by_a_key_of_two_columns(scene: Scene) -> None:
    """As conditions of one statement they would exceed PostgreSQL's stack."""
    keys = [(number % 100, f"{number}") for number in range(12_000)]
    await scene.put("shelf", *(shelf(*key) for key in keys[:11_000]))
    async with scene.source.open_snapshot() as snapshot:
        assert await snapshot.missing_keys(SHELF, keys) == tuple(keys[11_000:])
    await scene.put("part", *(part(number, number, *key) for number, key in enumerate(keys)))
    found = await scene.run()
    assert len(found["shelf", Role.PARTNER]) == 11_000
    asked = RowsOf(table="shelf", keys=tuple(keys[8_000:]))
    assert len((await scene.run(reread=(asked,)))["shelf", Role.BASE]) == 3_000
