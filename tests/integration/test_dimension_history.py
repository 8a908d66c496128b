"""Dimensions with history: what runs have seen gives one history, whatever order it arrives in."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import asyncpg
import pytest

from contracts.messages import BatchIngested, BatchRemodelled, Mode
from services.operator.quarantine import quarantined, replay
from services.operator.system import SERVICES
from shared.testing import FakeQueue
from tests.fixtures.pipeline import Pipeline, sent
from tests.integration.history_shop import HISTORY, NARROW_CODE, SCHEMA, SEEN, WITH_CODE, contract_with, histories
from tests.integration.plain_star import require_equal


@pytest.fixture
async def shop(owner: asyncpg.Connection, empty: Pipeline) -> Pipeline:
    await owner.execute(SCHEMA)
    return empty.reading(contract_with())


async def test_each_state_that_a_run_sees_is_valid_until_the_next_one(shop: Pipeline, owner: asyncpg.Connection) -> None:
    first = await shop.run()
    await owner.execute("UPDATE customer SET name = 'Eve' WHERE customer_id = 1; UPDATE city SET city_name = 'Hull'")
    second = await shop.run()
    await owner.execute("UPDATE customer SET name = 'Ada' WHERE customer_id = 1")
    third = await shop.run()
    begins = [run[0].data.snapshot.taken_at for run in (first, second, third)]
    assert await shop.select(HISTORY) == [
        (1, "Ada", "Leeds", 1, begins[0], begins[1], False),
        (1, "Eve", "Hull", 2, begins[1], begins[2], False),
        (1, "Ada", "Hull", 3, begins[2], None, True),
        (2, "Bob", None, 1, begins[0], None, True),
    ]
    current = "SELECT customer_id, name, city, customer_key FROM dim_customer"
    assert set(await shop.select(current)) == set(
        await shop.select("SELECT customer_id, name, city, customer_key FROM dim_customer_history WHERE is_current")
    )
    await require_equal(shop)


async def test_a_state_that_is_read_again_adds_no_version(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    await shop.run(mode=Mode.FULL)
    await owner.execute("UPDATE customer SET code = 'y'")  # no column of the star
    await shop.run()
    assert len(await shop.select(SEEN)) == 6
    assert await histories(shop) == [(1, "Ada", "Leeds", 1, True), (2, "Bob", None, 1, True)]


async def test_a_deleted_row_has_no_current_version_until_it_comes_back(shop: Pipeline, owner: asyncpg.Connection) -> None:
    await shop.run()
    await owner.execute("DELETE FROM customer WHERE customer_id = 1")
    await shop.run(compare_keys=True)
    assert await histories(shop) == [(1, "Ada", "Leeds", 1, False), (2, "Bob", None, 1, True)]
    await require_equal(shop)
    await owner.execute("INSERT INTO customer VALUES (1, 'Ada', 1, NULL)")
    await shop.run()
    assert await histories(shop) == [(1, "Ada", "Leeds", 1, False), (1, "Ada", "Leeds", 2, True), (2, "Bob", None, 1, True)]
    ((until, since),) = await shop.select(
        "SELECT max(valid_to), max(valid_from) FROM dim_customer_history WHERE customer_id = 1"
    )
    assert until < since
    await require_equal(shop)


def random_change(random: Random) -> str:
    key = random.randint(1, 4)
    name, city = random.choice("abc"), random.choice(("1", "2", "NULL"))
    changed = f"({key}, '{name}', {city}, NULL) ON CONFLICT (customer_id) DO UPDATE SET name = excluded.name, city_id = {city}"
    return random.choice(
        (
            f"DELETE FROM customer WHERE customer_id = {key}",
            f"UPDATE city SET city_name = '{name}' WHERE city_id = {random.randint(1, 2)}",
            f"INSERT INTO customer VALUES {changed}",
            f"INSERT INTO sale VALUES ({random.randint(1, 9)}, {random.randint(1, 6)}, NULL, now()) ON CONFLICT DO NOTHING",
        )
    )


async def loaded_batches(pipeline: Pipeline, **wish: Any) -> list[BatchRemodelled]:
    """Make one run, load it and the answers to its questions, and return the batches of all of these."""
    batches = await pipeline.read(**wish)
    questions = await pipeline.load(*batches)
    while questions:
        answers = [await pipeline.remodel(one) for question in questions for one in await pipeline.obey(question)]
        questions = await pipeline.load(*answers)
        batches += answers
    return batches


async def test_a_delete_is_part_of_the_history_whatever_later_delete_came_first(
    shop: Pipeline, owner: asyncpg.Connection
) -> None:
    batches = await loaded_batches(shop)
    for _ in range(2):
        await owner.execute("DELETE FROM customer WHERE customer_id = 1")
        batches += await loaded_batches(shop, compare_keys=True)
        await owner.execute("INSERT INTO customer VALUES (1, 'Ada', 1, NULL)")
        batches += await loaded_batches(shop)
    history = await shop.select(HISTORY)
    assert [row[3] for row in history if row[0] == 1] == [1, 2, 3]
    await shop.empty_warehouse()
    await shop.load(*reversed(batches), star=shop.star)
    assert await shop.select(HISTORY) == history
    await require_equal(shop)


@pytest.mark.parametrize("seed", range(3))
async def test_batches_in_any_order_and_number_give_one_history(shop: Pipeline, owner: asyncpg.Connection, seed: int) -> None:
    random, messages = Random(seed), list[BatchRemodelled]()  # noqa: S311 (repeatable on purpose)
    pipeline = shop.cut(random.choice((2, 100)))
    for number in range(8):
        for _ in range(random.randint(1, 5)):
            await owner.execute(random_change(random))
        batches = await loaded_batches(pipeline, compare_keys=bool(number % 2))
        messages += batches
    seen, history = await pipeline.select(SEEN), await pipeline.select(HISTORY)
    assert any(row[4] for row in seen), "no row was deleted"
    await require_equal(pipeline)
    for _ in range(3):
        await pipeline.empty_warehouse()
        star = pipeline.star  # one loader: another one would add what this one leaves out, when it starts
        for message in random.sample([*messages, *messages], k=2 * len(messages)):
            await pipeline.load(message, star=star)  # what it asks about late rows has been answered
        assert await pipeline.select(SEEN) == seen
        assert await pipeline.select(HISTORY) == history
        await pipeline.settle(await pipeline.load(*await pipeline.read(compare_keys=True)))
        await require_equal(pipeline)


@pytest.mark.parametrize("before", ["send", "commit"])
async def test_a_loader_that_dies_leaves_no_version_and_the_next_one_adds_it(
    shop: Pipeline, owner: asyncpg.Connection, before: str
) -> None:
    await shop.run()
    await owner.execute("UPDATE customer SET name = 'Eve' WHERE customer_id = 1")
    (late,) = await shop.read()
    await shop.run(compare_keys=True)
    known = await shop.select(SEEN)
    questions = await shop.load_and_die(late, before=before)  # asks about the late row, and dies
    assert await shop.select(SEEN) == known
    await shop.settle([*questions, *await shop.load(late, late)])
    assert len(await shop.select(SEEN)) > len(known)
    assert await histories(shop) == [
        (1, "Ada", "Leeds", 1, False),
        (1, "Eve", "Leeds", 2, True),
        (2, "Bob", None, 1, True),
    ]
    await require_equal(shop)


async def test_a_row_that_leaves_quarantine_late_takes_its_place_in_the_history(
    shop: Pipeline, owner: asyncpg.Connection
) -> None:
    narrow, wide = shop.reading(contract_with(NARROW_CODE)), shop.reading(contract_with(WITH_CODE))
    await narrow.run()
    await owner.execute("UPDATE customer SET name = 'Lea', code = 'too long' WHERE customer_id = 1")
    refused = await narrow.run()
    entries = await quarantined(narrow.system)
    assert [(entry.key, entry.run) for entry in entries] == [((1,), refused[0].data.run)]
    system = replace(wide.system, queues={name: FakeQueue(name) for name in SERVICES})
    await replay(system, entries)
    queue = system.queues["remodelling"]
    assert isinstance(queue, FakeQueue)
    again = [event for event in sent(queue) if isinstance(event, BatchIngested)]
    await owner.execute("UPDATE customer SET name = 'Eve', code = NULL WHERE customer_id = 1")
    await wide.run()
    assert [name for _, name, *_ in await histories(wide)] == ["Ada", "Eve", "Bob"]
    for event in again:
        await wide.load(await wide.remodel(event))
    assert [name for _, name, *_ in await histories(wide)] == ["Ada", "Lea", "Eve", "Bob"]
    await require_equal(wide)
