"""What a snapshot of deliveries promises to a run, as tests/conformance/test_source.py has it for databases."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from contracts.column_types import INTEGER
from contracts.contract import Contract
from contracts.expressions import Literal, Operation, ReadColumn
from contracts.messages import IngestSourceData, Mode, RowsOf, Trigger
from contracts.yaml_text import read_contract
from services.ingestion.source import OpenSnapshot, SnapshotLostError
from shared.errors import PermanentError
from shared.key_hashes import sums_of, table_hashes
from tests.fixtures.delivered_contract import PLANS
from tests.unit.services.ingestion.delivered_scene import KEY_A, KEY_B, SOURCE, A, B, C, DeliveredScene, budget

BUDGET = PLANS.source_table("budget")
LABELS = ['"', ",", "two\nlines", "\\", "\u2028", "é", "1:a", " ", "a'b", "\U0001f680"]
SHELVES: Contract = read_contract(
    """
name: shelves
star:
  dim_shelf:
    dimension: shelf
    columns: {row: , label: , width: }
source:
  tables:
    shelf:
      file: {format: json_lines}
      key: [row, label]
      columns: {row: integer not null, label: text not null, width: integer}
""",
    "shelves.yaml",
)


def request(**wish: Any) -> IngestSourceData:
    return IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR, **wish)


async def compared(snapshot: OpenSnapshot, scene: DeliveredScene, **wish: object) -> bool:
    """Whether the hashes of a run that compares keys are those of budgets A and B."""
    plan = snapshot.plan(await scene.checkpoint(), request(compare_keys=True, **wish), 0)
    return await snapshot.key_hashes(plan, BUDGET) == table_hashes("budget", sums_of([KEY_A, KEY_B]))


async def test_missing_keys_are_returned_as_they_were_given_whatever_their_texts() -> None:
    scene = DeliveredScene(contract=SHELVES)
    rows = [{"row": number, "label": label, "width": 1} for number, label in enumerate(LABELS)]
    await scene.put("shelf/a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    await scene.ingest()
    there = [(number, label) for number, label in enumerate(LABELS)]
    missing = [(number + 1, label) for number, label in enumerate(LABELS)]
    assert await scene.look_up("shelf", *missing, *there) == missing


async def test_hashes_are_those_of_the_rows_that_a_run_does_not_read() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A, B))
    await scene.ingest()
    await scene.put("budget/b.csv", budget(C))
    async with scene.deps.source.open_snapshot(request(compare_keys=True)) as snapshot:
        assert await compared(snapshot, scene), "a delivery that waits is not of this run"
        asked = RowsOf(table="budget", keys=(KEY_B,))
        plan = snapshot.plan(await scene.checkpoint(), request(compare_keys=True, reread=(asked,)), 0)
        assert await snapshot.key_hashes(plan, BUDGET) == table_hashes("budget", sums_of([KEY_A]))
        plan = snapshot.plan(await scene.checkpoint(), request(mode=Mode.FULL), 0)
        assert await snapshot.key_hashes(plan, BUDGET) == table_hashes("budget", [])


async def test_a_table_with_a_filter_compares_the_keys_of_the_rows_that_it_accepts() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A, B))
    await scene.ingest()
    where = Operation("equal", (ReadColumn(None, "product_id", INTEGER), Literal(2)))
    (star,) = PLANS.remodelled_from("budget")
    async with scene.deps.source.open_snapshot(request(compare_keys=True)) as snapshot:
        plan = snapshot.plan(await scene.checkpoint(), request(compare_keys=True), 0)
        found = await snapshot.key_hashes(plan, BUDGET, replace(star, where=where))
    assert found == table_hashes("budget", sums_of([KEY_B]), star_table="fact_budget")


@pytest.mark.parametrize(
    ("key", "form"),
    [((1,), "keys of that length"), (("1", "2026-01-01"), "a whole number"), ((1, "2026-02-30"), "a date")],
)
async def test_an_impossible_key_is_refused_in_one_sentence(key: tuple[int | str, ...], form: str) -> None:
    scene = DeliveredScene()
    await scene.ingest()
    with pytest.raises(PermanentError, match=rf"{form}.*; correct the command$"):
        await scene.ingest(reread=(RowsOf(table="budget", keys=(key,)),))


async def test_the_position_of_a_snapshot_is_the_number_of_its_run_and_means_no_log() -> None:
    scene = DeliveredScene()
    await scene.put("budget/a.csv", budget(A))
    await scene.put("budget/b.csv", budget(B))
    batches = await scene.ingest()
    positions = [batch.data.snapshot for batch in batches]
    assert [one.horizon for one in positions] == [batch.data.run for batch in batches]
    assert {one.wal_position for one in positions} == {"0/0"}
    assert sorted(one.taken_at for one in positions) == [one.taken_at for one in positions]


async def test_no_snapshot_is_shared() -> None:
    with pytest.raises(SnapshotLostError):
        async with DeliveredScene().deps.source.join_snapshot("of another time"):
            pass
