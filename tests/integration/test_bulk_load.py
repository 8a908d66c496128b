"""The first load in bulk: what stands while it does, what its end leaves, and what any crash or order makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from contracts.messages import BatchRemodelled, Mode, RowsOf
from services.loading import bulk_load
from services.loading.migrate import migrate_schema
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.references import insert_referred
from shared.errors import ServerBusyError, TransientError
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import Dump, Pipeline
from tests.fixtures.totesys import CONTRACT
from tests.integration.test_loading import VALIDATED

pytestmark = begins_with(filled_totesys(orders=40))
STANDS = "SELECT run FROM starlift.bulk_load"
KEYS = """
SELECT count(*)::int FROM pg_constraint AS o JOIN pg_class AS c ON c.oid = o.conrelid
WHERE o.contype = 'p' AND o.connamespace = 'public'::regnamespace
"""
TABLES, CALENDAR_ALONE = len(CONTRACT.warehouse_tables), [(1,)]
LACKS_A_DATE = """
SELECT count(*)::int FROM fact_sales_order, unnest(ARRAY[created_date, last_updated_date, agreed_payment_date]) AS referred
WHERE NOT EXISTS (SELECT FROM dim_date WHERE date_id = referred)
"""


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def pages(pipeline: Pipeline) -> Pipeline:
    """The pipeline with a first load of several batches."""
    return pipeline.cut(200)


async def merged(pages: Pipeline, messages: Sequence[BatchRemodelled]) -> Dump:
    """The warehouse that results without a bulk load, for a published table keeps its key; afterwards it is empty again."""
    await pages.star.ensure_schema()
    await pages.select("CREATE PUBLICATION without_bulk FOR TABLE fact_payment")
    for message in messages:
        await pages.load(message)
        assert await pages.select(STANDS) == []
    await pages.select("DROP PUBLICATION without_bulk")
    found = await pages.dump()
    await pages.empty_warehouse()
    return found


async def test_a_first_load_is_copied_into_a_star_without_keys_which_its_last_batch_builds(
    filled: asyncpg.Connection, pages: Pipeline
) -> None:
    *others, facts = await pages.read()
    messages = [facts, *others]
    expected = await merged(pages, messages)
    for message in messages[:-1]:
        await pages.load(message)
        assert await pages.select(STANDS) == [(message.data.run,)]
        assert await pages.select(KEYS) == CALENDAR_ALONE
        assert await pages.select(LACKS_A_DATE) == [(0,)]
    await pages.load(messages[-1])
    assert await pages.select(STANDS) == []
    assert await pages.select(KEYS) == [(TABLES,)]
    assert {is_valid for _, is_valid in await pages.select(VALIDATED)} == {True}
    assert await pages.dump() == expected
    assert (await pages.verify()).is_equal


async def test_run_n_killed_half_way_and_a_full_run_after_it_in_any_order_give_the_same_warehouse(
    filled: asyncpg.Connection, pages: Pipeline
) -> None:
    """Whichever run's batch comes first begins the bulk load, and the first one of the other ends it."""
    *halfway, _ = await pages.read()
    await filled.execute("UPDATE sales_order SET units_sold = 7, last_updated = now() WHERE sales_order_id < 9")
    await filled.execute("UPDATE staff SET first_name = 'Ada'")
    await filled.execute("UPDATE payment SET payment_amount = 5 WHERE payment_id < 20")
    following = await pages.read(Mode.FULL)
    messages, seen = [*halfway, *following], set[object]()
    expected = await merged(pages, messages)
    for seed in range(12):
        order = [*messages, *messages[seed % 3 :: 3]]
        Random(seed).shuffle(order)  # noqa: S311 (an order)
        for message in order:
            await pages.load(message)
            seen.add(tuple(await pages.select(STANDS)))
        assert await pages.dump() == expected
        assert await pages.select(STANDS) == []
        await pages.empty_warehouse()
    assert seen == {(), ((halfway[0].data.run,),), ((following[0].data.run,),)}


