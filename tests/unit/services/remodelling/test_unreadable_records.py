"""Records of a delivery without a readable key, on their way from the landing bucket to the quarantine."""

from __future__ import annotations

from contracts.messages import BatchRemodelled, Mode, decode
from contracts.quarantine import RECORD, Problem, RefusedRow
from services.operator.quarantine import open_records
from services.remodelling.handler import Dependencies, handle
from shared.outcome import Done
from shared.testing import FakeQueue
from tests.unit.services.ingestion.delivered_scene import A, DeliveredScene, budget
from tests.unit.services.operator.test_files import system_of


async def remodelled(scene: DeliveredScene) -> list[RefusedRow]:
    """What the batches that were announced leave in quarantine."""
    found = list[RefusedRow]()
    for batch in scene.announced:
        queue = FakeQueue("loading")
        assert await handle(batch, Dependencies(scene.objects, queue, scene.contract, "processed")) == Done()
        (message,) = [decode(one.body) for one in queue.sent]
        assert isinstance(message, BatchRemodelled)
        if (ref := message.data.quarantine) is not None:
            lines = (await scene.objects.get(ref)).splitlines()
            assert len(lines) == ref.row_count
            found += map(RefusedRow.model_validate_json, lines)
    return found


async def test_a_record_without_a_readable_key_is_in_quarantine_with_its_line_and_the_others_are_loaded() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A, "x;2026-01-01;1", "2;2026-01-01", "1;2026-01-01;9"))
    await scene.ingest()
    refused = {one.record: one for one in await remodelled(scene)}
    places = [f"line {line} of dropzone/budget/a.csv" for line in (3, 4, 5)]
    assert sorted(map(str, refused)) == places
    found = refused[places[1]]
    assert (found.table, found.key, found.problems) == (
        "fact_budget",
        {},
        (Problem(column="", reason="has 2 fields instead of 3"),),
    )
    assert RECORD in found.row


async def test_such_a_record_is_listed_once_until_a_whole_snapshot_is_taken() -> None:
    scene = DeliveredScene()
    for _ in range(2):
        await scene.put("budget/a.csv", budget(A, "x;2026-01-01;1"))
        await scene.ingest()
    await remodelled(scene)
    (entry,) = await open_records(system_of(scene))
    assert (entry.table, entry.key) == ("fact_budget", ("line 3 of dropzone/budget/a.csv",))
    assert entry.row == {RECORD: '{"product_id": "x", "month": "2026-01-01", "amount": "1"}'}
    assert entry.run == scene.announced[-1].data.run
    await scene.ingest(mode=Mode.FULL)
    assert len(await open_records(system_of(scene))) == 1, "what is announced again does not have it"
    await scene.put("budget/a.csv", budget(A))
    await scene.ingest()
    assert await open_records(system_of(scene)) == []
