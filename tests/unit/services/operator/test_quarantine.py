from __future__ import annotations

import json
from hashlib import sha256

from contracts.quarantine import Problem
from services.operator.quarantine import read_entries
from tests.unit.services.operator.scene import PROCESSED, Scene

OF_AN_EARLIER_BUILD = {
    "table": "fact_sale",
    "source_table": "item",
    "key": {"item_id": 2, "label": "7"},
    "problems": [{"column": "", "reason": "price is NaN"}],
    "row": {"item_id": 2, "label": "7", "price": None, "good": True, "note": "a\u2028b", "dropped": "x"},
}


async def test_an_object_that_vanished_while_reading_has_no_entries() -> None:
    gone = f"quarantine/totesys/runs/{7:020d}/00000-{'0' * 16}.jsonl"
    assert [entry async for entry in read_entries(Scene().system.store, [gone])] == []


async def test_a_line_written_by_an_earlier_build_is_read_without_change() -> None:
    """It may have a field unknown to this build, or a line separator inside a text."""
    scene = Scene()
    for run, extra in ((7, {}), (8, {"later": 1})):
        body = f"{json.dumps(OF_AN_EARLIER_BUILD | extra, ensure_ascii=False)}\n".encode()
        await scene.objects.put(PROCESSED, scene.system.store.keys.batch(run, 3).quarantine(sha256(body).hexdigest()), body)
    entries = [entry async for entry in read_entries(scene.system.store)]
    assert [(entry.run, entry.index, entry.table, entry.source_table, entry.key) for entry in entries] == [
        (7, 3, "fact_sale", "item", (2, "7")),
        (8, 3, "fact_sale", "item", (2, "7")),
    ]
    assert all(entry.problems == (Problem(column="", reason="price is NaN"),) for entry in entries)
    assert all(entry.row == OF_AN_EARLIER_BUILD["row"] for entry in entries)
    assert entries[0].row["good"] is True
