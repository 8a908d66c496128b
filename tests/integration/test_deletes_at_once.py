"""Concurrent loads, comparisons and answers, each stopped where the other could go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from contracts.column_types import varchar
from contracts.messages import LookUpKeys, RowsOf, decode
from contracts.origins import FromSource
from contracts.tables import Column
from infra.local.databases import LOADER
from services.loading import __main__ as program
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.settings import LoadingSettings
from services.loading.warehouse import Question
from shared.ledger import KeyComparison, last_comparisons
from shared.postgres import Database
from shared.service import World
from shared.testing import FakeObjectStore, FakeQueue
from tests.fixtures.limits import HANG_S
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.shop_warehouse import BEGAN, LEAP_DAY, SALE, SOURCE, Shop, ada, batch, numbers, sale, there
from tests.fixtures.small_contract import DIM_SHELF, SHOP, with_column, with_table

PATIENCE_S = 0.1
CONNECTIONS = 3  # of a loader of two slots: one more than the slots


class Gate:
    """Takes questions; one about `table` waits until the gate opens."""

    def __init__(self, table: str) -> None:
        self.questions: list[Question] = []
        self._reached, self.opens = asyncio.Event(), asyncio.Event()
        self._table = table

    async def __call__(self, question: Question) -> None:
        self.questions.append(question)
        if question.table.name == self._table:
            self._reached.set()
            await self.opens.wait()

    async def until_reached(self) -> None:
        async with asyncio.timeout(HANG_S):
            await self._reached.wait()


@pytest.fixture
async def database(postgres_cluster: TestCluster, warehouse_database: str) -> AsyncIterator[Database]:
    url = SecretStr(postgres_cluster.url(warehouse_database, LOADER))
    async with aclosing(Database("warehouse", url, connections=CONNECTIONS)) as database:
        yield database


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(PostgresWarehouse(database, SHOP), database)


async def ended(*tasks: asyncio.Task[int | None], within: float = HANG_S) -> bool:
    """True if the tasks end without a deadlock."""
    _, pending = await asyncio.wait(tasks, timeout=within)
    for task in pending:
        task.cancel()
    return not pending


async def test_two_versions_loaded_concurrently_do_not_hide_a_later_delete(shop: Shop) -> None:
    """Run 5 found item 7 deleted. An old and a new version of it are loaded concurrently; then it is deleted again."""
    await shop.load(batch(1, {"fact_sale": [sale(number, "Pound", LEAP_DAY + 2) for number in (7, 8)]}))
    await shop.load(batch(5, {}, gone={"item": numbers(7)}))
    await shop.compare(batch(10, {}, [there("item", [])]))
    gate = Gate("fact_sale")
    late = asyncio.create_task(shop.warehouse.load(batch(4, {"fact_sale": [sale(7, "old"), sale(8, "old")]}), gate))
    await gate.until_reached()
    newer = asyncio.create_task(shop.load(batch(11, {"fact_sale": [sale(7, "new", LEAP_DAY + 1)]})))
    await asyncio.wait({newer}, timeout=1)
    gate.opens.set()
    assert await ended(late, newer)
    marked = [row.run for row in await shop.warehouse.rows(SALE) if row.columns["item_id"] == 7 and row.deleted_at]
    assert marked == []
    assert (7,) in await shop.compare(batch(20, {}, [there("item", numbers(8))]))


async def test_a_row_is_rejected_although_an_older_image_of_it_is_being_loaded(shop: Shop) -> None:
    """If the two were loaded at once, neither would see what the other does, and the row would stay alive."""
    await shop.load(batch(1, {"fact_sale": [sale(8, "Pound")]}))
    await shop.compare(batch(10, {}, [there("item", [])]))
    gate = Gate("fact_sale")
    late = asyncio.create_task(shop.warehouse.load(batch(4, {"fact_sale": [sale(7, "old")]}), gate))
    await gate.until_reached()
    rejecting = asyncio.create_task(shop.load(replace(batch(5, {}), rejected={"fact_sale": tuple(numbers(7))})))
    await asyncio.wait({rejecting}, timeout=1)
    gate.opens.set()
    assert await ended(late, rejecting)
    (dead,) = [row.deleted_at for row in await shop.warehouse.rows(SALE) if row.columns["item_id"] == 7]
    assert dead is not None


async def test_a_starting_comparison_and_a_late_load_share_the_connections(shop: Shop) -> None:
    await shop.compare(batch(10, {}, [there("maker", []), there("shelf", [])]))
    await shop.load(batch(12, {}, [there("item", [])]))
    gate = Gate("dim_maker")
    late = asyncio.create_task(shop.warehouse.load(batch(4, {"dim_maker": ada(1), "dim_shelf": [(1, "a", 2)]}), gate))
    await gate.until_reached()
    comparison = asyncio.create_task(shop.warehouse.compare_keys(shop.ask))
    await asyncio.wait({comparison}, timeout=1)
    gate.opens.set()
    assert await ended(late, comparison)


async def test_a_comparison_that_becomes_due_is_made_by_the_loader_already_comparing(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1), "dim_shelf": [(1, "a", 2)]}))
    await shop.load(batch(2, {}, [there("maker", [])]))
    gate = Gate("dim_maker")
    first = asyncio.create_task(shop.warehouse.compare_keys(gate))
    await gate.until_reached()
    assert await shop.compare(batch(3, {}, [there("shelf", [])])) == []
    gate.opens.set()
    assert await ended(first)
    assert [question.table.name for question in gate.questions] == ["dim_maker", "dim_shelf"]


async def test_an_idle_loader_makes_the_comparison_that_waited_for_a_killed_run(
    shop: Shop, postgres_cluster: TestCluster, warehouse_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    await shop.load(batch(2, {"dim_maker": ada(3)}, is_last=False))  # of a run that was killed
    assert await shop.compare(batch(3, {}, [there("maker", numbers(2, 3))])) == []
    asked = FakeQueue("ingestion")

    @asynccontextmanager
    async def open_worlds(_settings: LoadingSettings) -> AsyncIterator[dict[str, World]]:
        yield {"totesys": World(FakeQueue(), FakeQueue(), asked, FakeObjectStore())}

    async def consume(*_arguments: object) -> None:
        await asyncio.sleep(5 * PATIENCE_S)
        assert asked.sent == []
        await shop.age()
        async with asyncio.timeout(HANG_S):
            while not asked.sent:  # noqa: ASYNC110 (a queue has no event for it)
                await asyncio.sleep(0.01)

    monkeypatch.setattr("services.loading.handler.EARLIER_RUN_PATIENCE", timedelta(seconds=PATIENCE_S))
    monkeypatch.setattr(program, "open_worlds", open_worlds)
    monkeypatch.setattr(program, "consume", consume)
    settings = LoadingSettings(
        region="eu-west-2",
        queue_url="http://127.0.0.1:9/loading",
        dead_letter_url="http://127.0.0.1:9/loading-dlq",
        landing_bucket="landing",
        processed_bucket="processed",
        slots=1,
        handler_limit=timedelta(minutes=1),
        contract=SHOP,
        warehouse_url=SecretStr(postgres_cluster.url(warehouse_database, LOADER)),
    )
    async with asyncio.timeout(2 * HANG_S):
        await program.serve(settings)  # returns when it is stopped
    (question,) = [decode(message.body) for message in asked.sent]
    assert isinstance(question, LookUpKeys)
    assert (question.data.source_name, question.data.rows) == (SOURCE, (RowsOf(table="maker", keys=((1,),)),))


async def test_a_load_with_hashes_does_not_wait_for_a_comparison_of_other_tables(shop: Shop) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1), "dim_shelf": [(1, "a", 2)]}))
    await shop.load(batch(2, {}, [there("maker", []), there("shelf", [])]))
    gate = Gate("dim_shelf")
    comparison = asyncio.create_task(shop.warehouse.compare_keys(gate))
    await gate.until_reached()
    load = asyncio.create_task(shop.load(batch(3, {}, [there("maker", [])])))
    assert await ended(load)
    gate.opens.set()
    assert await ended(comparison)


async def test_a_question_about_a_late_image_outlives_the_comparison_it_missed(shop: Shop, database: Database) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1)}))
    await shop.load(batch(9, {}, [there("maker", [])]))
    gate = Gate("dim_maker")
    comparison = asyncio.create_task(shop.warehouse.compare_keys(gate))
    await gate.until_reached()
    await shop.load(batch(4, {"dim_maker": ada(2)}))
    gate.opens.set()
    assert await ended(comparison)
    async with database.connection() as connection:
        assert (await last_comparisons(connection, SHOP))["dim_maker"].open_questions == 2


async def test_an_answer_counts_only_when_all_its_batches_are_loaded(shop: Shop, database: Database) -> None:
    await shop.load(batch(1, {"dim_maker": ada(1, 2)}))
    await shop.compare(batch(2, {}, [there("maker", [])]))
    answers = shop.questions[0].id

    async def answered() -> bool:
        async with database.connection() as connection:
            return (await last_comparisons(connection, SHOP))["dim_maker"].is_answered

    await shop.load(batch(3, {}, gone={"maker": numbers(2)}, answers=answers, index=1))
    assert not await answered()
    await shop.load(batch(3, {}, gone={"maker": numbers(1)}, index=0, is_last=False))
    assert await answered()


async def test_a_comparison_in_parts_counts_from_its_first_part_once_all_questions_are_answered(
    shop: Shop, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens when the rows of a dead letter are missing: every bucket has fewer keys than the source's."""
    monkeypatch.setattr("services.loading.questions.UNLIKELY_KEYS", 250)
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 401))}))

    async def last() -> KeyComparison:
        async with database.connection() as connection:
            return (await last_comparisons(connection, SHOP))["dim_maker"]

    missing = there("maker", numbers(*range(1, 801)))
    await shop.compare(batch(10, {}, [missing]))
    found = await last()
    assert (found.run, found.since, found.has_ended, found.is_whole, found.open_questions) == (10, 10, True, False, 1)
    await shop.load(batch(12, {}, answers=shop.questions[0].id))
    assert not (await last()).has_found(1)
    await shop.load(batch(20, {}, [missing], index=1))
    assert not (await last()).has_found(1)
    await shop.compare(batch(20, {}, is_last=False))
    found = await last()
    assert (found.run, found.since, found.is_whole, found.open_questions) == (20, 10, True, 1)
    assert found.found_at == BEGAN + timedelta(seconds=10)
    await shop.load(batch(22, {}, answers=shop.questions[1].id))
    found = await last()
    assert (found.has_found(10), found.has_found(11)) == (True, False)
    assert {key for question in shop.questions for key in question.keys} == set(numbers(*range(1, 401)))
    await shop.compare(batch(30, {}, [there("maker", numbers(*range(1, 401)))]))
    assert (await last()).has_found(30)


