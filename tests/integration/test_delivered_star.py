"""Files become a star on a real warehouse, and the proof finds it equal to them: after deletes, repairs, kills and changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from contracts.contract import Contract
from contracts.messages import BatchIngested, Mode
from contracts.proofs import Outcome
from contracts.yaml_text import read_contract
from infra.local.databases import LOADER
from services.operator.ingest import resend_missing
from services.operator.proof.history import check_history
from services.operator.proof.repair import plan_repair
from services.operator.proof.row_comparison import Mismatch
from services.operator.quarantine import quarantined, replay
from services.operator.system import System
from shared.errors import DependencyDownError
from shared.testing import AnswerLost, Partial, connection_reset
from tests.fixtures.delivered_contract import DELIVERED, TEXT
from tests.fixtures.pipeline import Pipeline, open_pipeline, sent
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.plain_star import differences
from tests.unit.services.ingestion.delivered_scene import A, B, Bucket, C, DeliveredScene, budget, product


@dataclass
class Stand:
    """The drop zone with its ingestion, and the services behind it with a real warehouse."""

    pipeline: Pipeline
    scene: DeliveredScene = field(default_factory=DeliveredScene)

    async def load(self, batches: list[BatchIngested]) -> None:
        """Remodel and load batches, and the answers to loading's questions."""
        while batches:
            questions = await self.pipeline.load(*[await self.pipeline.remodel(batch) for batch in batches])
            batches = [answer for question in questions for answer in await self.scene.handle(question)]

    async def run(self, **wish: Any) -> None:
        """Take everything that waits into the star."""
        await self.load(await self.scene.ingest(**wish))

    @property
    def system(self) -> System:
        return self.pipeline.system

    async def require_equal(self, *, quarantined: int = 0) -> None:
        verdict = await self.pipeline.verify()
        found = (verdict.outcome, differences(verdict), verdict.in_flight, verdict.quarantined)
        assert found == (Outcome.EQUAL, [], 0, quarantined), verdict.sentence

    async def budgets(self) -> list[tuple[Any, ...]]:
        return await self.pipeline.select("SELECT product_id, amount::text FROM fact_budget_current ORDER BY 1")

    def reading(self, contract: Contract) -> Stand:
        """The same under another contract."""
        return Stand(self.pipeline.reading(contract), replace(self.scene, contract=contract.part("plans")))


