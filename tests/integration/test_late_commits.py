"""The rows that `last_updated > watermark` loses: those of transactions that began before a run and committed after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import asyncpg
import pytest
from structlog.testing import capture_logs

from contracts.key_hashes import TableHashes
from contracts.messages import KeyRange
from contracts.state import Checkpoint
from contracts.tables import RemodelledTable, SourceTable
from services.ingestion.plan import Plan, Request
from services.ingestion.selection import Selection
from services.ingestion.source import BatchLimits, OpenSnapshot, Page, Source, TablePart
from services.operator.local.totesys.fill import connect
from shared.source_facts import SourceFacts
from shared.source_keys import Key
from tests.fixtures.beginnings import begins_with, filled_totesys, loaded_totesys
from tests.fixtures.pipeline import Pipeline, tables_read
from tests.fixtures.totesys import CONTRACT

pytestmark = begins_with(filled_totesys(orders=40))
INSERT = """
INSERT INTO design (design_name, file_location, file_name, last_updated) VALUES ($1, '/', 'f', '2020-01-01') RETURNING design_id
"""


@pytest.fixture
async def writer(source: asyncpg.Connection, source_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A second session of the application."""
    connection = await connect(source_url)
    yield connection
    await connection.close()


@dataclass(frozen=True)
class ChangingSource:
    """A source that changes before the first page of a snapshot is read, and after each."""

    source: Source
    change: Callable[[], Awaitable[None]]

    @asynccontextmanager
    async def open_snapshot(self, request: Request | None = None) -> AsyncIterator[OpenSnapshot]:
        async with self.source.open_snapshot(request) as snapshot:
            yield ChangingSnapshot(snapshot, self.change)

    def join_snapshot(self, exported: str) -> AbstractAsyncContextManager[OpenSnapshot]:
        return self.source.join_snapshot(exported)


@dataclass(frozen=True)
class ChangingSnapshot:
    snapshot: OpenSnapshot
    change: Callable[[], Awaitable[None]]

    @property
    def facts(self) -> SourceFacts:
        return self.snapshot.facts

    def plan(self, before: Checkpoint | None, request: Request, compare_keys_every: int) -> Plan:
        return self.snapshot.plan(before, request, compare_keys_every)

    async def pages(self, plan: Plan, limits: BatchLimits, part: TablePart | None = None) -> AsyncGenerator[list[Page], None]:
        await self.change()
        async for pages in self.snapshot.pages(plan, limits, part):
            await self.change()
            yield pages

    def ranges(self, table: SourceTable, within: KeyRange, row_count: int) -> AsyncIterator[KeyRange]:
        return self.snapshot.ranges(table, within, row_count)

    async def export(self) -> str:
        return await self.snapshot.export()

    async def key_hashes(self, plan: Plan, table: SourceTable, star: RemodelledTable | None = None) -> TableHashes:
        await self.change()
        return await self.snapshot.key_hashes(plan, table, star)

    async def is_empty(self, table: SourceTable) -> bool:
        return await self.snapshot.is_empty(table)

    async def missing_keys(self, table: SourceTable, keys: Sequence[Key]) -> tuple[Key, ...]:
        await self.change()
        return await self.snapshot.missing_keys(table, keys)

    async def completed(self, plan: Plan) -> None:
        await self.snapshot.completed(plan)


async def designs(pipeline: Pipeline) -> set[str]:
    return {name for (name,) in await pipeline.select("SELECT design_name FROM dim_design WHERE design_name LIKE 'late%'")}


async def test_a_transaction_that_was_open_during_a_run_is_read_by_the_next_run(
    source: asyncpg.Connection, writer: asyncpg.Connection, pipeline: Pipeline
) -> None:
    async with writer.transaction():
        await writer.execute(INSERT, "late")
        await pipeline.run()
        await source.execute(INSERT, "late, but committed first")
        await pipeline.run()
    await pipeline.run()
    assert await designs(pipeline) == {"late", "late, but committed first"}
    assert (await pipeline.verify()).is_equal
    assert await pipeline.ingest() == []


async def test_a_commit_during_a_run_is_read_by_the_next_run(writer: asyncpg.Connection, pipeline: Pipeline) -> None:
    """The horizon is taken before the first row is read, and every row in the horizon's own snapshot."""
    committed: set[str] = set()

    async def change() -> None:
        committed.add(name := f"late {len(committed)}")
        await writer.execute(INSERT, name)

    await replace(pipeline, read_as=lambda source: ChangingSource(source, change)).run()
    assert committed
    assert await designs(pipeline) == set()
    (message,) = await pipeline.run()
    assert await designs(pipeline) == committed
    assert [table.table for table in message.data.tables] == ["dim_design"]
    assert (await pipeline.verify()).is_equal