async def test_a_question_of_an_earlier_part_stays_open_until_answered_or_the_next_rotation(
    shop: Shop, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.loading.questions.UNLIKELY_KEYS", 250)
    await shop.load(batch(1, {"dim_maker": ada(*range(1, 401))}))
    missing, opened = there("maker", numbers(*range(1, 801))), []
    for run in (10, 20, 30):
        await shop.compare(batch(run, {}, [missing]))
        async with database.connection() as connection:
            opened.append((await last_comparisons(connection, SHOP))["dim_maker"].open_questions)
    assert opened == [1, 2, 1]


async def test_comparisons_of_an_earlier_build_are_kept_and_one_in_parts_counts_for_no_run(
    shop: Shop, database: Database
) -> None:
    await shop.compare(batch(7, {}, [there("maker", []), there("shelf", [])]))
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE starlift.key_comparison DROP COLUMN since")
        await connection.execute("UPDATE starlift.key_comparison SET next_bucket = 5 WHERE table_name = 'dim_shelf'")
        assert await last_comparisons(connection, SHOP) == {}
        await PostgresWarehouse(database, SHOP).ensure_schema()
        found = {name: (one.since, one.has_found(7)) for name, one in (await last_comparisons(connection, SHOP)).items()}
    assert found == {"dim_maker": (7, True), "dim_shelf": (0, False)}


async def test_a_tombstone_with_a_long_text_key_marks_no_row_with_a_truncated_key(database: Database) -> None:
    shelf = with_column(DIM_SHELF, Column("label", varchar(3), FromSource("label")))
    shop = Shop(PostgresWarehouse(database, with_table(SHOP, shelf)), database)
    await shop.load(batch(1, {"dim_shelf": [(1, "abc", 5)]}))
    await shop.load(batch(2, {}, gone={"shelf": [(1, "abcd")]}))
    assert [row.deleted_at for row in await shop.warehouse.rows(shelf)] == [None]
