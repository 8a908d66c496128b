"""A first load that goes on after its run, a task or its snapshot was killed, on PostgreSQL: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import asyncpg
import pytest

from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Mode, Trigger, decode
from infra.local.databases import READER
from services.ingestion import chunks as chunks_module
from services.ingestion.handler import Dependencies, handle, handle_chunk
from services.ingestion.postgres_source import PostgresSource
from services.operator.ingest import resend_missing
from shared.envelope import opening
from shared.errors import DependencyDownError
from shared.outcome import Done
from shared.testing import FakeQueue
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import SOURCE, Pipeline, tables_read
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.sharing import tasks

pytestmark = begins_with(filled_totesys(orders=400))
ROWS = 60  # of a batch
TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture(autouse=True)
def a_few_batches_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few rows are shared."""
    monkeypatch.setattr(chunks_module, "LARGE", 5)


@pytest.fixture
async def shared(filled: asyncpg.Connection, pipeline: Pipeline) -> Pipeline:
    await filled.execute("ANALYZE")
    return pipeline.cut(ROWS)


def deps_of(pipeline: Pipeline) -> Dependencies:
    source = PostgresSource(pipeline.source, pipeline.contract)
    queues = FakeQueue("remodelling"), FakeQueue("chunks")
    return Dependencies(source, pipeline.store, queues[0], pipeline.limits, compare_keys_every=0, chunks=queues[1])


async def announced(deps: Dependencies) -> list[BatchIngested]:
    """What the last run and its tasks have announced, or have recorded: that is announced when its command comes again."""
    assert isinstance(deps.remodelling, FakeQueue)
    found = [decode(body) for body in deps.remodelling.bodies]
    batches = [one for one in found if isinstance(one, BatchIngested)]
    batches += [chunk.batch for chunk in await deps.store.chunks_of((await deps.store.read_state())[0].run)]
    return list({one.data.batch_id: one for one in batches}.values())


def command() -> IngestSource:
    return IngestSource(**opening("tests"), data=IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR))


async def has_recorded(number: int, deps: Dependencies) -> None:
    """Wait until so many chunks of the run are recorded."""
    while len(await deps.store.chunks_of((await deps.store.read_state())[0].run)) < number:  # noqa: ASYNC110 - a condition
        await asyncio.sleep(0.01)


async def killed(pipeline: Pipeline, after: int) -> list[BatchIngested]:
    """Begin a first load, kill its run and its tasks when so many chunks are recorded; return what they announced."""
    deps = deps_of(pipeline)
    run = asyncio.create_task(handle(command(), deps))
    async with tasks(2, deps):
        await has_recorded(after, deps)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    return await announced(deps)


async def resumed(pipeline: Pipeline, number: int = 2) -> list[BatchIngested]:
    deps = deps_of(pipeline)
    async with tasks(number, deps):
        assert await handle(command(), deps) == Done()
    return await announced(deps)


async def change(source: asyncpg.Connection) -> None:
    """Change, insert and delete rows, and delete a partner of some."""
    await source.execute("UPDATE sales_order SET units_sold = 7, last_updated = now() WHERE sales_order_id % 50 = 1")
    await source.execute("UPDATE address SET city = 'Leeds', last_updated = now() WHERE address_id % 3 = 1")
    sold = "SELECT transaction_id FROM transaction WHERE sales_order_id % 40 = 2"
    await source.execute(f"DELETE FROM payment WHERE transaction_id IN ({sold})")
    await source.execute("DELETE FROM transaction WHERE sales_order_id % 40 = 2")
    await source.execute("DELETE FROM sales_order WHERE sales_order_id % 40 = 2")
    await source.execute("UPDATE staff SET first_name = 'Ada', last_updated = now() WHERE staff_id = 1")


async def are_equal(shared: Pipeline, batches: list[BatchIngested]) -> None:
    """Load batches; star and source are equal, deleted rows included: five minutes later the comparison of keys is made."""
    await shared.settle(await shared.load(*[await shared.remodel(batch) for batch in batches]))
    await shared.select("UPDATE starlift.ledger SET loaded_at = loaded_at - interval '6 minutes'")
    await shared.settle(await shared.load(await shared.remodel(batches[0])))
    assert (await shared.verify()).is_equal