@pytest.fixture
async def stand(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[Stand]:
    url, scene = postgres_cluster.url(warehouse_database, LOADER), DeliveredScene(Bucket())
    options: dict[str, Any] = {"contract": DELIVERED, "source_name": "plans", "objects": scene.objects}
    async with open_pipeline(url, url, clock=scene._now, **options) as pipeline:
        found = Stand(pipeline, scene)
        await scene.put("budget/1.csv", budget(A, B))
        await scene.put("product/1.jsonl", product(1, "Lamp", day=5) + product(2, "Desk", day=5))
        await found.run()
        await scene.put("product/2.jsonl", product(1, "Old lamp", day=4) + product(2, "New desk", day=6))
        await found.run()
        yield found


async def test_files_are_loaded_and_proved_and_a_whole_snapshot_deletes(stand: Stand) -> None:
    await stand.require_equal()
    names = "SELECT product_name FROM dim_product ORDER BY product_id"
    assert await stand.pipeline.select(names) == [("Lamp",), ("New desk",)]
    await stand.scene.put("budget/2.csv", budget(B, C))
    await stand.run()
    await stand.require_equal()
    assert await stand.budgets() == [(2, "7.00"), (3, "1.00")]
    assert (await check_history(stand.system)).is_complete


async def test_a_star_that_was_changed_is_repaired_from_what_was_delivered(stand: Stand) -> None:
    await stand.pipeline.select("UPDATE dim_product SET product_name = 'Chair' WHERE product_id = 1")
    await stand.pipeline.select("DELETE FROM fact_budget WHERE product_id = 2")
    await stand.pipeline.select(
        "INSERT INTO fact_budget (product_id, month, amount, _run) SELECT 1, '2026-02-01', 9, min(_run) FROM fact_budget"
    )
    verdict = await stand.pipeline.verify()
    found = [(table, one.kind, one.key) for table, one in differences(verdict)]
    assert found == [
        ("dim_product", Mismatch.DIFFERENT, (1,)),
        ("fact_budget", Mismatch.EXTRA, (1, "2026-02-01")),
        ("fact_budget", Mismatch.MISSING, (2, "2026-02-01")),
    ]
    for wish in await plan_repair(stand.system, verdict):
        await stand.run(reread=wish.reread, compare_keys=wish.compare_keys)
    await stand.require_equal()


async def test_everything_announced_again_is_the_new_truth(stand: Stand) -> None:
    before = {key for key in stand.scene.objects.buckets["landing"] if "/runs/" in key}
    await stand.run(mode=Mode.FULL)
    await stand.require_equal()
    await stand.run()  # if not an earlier run already has, it tags what that one has replaced
    assert {key for _, key in stand.scene.objects.tags} == before
    for _, key in stand.scene.objects.tags:
        del stand.scene.objects.buckets["landing"][key]
    await stand.require_equal()


async def test_a_batch_that_was_lost_is_stuck_and_sent_again(stand: Stand) -> None:
    await stand.scene.put("product/3.jsonl", product(3, "Sofa", day=7))
    await stand.scene.ingest()
    overdue = await stand.pipeline.verify()  # ten minutes later, by the clock of the scene
    assert (overdue.outcome, overdue.in_flight + overdue.stuck) == (Outcome.PENDING, 1)
    system = stand.system
    assert await resend_missing(system) == 1
    await stand.load([one for one in sent(system.queues["remodelling"]) if isinstance(one, BatchIngested)])  # type: ignore[arg-type]
    await stand.require_equal()


@pytest.mark.parametrize("fault", [connection_reset(), AnswerLost()], ids=["before the state", "after the state"])
async def test_a_run_killed_around_its_state_leaves_a_star_that_is_proved_equal(stand: Stand, fault: Any) -> None:
    await stand.scene.put("product/3.jsonl", product(3, "Sofa", day=7) + product(1, "Lamp", day=8))
    before = len(stand.scene.announced)
    stand.scene.objects.faults.add("replace", Partial(), fault)
    with pytest.raises(DependencyDownError):
        await stand.scene.ingest()
    await stand.load(stand.scene.announced[before:])
    verdict = await stand.pipeline.verify()
    assert differences(verdict) == []
    await stand.run()
    await stand.require_equal()


async def test_bad_records_are_counted_as_in_quarantine_until_they_are_delivered_again(stand: Stand) -> None:
    await stand.scene.put("budget/2.csv", budget(A, "2;2026-02-01;seven", "x;2026-02-01;8"))
    await stand.run()
    await stand.require_equal(quarantined=2)
    entries = await quarantined(stand.system)
    assert [entry.is_record for entry in entries] == [False, True]
    assert len((await replay(stand.system, entries[:1])).batches) == 1
    await stand.scene.put("budget/3.csv", budget(A, B))
    await stand.run()
    await stand.require_equal()
    assert await quarantined(stand.system) == []


async def test_a_column_that_joins_the_contract_is_null_until_it_is_delivered(stand: Stand) -> None:
    wider = read_contract(TEXT.replace("      amount:\n", "      amount:\n      note:\n"), "wider.yaml")
    later = stand.reading(wider)
    await later.run()
    await later.require_equal()
    await later.scene.put("budget/2.csv", b"product_id;month;amount;note\n1;2026-01-01;10.50;high\n")
    await later.run()
    await later.require_equal()
    assert await later.pipeline.select("SELECT note FROM fact_budget_current") == [("high",)]


async def test_a_filter_judges_the_values_that_could_be_read(stand: Stand) -> None:
    """Of a value that it reads and that could not be read it can't tell, whatever else could not be read."""
    text = TEXT.replace("    fact: budget\n", "    fact: budget\n    where: amount > 0\n").replace(
        "      amount:\n", "      amount:\n      units:\n"
    )
    text = text.replace("note: text", "units: integer")
    filtered = stand.reading(read_contract(text, "filtered.yaml"))
    rows = "1;2026-01-01;seven;1", "2;2026-02-01;0;few", "3;2026-03-01;4;few", "4;2026-04-01;5;6"
    await filtered.scene.put("budget/2.csv", "\n".join(["product_id;month;amount;units", *rows, ""]).encode())
    await filtered.run()
    assert await filtered.budgets() == [(1, "10.50"), (4, "5.00")]  # what was refused is as it was before
    await filtered.require_equal(quarantined=2)


async def test_a_fact_of_a_data_set_with_a_version_may_show_an_earlier_run_than_the_last_that_brought_it(stand: Stand) -> None:
    fact = "  fact_product:\n    fact: product\n    columns: {product_id: , product_name: , updated_at: }\n  fact_budget:\n"
    later = stand.reading(read_contract(TEXT.replace("  fact_budget:\n", fact), "with a fact.yaml"))
    await later.run()
    await later.scene.put("product/3.jsonl", product(1, "Old lamp", day=3) + product(2, "Newer desk", day=7))
    await later.run()
    await later.require_equal()
    assert (await check_history(later.system)).is_complete