async def test_loaders_at_once_give_the_same_warehouse(filled: asyncpg.Connection, pages: Pipeline) -> None:
    messages = await pages.read()
    await filled.execute("UPDATE staff SET first_name = 'Ada'")
    messages += await pages.read()
    expected = await merged(pages, messages)

    async def load(message: BatchRemodelled) -> None:
        while True:
            try:
                await pages.load(message)
            except (TransientError, ServerBusyError):  # as the consumer does
                continue
            return

    await asyncio.gather(*(load(message) for message in [*messages, *messages]))
    assert await pages.dump() == expected
    assert (await pages.verify()).is_equal


def killing(effect: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Call it, then die."""

    async def killed(*arguments: Any, **options: Any) -> None:
        await effect(*arguments, **options)
        raise KilledError

    return killed


@pytest.mark.parametrize("step", ["_build_keys", "_has_true_references", "_add_key_constraints", "end"])
@pytest.mark.parametrize("by", ["redelivery", "migrate", "start", "other run"])
async def test_a_bulk_load_whose_end_crashed_is_ended(
    filled: asyncpg.Connection, pages: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str, by: str
) -> None:
    """`end` dies after its last commit, the others before it; `_has_true_references` after one of its own."""
    messages = await pages.read()
    await pages.load(*messages[:-1])
    with monkeypatch.context() as patch:
        patch.setattr(bulk_load, step, killing(getattr(bulk_load, step)))
        with pytest.raises(KilledError):
            await pages.load(messages[-1])
    stands = [] if step == "end" else [(messages[0].data.run,)]
    assert await pages.select(STANDS) == stands
    assert ((await pages.progress()).consistent_through is None) == bool(stands)
    match by:
        case "redelivery":
            await pages.load(messages[-1])
        case "migrate":
            await migrate_schema(pages.warehouse, pages.contract)
        case "start":
            await pages.star.ensure_schema()
        case _:
            await filled.execute("UPDATE staff SET first_name = 'Ada'")
            await pages.run()
    assert await pages.select(STANDS) == []
    assert await pages.select(KEYS) == [(TABLES,)]
    assert (await pages.verify()).is_equal


async def test_an_end_that_finds_references_without_rows_infers_these_rows_even_if_it_crashes(
    filled: asyncpg.Connection, pages: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source without foreign keys. Those of the star refuse such rows, and the keys are there when the end is repeated."""
    *first, last = await pages.read()
    await pages.load(*first)
    await pages.select("DELETE FROM dim_design")
    await pages.select("DELETE FROM dim_date")
    with monkeypatch.context() as patch:
        patch.setattr(bulk_load, "insert_referred", killing(insert_referred))
        with pytest.raises(KilledError):
            await pages.load(last)
    assert await pages.select(STANDS) == [(last.data.run,)]
    assert False in {is_valid for _, is_valid in await pages.select(VALIDATED)}
    await pages.load(last)
    assert {is_valid for _, is_valid in await pages.select(VALIDATED)} == {True}
    assert await pages.select("SELECT DISTINCT _run FROM dim_design") == [(0,)]
    assert await pages.select(LACKS_A_DATE) == [(0,)]


@pytest.mark.parametrize("method", ["_load", "load"])
async def test_a_loader_killed_before_or_after_each_commit_of_a_first_load_loads_once(
    filled: asyncpg.Connection, pages: Pipeline, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for message in await pages.read():
        with monkeypatch.context() as patch:
            patch.setattr(PostgresWarehouse, method, killing(getattr(PostgresWarehouse, method)))
            with pytest.raises(KilledError):
                await pages.load(message)
        await pages.load(message)
    assert await pages.select("SELECT count(*)::int FROM starlift.bulk_ledger") == [(0,)]
    assert (await pages.verify()).is_equal


async def test_a_loader_killed_before_its_first_batch_leaves_a_record_that_another_run_takes_over(
    filled: asyncpg.Connection, pages: Pipeline
) -> None:
    await pages.star.ensure_schema()
    await bulk_load.begin(pages.warehouse.transaction, pages.contract, bulk_load.BulkLoad("totesys", 5))
    assert await pages.select(STANDS) == [(5,)]
    messages = await pages.read()
    await pages.load(messages[0])
    assert await pages.select(STANDS) == [(messages[0].data.run,)]
    await pages.load(*messages[1:])
    assert (await pages.verify()).is_equal


async def test_a_batch_of_the_bulk_run_that_comes_after_its_end_is_merged(filled: asyncpg.Connection, pages: Pipeline) -> None:
    first, late, *others = await pages.read()
    await filled.execute("UPDATE design SET design_name = 'A' WHERE design_id = 1")
    (change,) = await pages.read()
    await pages.load(*others, change)
    assert await pages.select(STANDS) == []
    await pages.load(late, first, late)
    assert (await pages.verify()).is_equal


async def test_a_batch_that_was_made_again_replaces_its_rows_at_the_end(filled: asyncpg.Connection, pages: Pipeline) -> None:
    *first, last = await pages.read()
    await pages.load(*first)
    await pages.select("UPDATE dim_staff SET first_name = 'wrong'")
    again = [message for message in first if "dim_staff" in {table.table for table in message.data.tables}]
    await pages.load(*(remade(message) for message in again), last)
    assert await pages.select("SELECT count(*)::int FROM dim_staff WHERE first_name = 'wrong'") == [(0,)]
    assert (await pages.verify()).is_equal


def remade(message: BatchRemodelled, **update: object) -> BatchRemodelled:
    return message.model_copy(update={"data": message.data.model_copy(update={"batch_id": uuid4(), **update})})


async def test_tombstones_of_the_bulk_run_mark_the_members_that_its_end_infers(
    filled: asyncpg.Connection, pages: Pipeline
) -> None:
    """The rows of the run itself stay alive: what it found gone it has no row of."""
    messages = await pages.read()
    others = [message for message in messages if "dim_staff" not in {table.table for table in message.data.tables}]
    gone = (RowsOf(table="staff", keys=((1,),)), RowsOf(table="payment", keys=((3,),)))
    later = RowsOf(table="design", keys=((1,),))
    first, *rest = (remade(message, index=index, is_last=False) for index, message in enumerate(others))
    last = remade(messages[-1], index=len(others), is_last=True, tables=(), gone=(later,))
    await pages.load(remade(first, gone=gone), *rest)
    assert await pages.select("SELECT table_name, run FROM starlift.tombstone ORDER BY 1") == [
        ("dim_staff", first.data.run),
        ("fact_payment", first.data.run),
    ]
    await pages.load(last)
    assert await pages.select(STANDS) == []
    dead = "SELECT staff_id, _run FROM dim_staff WHERE _deleted_at IS NOT NULL"
    assert await pages.select(dead) == [(1, 0)]
    assert await pages.select("SELECT count(*)::int FROM dim_staff WHERE _run = 0") != [(1,)]
    assert await pages.select("SELECT count(*)::int FROM fact_payment WHERE _deleted_at IS NOT NULL") == [(0,)]
    assert await pages.select("SELECT count(*)::int FROM dim_design WHERE _deleted_at IS NOT NULL") == [(0,)]


async def test_a_comparison_of_the_bulk_run_ends_with_it_and_rows_of_earlier_runs_that_come_later_are_asked_about(
    filled: asyncpg.Connection, pages: Pipeline
) -> None:
    earlier = await pages.read()
    await filled.execute("DELETE FROM payment WHERE payment_id = 3")
    messages = await pages.read(Mode.FULL, compare_keys=True)
    assert await pages.load(*messages) == []
    open_ones = (
        "SELECT count(*)::int FROM starlift.key_comparison WHERE begun_at IS NULL OR ended_at IS NULL OR hashes IS NOT NULL"
    )
    assert await pages.select(open_ones) == [(0,)]
    assert (await pages.verify()).is_equal
    questions = await pages.load(*earlier)
    assert {keys for question in questions for rows in question.data.rows for keys in rows.keys if rows.table == "payment"} == {
        (3,)
    }
    await pages.settle(questions)
    assert (await pages.verify()).is_equal
