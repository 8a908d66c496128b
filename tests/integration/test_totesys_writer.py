"""The simulated application writes in ways that lose rows in other pipelines, and reports what it committed."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from itertools import count
from random import Random

import asyncpg
import pytest

from services.operator.local.totesys.clerk import ChangedMindError, Clerk
from services.operator.local.totesys.fill import connect, fill
from services.operator.local.totesys.writer import CANCELLING, ERRANDS, Errand, write
from tests.fixtures.limits import HANG_S
from tests.integration.totesys_rows import count_rows, digest


def clerk(connection: asyncpg.Connection, seed: int = 1) -> Clerk:
    return Clerk(connection, Random(seed), asyncio.sleep)  # noqa: S311 (repeatable on purpose)


def after(seconds: float) -> asyncio.Event:
    """An event that is set by then."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    return stop


async def test_the_application_continues_its_inserts_where_the_fill_ended(source: asyncpg.Connection) -> None:
    before = await fill(source, orders=50, seed=1)
    async with source.transaction():
        await clerk(source).sell()
    for table in ("sales_order", "transaction", "payment"):
        assert await source.fetchval(f'SELECT max({table}_id) FROM "{table}"') == before[table] + 1


class AlwaysExtreme(Random):
    """Always draws the rare case, and chooses among those at random."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int) -> int:
        return super().getrandbits(k)


async def test_the_limits_of_the_columns_are_also_written(source: asyncpg.Connection) -> None:
    await fill(source, orders=10, seed=1)
    worker = Clerk(source, AlwaysExtreme(1), asyncio.sleep)
    for _ in range(30):
        async with source.transaction():
            await worker.sell()
    ends = await source.fetchrow(
        "SELECT max(unit_price), min(unit_price), max(units_sold), max(agreed_payment_date) FROM sales_order"
    )
    assert ends is not None
    assert tuple(ends) == (Decimal("99999999.99"), 0, 2_147_483_647, "9999-12-31")


async def next_transaction(connection: asyncpg.Connection) -> None:
    """Wait until another transaction has been committed."""
    newest = 'SELECT max(transaction_id) FROM "transaction"'
    known = await connection.fetchval(newest)
    while known == await connection.fetchval(newest):
        await connection.execute("SELECT pg_sleep(0.02)")


async def test_a_long_transaction_commits_last_with_the_earliest_date(source: asyncpg.Connection, source_url: str) -> None:
    await fill(source, orders=50, seed=1)
    other = await connect(source_url)

    async def meanwhile(_seconds: float) -> None:
        async with other.transaction():
            await clerk(other, seed=2).sell()

    slow = Clerk(source, Random(1), meanwhile)  # noqa: S311 (repeatable on purpose)
    async with source.transaction():
        await slow.work_slowly()
        assert await other.fetchval("SELECT count(*) FROM sales_order") == 51, "the other's order is in, the long one's is not"
    await other.close()
    long, quick = await source.fetch("SELECT last_updated FROM sales_order WHERE sales_order_id > 50 ORDER BY sales_order_id")
    assert long["last_updated"] <= quick["last_updated"]


async def test_a_cancelled_errand_leaves_no_rows(source: asyncpg.Connection) -> None:
    await fill(source, orders=50, seed=1)
    before = await digest(source)
    with pytest.raises(ChangedMindError):
        async with source.transaction():
            await clerk(source).change_mind()
    assert await digest(source) == before


async def test_one_of_two_savepoints_is_kept_with_its_own_transaction_id(source: asyncpg.Connection) -> None:
    before = await fill(source, orders=50, seed=1)
    worker = clerk(source)
    async with source.transaction():
        await worker.undo_a_part()
    after = await count_rows(source)
    assert after["design"] == before["design"], "rolled back to the savepoint"
    assert after["transaction"] - before["transaction"] == 2
    last, before_last = await source.fetch("SELECT xmin::text::bigint FROM payment ORDER BY payment_id DESC LIMIT 2")
    assert last[0] != before_last[0], "the kept savepoint wrote as a sub-transaction"


async def test_the_writer_counts_the_outcomes_of_its_transactions(source: asyncpg.Connection, source_url: str) -> None:
    await fill(source, orders=200, seed=1)
    written = await write(source_url, rate_per_second=200, seed=3, stop=after(2))
    assert written.committed > 0
    assert written.uncertain == written.lost == 0


async def test_a_cancelled_sale_leaves_no_rows_or_a_transaction_without_a_reference(source: asyncpg.Connection) -> None:
    before = await fill(source, orders=50, seed=1)
    worker = clerk(source)
    for _ in range(20):
        async with source.transaction():
            await worker.cancel_sale()
    after = await count_rows(source)
    cancelled = before["sales_order"] - after["sales_order"]
    stayed = await source.fetchval(
        'SELECT count(*) FROM "transaction" WHERE num_nonnulls(sales_order_id, purchase_order_id) = 0'
    )
    assert cancelled == before["payment"] - after["payment"] == before["transaction"] - after["transaction"] + stayed
    assert 0 < stayed < cancelled


async def test_a_voided_payment_returns_unchanged_except_for_its_date(source: asyncpg.Connection) -> None:
    await fill(source, orders=200, seed=1)
    await source.execute("UPDATE payment SET paid = false")
    before = {row["payment_id"]: dict(row) | {"last_updated": None} for row in await source.fetch("SELECT * FROM payment")}
    worker = clerk(source)
    for errand in (worker.void_payment, worker.issue_again):
        async with source.transaction():
            await errand()
        if errand == worker.void_payment:
            assert await source.fetchval("SELECT count(*) FROM payment") == len(before) - 1
    after = {row["payment_id"]: dict(row) | {"last_updated": None} for row in await source.fetch("SELECT * FROM payment")}
    assert after == before


async def test_no_foreign_key_stops_a_writer_that_also_deletes(source: asyncpg.Connection, source_url: str) -> None:
    await fill(source, orders=200, seed=1)
    done: list[object] = []

    def counted(errand: Errand) -> Errand:
        async def run(clerk: Clerk) -> None:
            await errand(clerk)
            done.append(errand)

        return run

    errands = {counted(errand): weight for errand, weight in CANCELLING.items()}
    async with asyncio.timeout(HANG_S):
        for seed in count(5):
            await write(source_url, rate_per_second=200, seed=seed, stop=after(1), errands=errands)
            if CANCELLING.keys() - ERRANDS.keys() <= set(done):
                break


async def test_the_writer_continues_after_its_connections_are_cut(source: asyncpg.Connection, source_url: str) -> None:
    await fill(source, orders=200, seed=1)
    stop = asyncio.Event()

    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        writing = group.create_task(write(source_url, rate_per_second=200, seed=4, stop=stop))
        await next_transaction(source)
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        await source.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        for _ in range(20):  # enough for every connection to have noticed
            await next_transaction(source)
        stop.set()
    written = writing.result()
    assert written.lost >= 1
    assert written.committed > 0