@pytest.mark.parametrize("after", [1, 8, 15])
async def test_a_load_killed_after_so_many_chunks_is_completed_by_the_next_run(
    filled: asyncpg.Connection, shared: Pipeline, after: int
) -> None:
    first = await killed(shared, after)
    recorded = await shared.store.chunks_of(first[0].data.run)
    await change(filled)
    second = await resumed(shared)
    batches = [*first, *second]
    Random(after).shuffle(batches)  # noqa: S311 - an order
    await are_equal(shared, batches)
    gone = await shared.select("SELECT count(*)::int FROM dim_transaction WHERE _deleted_at IS NOT NULL")
    assert (gone > [(0,)]) == ("transaction" in tables_read(first))
    assert len(recorded) >= after
    progress = await shared.progress()
    assert progress.consistent_through is not None
    assert progress.consistent_through.run >= second[0].data.run  # an answer about deleted rows comes later
    assert progress.missing == ()


async def test_a_resumed_run_reads_only_what_is_missing(shared: Pipeline) -> None:
    first = await killed(shared, 10)
    recorded = tables_read([chunk.batch for chunk in await shared.store.chunks_of(first[0].data.run)])
    second = tables_read(await resumed(shared))
    whole = tables_read(await shared.ingest(Mode.FULL))
    assert {table: count - recorded.get(table, 0) for table, count in whole.items() if count != recorded.get(table)} == second
    assert sum(recorded.values()) >= 10 * ROWS // 2


async def test_batches_of_both_runs_are_followed_until_they_are_loaded(shared: Pipeline) -> None:
    first = await killed(shared, 6)
    second = await resumed(shared)
    part = {chunk.batch.data.batch_id for chunk in await shared.store.chunks_of(first[0].data.run)}
    lost, *others = [batch for batch in first if batch.data.batch_id in part]
    await shared.load(*[await shared.remodel(batch) for batch in (*second, *others)])
    progress = await shared.progress()
    assert [batch.data.batch_id for batch in progress.missing] == [lost.data.batch_id]
    assert progress.consistent_through is None
    assert not (await shared.verify()).is_equal
    system = shared.system
    assert await resend_missing(system) == 1
    remodelling = system.queues["remodelling"]
    assert isinstance(remodelling, FakeQueue)
    (sent,) = [decode(body) for body in remodelling.bodies]
    assert isinstance(sent, BatchIngested)
    await shared.load(await shared.remodel(sent))
    assert (await shared.verify()).is_equal
    whole = (await shared.progress()).consistent_through
    assert whole is not None
    assert whole.run == second[0].data.run


async def test_before_the_run_that_goes_on_is_loaded_nothing_is_consistent(shared: Pipeline) -> None:
    first = await killed(shared, 6)
    await resumed(shared)
    await shared.load(*[await shared.remodel(batch) for batch in first])
    progress = await shared.progress()
    assert (progress.consistent_through, progress.loaded) == (None, 0)
    assert progress.missing


async def test_a_lost_snapshot_ends_its_run_and_the_next_one_goes_on(
    filled: asyncpg.Connection, postgres_cluster: TestCluster, source_database: str, shared: Pipeline
) -> None:
    deps = deps_of(shared)
    run = asyncio.create_task(handle(command(), deps))
    reader = await asyncpg.connect(postgres_cluster.url(source_database, READER))
    async with tasks(1, deps):
        await has_recorded(2, deps)
        await reader.execute(TERMINATE)
        await reader.close()
        with pytest.raises(DependencyDownError):
            await run
    await change(filled)
    first, second = await announced(deps), await resumed(shared, 4)
    assert (await shared.store.read_manifest(first[0].data.run)).is_part
    await are_equal(shared, [*second, *first])


async def test_a_task_killed_in_the_middle_of_a_chunk_loses_nothing(shared: Pipeline) -> None:
    deps = deps_of(shared)
    run = asyncio.create_task(handle(command(), deps))
    for _ in range(6):
        async with tasks(2, deps):
            await asyncio.sleep(0.15)
    async with tasks(1, replace(deps)):
        assert await run == Done()
    assert isinstance(deps.chunks, FakeQueue)
    for body in deps.chunks.bodies:  # of a task that was killed after it had recorded its chunk, and before it announced that
        assert await handle_chunk(decode(body), deps) == Done()
    await shared.load(*[await shared.remodel(batch) for batch in await announced(deps)])
    assert (await shared.verify()).is_equal