async def test_rows_of_released_savepoints_are_read_and_rolled_back_ones_are_not(
    writer: asyncpg.Connection, pipeline: Pipeline
) -> None:
    async with writer.transaction():
        await writer.execute(INSERT, "late before")
        await pipeline.run()
        async with writer.transaction():
            await writer.execute(INSERT, "late in savepoint")
            await pipeline.run()
            async with writer.transaction():
                await writer.execute("UPDATE design SET design_name = 'late, twice saved' WHERE design_id = 1")
        undone = writer.transaction()
        await undone.start()
        await writer.execute(INSERT, "late and undone")
        await undone.rollback()
        await pipeline.run()
    await pipeline.run()
    assert await designs(pipeline) == {"late before", "late in savepoint", "late, twice saved"}
    assert (await pipeline.verify()).is_equal


@begins_with(loaded_totesys(orders=40))
async def test_an_update_that_waited_for_a_lock_during_a_run_is_read(
    source: asyncpg.Connection, writer: asyncpg.Connection, pipeline: Pipeline
) -> None:
    async with writer.transaction():
        await writer.execute("UPDATE department SET department_name = 'late' WHERE department_id = 1")
        await pipeline.run()
    await source.execute("UPDATE department SET manager = 'x' WHERE department_id = 1")
    await pipeline.run()
    assert await pipeline.select("SELECT DISTINCT department_name FROM dim_staff WHERE department_name = 'late'") == [("late",)]
    assert (await pipeline.verify()).is_equal


@begins_with(loaded_totesys(orders=40))
async def test_rereading_rows_between_horizon_and_snapshot_changes_nothing(
    source: asyncpg.Connection, writer: asyncpg.Connection, pipeline: Pipeline
) -> None:
    async with writer.transaction():
        await writer.execute(INSERT, "late")  # holds the horizon back
        await source.execute("UPDATE staff SET first_name = 'Ada' WHERE staff_id = 1")
        await pipeline.run()
        before = await pipeline.dump(with_runs=False)
        (again,) = await pipeline.run()
        assert [(table.table, table.object.row_count) for table in again.data.tables] == [("dim_staff", 1)]
        assert await pipeline.dump(with_runs=False) == before
    assert tables_read(await pipeline.ingest()) == {"staff": 1, "design": 1}
    assert tables_read(await pipeline.ingest()) == {}


@begins_with(loaded_totesys(orders=40))
async def test_both_transactions_of_an_order_arrive_if_a_run_comes_between_them(
    source: asyncpg.Connection, writer: asyncpg.Connection, pipeline: Pipeline
) -> None:
    """The order's transaction row commits before a run, its payment after it: a later run brings the payment."""
    async with writer.transaction():
        await writer.execute("UPDATE payment SET paid = false, payment_date = '2031-05-05' WHERE payment_id = 1")
        await source.execute("UPDATE sales_order SET agreed_payment_date = '2031-05-05' WHERE sales_order_id = 1")
        await pipeline.run()
        assert (await pipeline.verify()).is_equal
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 1)
    await pipeline.run()
    verdict = await pipeline.verify()
    assert (verdict.is_equal, verdict.in_flight) == (True, 0)


async def test_a_row_is_new_only_from_the_horizon_on_even_if_its_id_has_wrapped_around(
    source: asyncpg.Connection,
) -> None:
    """A row older than 2^31 transactions has a negative age: without the lower bound every run would read it again."""
    horizon = int(await source.fetchval("SELECT txid_current()"))
    for _ in range(3):
        await source.execute("SELECT txid_current()")
    condition = Selection(CONTRACT, frozenset(), horizon)._changed("t")
    xids = {"before": -1, "at the horizon": 0, "since": 2, "nearly half ago": 1000 - 2**31, "longer ago": -1000 - 2**31}
    rows = ", ".join(f"('{name}', '{(horizon + distance) % 2**32}'::xid)" for name, distance in xids.items())
    found = await source.fetch(f"SELECT name FROM (VALUES {rows}) AS t (name, xmin) WHERE {condition}")
    assert [row["name"] for row in found] == ["at the horizon", "since"]


async def test_an_open_transaction_makes_runs_reread_more_and_is_logged(
    source: asyncpg.Connection, writer: asyncpg.Connection, pipeline: Pipeline
) -> None:
    pipeline = replace(pipeline, held_back_limit=timedelta(0))
    await pipeline.run()
    counts, told = [], 0
    async with writer.transaction():
        await writer.execute(INSERT, "late")
        for number in range(3):
            await source.execute(INSERT, f"late {number}")
            with capture_logs() as logs:
                messages = await pipeline.ingest()
            told += sum(entry["event"] == "horizon_held_back" for entry in logs)
            counts.append(tables_read(messages)["design"])
            await pipeline.load(*[await pipeline.remodel(message) for message in messages])
            assert (await pipeline.verify()).is_equal
    assert (counts, told) == ([1, 2, 3], 1)
    assert pipeline.checkpoint().held_back_since is not None
    assert tables_read(await pipeline.ingest()) == {"design": 4}
    assert await pipeline.ingest() == []
    assert pipeline.checkpoint().held_back_since is None
