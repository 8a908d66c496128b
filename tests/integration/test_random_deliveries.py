"""Files in any order, with ingestion killed at any effect and batches loaded in any order: the star is what the rule says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from contracts.messages import BatchIngested, BatchRemodelled, LookUpKeys, Mode, Trigger
from contracts.proofs import Outcome
from infra.local.databases import LOADER
from shared.errors import DependencyDownError
from shared.testing import AnswerLost, Partial, connection_reset
from tests.fixtures.delivered_contract import DELIVERED
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.plain_star import differences
from tests.unit.services.ingestion.delivered_scene import SECOND, Bucket, DeliveredScene, budget, product

PRODUCTS, FILES = 5, 12


@dataclass
class Rule:
    """What the star must have: decision 0022 in a few lines. Products are versioned increments, budgets whole snapshots."""

    budgets: dict[int, str] = field(default_factory=dict)
    products: dict[int, tuple[int, str]] = field(default_factory=dict)  # day of the version, and name

    def take_budgets(self, amounts: dict[int, str]) -> None:
        self.budgets = amounts or self.budgets  # an empty snapshot is not believed

    def take_products(self, rows: Sequence[tuple[int, int, str]], *, is_whole: bool) -> None:
        if is_whole and rows:
            self.products = {}
        for number, day, name in rows:
            if number not in self.products or self.products[number][0] <= day:
                self.products[number] = day, name


@dataclass
class Life:
    """A random life of a drop zone."""

    random: Random
    pipeline: Pipeline
    scene: DeliveredScene
    rule: Rule = field(default_factory=Rule)
    on_their_way: list[BatchIngested | BatchRemodelled | LookUpKeys] = field(default_factory=list)

    async def put(self, number: int) -> None:
        """Put a random file into the drop zone, a second after the one before it."""
        self.scene.objects.written_at += SECOND
        chosen = self.random.sample(range(PRODUCTS), self.random.randint(0, PRODUCTS))
        if self.random.random() < 0.4:
            amounts = {one: f"{self.random.randint(1, 99)}.00" for one in chosen}
            await self.scene.put(f"budget/{number}.csv", budget(*(f"{one};2026-01-01;{text}" for one, text in amounts.items())))
            self.rule.take_budgets(amounts)
            return
        is_whole = self.random.random() < 0.3
        versions = {(one, self.random.randint(1, 9)) for one in [*chosen, *chosen[:2]]}  # of some products two in one file
        rows = [(one, day, f"of file {number}, day {day}") for one, day in versions]
        body = b"".join(product(one, name, day) for one, day, name in rows) or b"\n"
        await self.scene.put(f"product/{'snapshot/' * is_whole}{number}.jsonl", body)
        self.rule.take_products(rows, is_whole=is_whole)

    async def ingest(self, message: LookUpKeys | None = None) -> None:
        """Handle a command until it is done, although calls fail, before or after their effect."""
        before, wish = len(self.scene.announced), {"mode": Mode.FULL} if self.random.random() < 0.2 else {}
        command = message or self.scene.command(Trigger.OPERATOR if wish else Trigger.SCHEDULE, **wish)
        for _ in range(self.random.randint(0, 2)):
            faults = self.random.choice([self.scene.objects.faults, self.scene.queue.faults])
            method = self.random.choice(["put", "replace", "download", "versions", "send"])
            fault: Any = self.random.choice([AnswerLost(), connection_reset()])
            faults.add(method, *[Partial()] * self.random.randint(0, 9), fault)
            try:
                await self.scene.handle(command)
            except DependencyDownError:
                continue
            finally:
                faults.clear()
        await self.scene.handle(command)
        self.on_their_way += self.scene.announced[before:]

    async def step(self) -> None:
        """Handle one of the messages that are on their way; now and then it comes again later."""
        message = self.on_their_way.pop(self.random.randrange(len(self.on_their_way)))
        if self.random.random() < 0.2:
            self.on_their_way.append(message)
        if isinstance(message, BatchIngested):
            self.on_their_way.append(await self.pipeline.remodel(message))
        elif isinstance(message, BatchRemodelled):
            self.on_their_way += await self.pipeline.load(message)
        else:
            await self.ingest(message)

    async def settle(self) -> None:
        while self.on_their_way:
            await self.step()


@pytest.mark.parametrize("seed", range(8))
async def test_the_star_is_what_was_delivered_whatever_happened(
    seed: int, postgres_cluster: TestCluster, warehouse_database: str
) -> None:
    url, scene = postgres_cluster.url(warehouse_database, LOADER), DeliveredScene(Bucket())
    options: dict[str, Any] = {"contract": DELIVERED, "source_name": "plans", "objects": scene.objects}
    async with open_pipeline(url, url, **options) as pipeline:
        life = Life(Random(seed), pipeline, scene)  # noqa: S311 - a life
        for number in range(FILES):
            await life.put(number)
            if life.random.random() < 0.5:
                await life.ingest()
            for _ in range(life.random.randint(0, len(life.on_their_way))):
                await life.step()
        await life.ingest()
        await life.settle()
        await life.ingest()
        await life.settle()
        budgets = await pipeline.select("SELECT product_id, amount::text FROM fact_budget_current")
        products = await pipeline.select(
            "SELECT product_id, product_name FROM dim_product WHERE _deleted_at IS NULL AND _run > 0"
        )
        assert dict(budgets) == life.rule.budgets
        assert dict(products) == {number: name for number, (_, name) in life.rule.products.items()}
        verdict = await pipeline.verify()
        assert (verdict.outcome, differences(verdict)) == (Outcome.EQUAL, []), verdict.sentence
