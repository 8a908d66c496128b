"""Why messages need no order: any permutation of them, with any of them repeated, gives the same warehouse.

The argument is in services/ingestion/lease.py and services/loading/merge.py; these tests try to break it. The data
returns to an earlier state (A, B, A again), where a merge that skips equal values goes wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages import BatchRemodelled, LookUpKeys
from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.ingestion.source import BatchLimits
from services.operator.local.totesys.fill import connect, create, fill
from shared.errors import ServerBusyError, TransientError
from shared.testing import FakeObjectStore
from tests.fixtures.pipeline import Dump, Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.properties import examples

A_NAME, ANOTHER = (
    "UPDATE design SET design_name = 'A' WHERE design_id = 1",
    "UPDATE design SET design_name = 'B' WHERE design_id = 1",
)
COME_BACK = "INSERT INTO payment SELECT * FROM gone"
# Before each run: states that come back, with and without a new last_updated; partners that change; rows that are new; rows
# that are deleted, come back, and are deleted again. What is unlike all others in it, COMPARE, makes the run compare keys.
COMPARE = "SELECT"
CHANGES = (
    (A_NAME, "UPDATE sales_order SET units_sold = 1, last_updated = '2027-01-01' WHERE sales_order_id = 1"),
    (
        ANOTHER,
        "UPDATE sales_order SET units_sold = 2, last_updated = '2027-01-02' WHERE sales_order_id = 1",
        "UPDATE department SET location = NULL WHERE department_id = 1",
        "UPDATE payment SET payment_amount = 5 WHERE payment_id = 3",
    ),
    (
        A_NAME,
        "UPDATE sales_order SET units_sold = 1, last_updated = '2027-01-01' WHERE sales_order_id = 1",
        "UPDATE department SET location = 'Hull' WHERE department_id = 1",
        "INSERT INTO design VALUES (900, 'new', '', '', now(), now())",
        "UPDATE sales_order SET design_id = 900, last_updated = '2027-01-03' WHERE sales_order_id = 2",
    ),
    (
        ANOTHER,
        "CREATE TABLE gone AS SELECT * FROM payment WHERE payment_id IN (4, 5)",
        "DELETE FROM payment WHERE payment_id IN (4, 5)",
        "DELETE FROM design WHERE design_id = 470",
        COMPARE,
        "UPDATE payment SET payment_amount = 6 WHERE payment_id = 3",
        "UPDATE sales_order SET agreed_payment_date = 'soon', last_updated = '2027-01-04' WHERE sales_order_id = 3",
    ),
    (
        A_NAME,
        "UPDATE sales_order SET agreed_payment_date = '2027-02-01' WHERE sales_order_id = 3",
        COME_BACK,
        "UPDATE payment SET paid = NOT paid, last_updated = '2027-01-05' WHERE payment_id = 4",
        "INSERT INTO design VALUES (901, 'brief', '', '', now(), now())",
    ),
    ("DELETE FROM payment WHERE payment_id = 5", "DELETE FROM design WHERE design_id = 901", COMPARE),
    ("UPDATE payment SET paid = NOT paid, last_updated = '2027-01-06' WHERE payment_id IN (4, 6)",),
    ("DELETE FROM payment WHERE payment_id IN (4, 6)", COMPARE),
)


@dataclass(frozen=True)
class History:
    """The messages of several runs, and the warehouse that results from loading them in order with every answer."""

    source_url: str
    warehouse_url: str
    objects: FakeObjectStore
    messages: Sequence[BatchRemodelled]
    in_order: Dump


async def written_history(cluster: TestCluster, source: str, warehouse: str) -> History:
    application = await connect(cluster.url(source, SOURCE_OWNER))
    await create(application)
    await fill(application, orders=20, seed=1)
    urls = cluster.url(source, READER), cluster.url(warehouse, LOADER)
    async with open_pipeline(*urls, limits=BatchLimits(rows=250, bundle_rows=150), few_rows=20) as pipeline:
        messages = await pipeline.read()
        for statements in CHANGES:
            for statement in statements:
                await application.execute(statement)
            messages += await pipeline.read(compare_keys=COMPARE in statements)
        await application.close()
        await pipeline.settle(await pipeline.load(*messages))
        assert (await pipeline.verify()).is_equal
        return History(*urls, pipeline.objects, messages, await pipeline.dump())


@pytest.fixture(scope="module")
def history(postgres_cluster: TestCluster) -> Iterator[History]:
    source, warehouse = postgres_cluster.create_database(), postgres_cluster.create_warehouse()
    yield asyncio.run(written_history(postgres_cluster, source, warehouse))
    postgres_cluster.drop_database(source)
    postgres_cluster.drop_database(warehouse)


@asynccontextmanager
async def from_the_beginning(history: History) -> AsyncIterator[Pipeline]:
    """The pipeline of a history, with an empty warehouse."""
    async with open_pipeline(history.source_url, history.warehouse_url, few_rows=20) as opened:
        pipeline = replace(opened, objects=history.objects)
        await pipeline.empty_warehouse()
        yield pipeline


async def loaded(history: History, messages: Sequence[BatchRemodelled]) -> Dump:
    """The warehouse that results from these messages in this order, once every question is answered."""
    async with from_the_beginning(history) as pipeline:
        await pipeline.settle(await pipeline.load(*messages))
        return await pipeline.dump()


def orders(count: int) -> st.SearchStrategy[list[int]]:
    """Every message at least once, in any order."""
    again = st.lists(st.integers(0, count - 1), max_size=4)
    return again.flatmap(lambda more: st.permutations([*range(count), *more]))


def test_any_order_and_any_repetition_gives_the_same_warehouse(history: History) -> None:
    """Images and hashes, then the answers to all resulting questions."""

    @given(orders(len(history.messages)))
    @examples(50)
    def holds(order: list[int]) -> None:
        assert asyncio.run(loaded(history, [history.messages[index] for index in order])) == history.in_order

    holds()


def test_any_order_of_images_hashes_questions_and_answers_gives_the_same_warehouse(history: History) -> None:
    @given(orders(len(history.messages)), st.randoms(use_true_random=False))
    @examples(8)
    def holds(order: list[int], random: Random) -> None:
        assert asyncio.run(delivered(history, [history.messages[index] for index in order], random)) == history.in_order

    holds()


async def delivered(history: History, messages: list[BatchRemodelled], random: Random) -> Dump:
    """The warehouse that results from these messages, interleaved with questions and answers in any order, some twice."""
    async with from_the_beginning(history) as pipeline:
        star, questions = pipeline.star, list[LookUpKeys]()
        while messages or questions:
            if messages and (not questions or random.random() < 0.6):
                questions += await pipeline.load(messages.pop(0), star=star)
                continue
            question = questions.pop(random.randrange(len(questions)))
            for answer in [await pipeline.remodel(message) for message in await pipeline.obey(question)]:
                for _ in range(random.randint(1, 2)):
                    messages.insert(random.randint(0, len(messages)), answer)
            if random.random() < 0.1:
                questions.append(question)
        return await pipeline.dump()


def test_a_crash_or_a_lost_question_costs_at_most_one_more_comparison(history: History) -> None:
    """A loader is killed before or after it has sent a question, before or after it has committed; questions get lost."""

    @given(orders(len(history.messages)), st.randoms(use_true_random=False))
    @examples(15)
    def holds(order: list[int], random: Random) -> None:
        found = asyncio.run(delivered_with_crashes(history, [history.messages[index] for index in order], random))
        assert found == history.in_order

    holds()


async def delivered_with_crashes(history: History, messages: list[BatchRemodelled], random: Random) -> Dump:
    async with from_the_beginning(history) as pipeline:
        star, questions = pipeline.star, list[LookUpKeys]()
        for message in messages:
            deadly = random.choice([None, "send", "commit"])
            if deadly is not None:
                questions += await pipeline.load_and_die(message, before=deadly)
            questions += await pipeline.load(message, star=star)
        lost = [question for question in questions if random.random() < 0.5]
        await pipeline.settle([question for question in questions if question not in lost])
        await pipeline.run(compare_keys=True)
        return await pipeline.dump()


def test_a_deleted_row_stays_alive_without_the_question_about_late_images(history: History) -> None:
    """Payment 5 is deleted before run 7 compares; its image of run 6 arrives when the comparison is over."""
    runs = sorted({message.data.run for message in history.messages})
    late = [message for message in history.messages if message.data.run == runs[5]]
    others = [message for message in history.messages if message.data.run != runs[5]]

    async def come_late() -> tuple[list[LookUpKeys], Dump]:
        async with from_the_beginning(history) as pipeline:
            await pipeline.settle(await pipeline.load(*others))
            questions = await pipeline.load(*late)
            await pipeline.settle(questions)
            return questions, await pipeline.dump()

    questions, found = asyncio.run(come_late())
    assert [rows.table for question in questions for rows in question.data.rows] != []
    assert found == history.in_order


def test_messages_in_reverse_order_give_the_same_warehouse(history: History) -> None:
    assert asyncio.run(loaded(history, list(reversed(history.messages)))) == history.in_order


def test_two_swapped_runs_give_the_same_warehouse(history: History) -> None:
    """The image of the later run stays, although that of the earlier one arrives after it."""
    *first, before_last, last = history.messages
    assert asyncio.run(loaded(history, [*first, last, before_last])) == history.in_order


def test_an_equal_image_of_a_later_run_still_raises_the_run(history: History) -> None:
    """A of run 1, A of run 3, and only then B of run 2."""
    runs = sorted({message.data.run for message in history.messages})
    of = {run: [message for message in history.messages if message.data.run == run] for run in runs}
    order = [message for run in (runs[0], runs[1], runs[3], runs[2], runs[5], runs[4], *runs[6:]) for message in of[run]]
    found = asyncio.run(loaded(history, order))
    assert found == history.in_order
    assert next(row for row in found["dim_design"] if row[0] == 1)[1] == "A"


def test_concurrent_loaders_give_the_same_warehouse(history: History) -> None:
    async def at_once() -> Dump:
        async with from_the_beginning(history) as pipeline:
            messages = [*history.messages, *history.messages]
            questions = await asyncio.gather(*(load_until_done(pipeline, message) for message in messages))
            await pipeline.settle([question for asked in questions for question in asked])
            return await pipeline.dump()

    assert asyncio.run(at_once()) == history.in_order


async def load_until_done(pipeline: Pipeline, message: BatchRemodelled) -> list[LookUpKeys]:
    """Load as the consumer does: retry a deadlock or a serialization failure."""
    while True:
        try:
            return await pipeline.load(message)
        except (TransientError, ServerBusyError):
            await asyncio.sleep(0)
