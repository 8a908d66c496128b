"""Rows in quarantine: which are there, which have left, and how a corrected contract loads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date

import asyncpg
import pytest

from contracts.column_types import varchar
from contracts.messages import decode
from contracts.origins import FromSource
from contracts.quarantine import Problem
from contracts.tables import Column
from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.operator.errors import UsageError
from services.operator.quarantine import Entry, Replayed, quarantined, replay
from services.operator.status.look import Asking, read_status
from services.operator.system import SERVICES, System
from shared.testing import FakeQueue
from tests.fixtures.limits import HANG
from tests.fixtures.pipeline import LANDING, Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import DIM_ITEM, FACT_SALE, SCHEMA, SHOP, with_column, with_table
from tests.unit.services.operator.scene import Scene

# As if the mistake were in the contract: codes are longer than it says.
CORRECTED = with_table(SHOP, with_column(DIM_ITEM, Column("code", varchar(10), FromSource("code"), nullable=True)))


@pytest.fixture
async def shop(postgres_cluster: TestCluster, source_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's session. Item 1 fits, item 2 has a code that is too long."""
    connection = await asyncpg.connect(postgres_cluster.url(source_database, SOURCE_OWNER))
    await connection.execute(SCHEMA)
    await connection.execute("INSERT INTO item (item_id, code, sold_at) VALUES (1, 'abc', now()), (2, 'abcdef', '2026-11-01')")
    yield connection
    await connection.close()


@pytest.fixture
async def pipeline(
    shop: asyncpg.Connection, postgres_cluster: TestCluster, source_database: str, warehouse_database: str
) -> AsyncIterator[Pipeline]:
    urls = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls, contract=SHOP) as opened:
        await opened.run()
        yield opened


def system(pipeline: Pipeline) -> System:
    queues = {name: FakeQueue(name) for name in SERVICES}
    scene = Scene().system
    return replace(
        scene,
        contract=pipeline.contract,
        queues=queues,
        objects=pipeline.objects,
        source=pipeline.source,
        warehouse=pipeline.warehouse,
    )


async def entries(pipeline: Pipeline, table: str | None = None) -> list[Entry]:
    return await quarantined(system(pipeline), table)


async def keys(pipeline: Pipeline) -> list[tuple[str, int]]:
    return [(entry.table, entry.key[0]) for entry in await entries(pipeline)]


async def replayed(pipeline: Pipeline) -> Replayed:
    """Replay everything in quarantine through remodelling and loading."""
    at_hand = system(pipeline)
    done = await replay(at_hand, await quarantined(at_hand))
    queue = at_hand.queues["remodelling"]
    assert isinstance(queue, FakeQueue)
    messages = [decode(body) for body in queue.bodies]
    assert messages == done.batches
    for message in done.batches:
        await pipeline.load(await pipeline.remodel(message))
    return done


async def codes(pipeline: Pipeline) -> list[tuple[object, ...]]:
    return await pipeline.select("SELECT item_id, code FROM dim_item WHERE _run > 0 AND _deleted_at IS NULL ORDER BY item_id")


async def test_an_entry_names_the_row_the_reason_and_its_values(pipeline: Pipeline) -> None:
    (entry,) = await entries(pipeline)
    assert (entry.table, entry.source_table, entry.key, entry.problems) == (
        "dim_item",
        "item",
        (2,),
        (Problem(column="code", reason="is longer than 3"),),
    )
    assert (entry.row["code"], entry.run) == ("abcdef", pipeline.checkpoint().run)
    assert await entries(pipeline, "fact_sale") == []
    with pytest.raises(UsageError, match=r"^contract 'shop' has no warehouse table 'dim_thing'; it has dim_day, "):
        await entries(pipeline, "dim_thing")


async def test_a_row_corrected_at_the_source_leaves_the_quarantine(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    await shop.execute("UPDATE item SET code = 'x' WHERE item_id = 2")
    await pipeline.run()
    assert await keys(pipeline) == []


async def test_a_row_deleted_at_the_source_leaves_the_quarantine_at_once(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    assert await keys(pipeline) == [("dim_item", 2)]
    await shop.execute("DELETE FROM item WHERE item_id = 2")
    assert await keys(pipeline) == []


async def test_a_status_counts_quarantined_rows_and_not_their_refusals(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    async with pipeline.source.connection() as idle, idle.transaction():
        await idle.fetchval("SELECT pg_current_xact_id()")  # each run reads again what has changed since
        await shop.execute("UPDATE item SET code = 'abcdefg' WHERE item_id = 2")
        for _ in range(5):
            await pipeline.run()
        assert (await read_status(system(pipeline), Asking(HANG))).quarantined == 1
    await shop.execute("UPDATE item SET code = 'x' WHERE item_id = 2")
    await shop.execute("UPDATE item SET code = 'abcdef' WHERE item_id = 1")
    await pipeline.run()
    assert (await read_status(system(pipeline), Asking(HANG))).quarantined == 1
    await shop.execute("DELETE FROM item WHERE item_id = 1")
    await pipeline.run(compare_keys=True)
    assert (await read_status(system(pipeline), Asking(HANG))).quarantined == 0


async def test_a_status_counts_refused_rows_before_the_first_load(
    shop: asyncpg.Connection, postgres_cluster: TestCluster, source_database: str, warehouse_database: str
) -> None:
    urls = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls, contract=SHOP) as empty:
        assert (await read_status(system(empty), Asking(HANG))).quarantined == 0
        await empty.read()
        assert (await read_status(system(empty), Asking(HANG))).quarantined == 1


async def test_a_row_that_still_exists_stays_in_quarantine_after_a_comparison(pipeline: Pipeline) -> None:
    await pipeline.run(compare_keys=True)
    assert await keys(pipeline) == [("dim_item", 2)]


async def test_a_replay_loads_the_row_once_the_contract_is_corrected(pipeline: Pipeline) -> None:
    run = pipeline.checkpoint().run
    corrected = pipeline.reading(CORRECTED)
    done = await replayed(corrected)
    assert (done.rows, [batch.data.run for batch in done.batches], done.lost) == (1, [run], [])
    assert await codes(pipeline) == [(1, "abc"), (2, "abcdef")]
    assert await keys(corrected) == []
    assert (await corrected.verify()).is_equal
    progress = await corrected.progress()
    assert (progress.missing, progress.consistent_through and progress.consistent_through.run) == ((), run)


async def test_a_replayed_row_that_was_lost_is_missing(pipeline: Pipeline) -> None:
    corrected = pipeline.reading(CORRECTED)
    await replayed(corrected)
    unknown = [column.name for column in DIM_ITEM.columns if column.name not in ("item_id", "sold_at")]
    inferred = ", ".join(["_run = 0", "sold_at = '0001-01-01'", *(f"{name} = NULL" for name in unknown)])
    await pipeline.select(f"UPDATE dim_item SET {inferred} WHERE item_id = 2")  # as an inferred member: a fact refers to it
    assert await keys(corrected) == []
    assert [table.different for table in (await corrected.verify()).tables if table.table == "dim_item"] == [1]


async def test_a_replay_without_a_correction_changes_nothing(pipeline: Pipeline) -> None:
    before = await pipeline.dump()
    await replayed(pipeline)
    await replayed(pipeline)
    assert await pipeline.dump() == before
    assert await keys(pipeline) == [("dim_item", 2)]


async def test_a_replay_overwrites_nothing_newer_and_adds_missing_history(shop: asyncpg.Connection, pipeline: Pipeline) -> None:
    """A sale with an unreadable date has had another version since; the contract no longer uses that date."""
    await shop.execute("INSERT INTO item (item_id, due, sold_at) VALUES (3, 'soon', '2026-11-01'), (4, 'soon', '2026-11-01')")
    await pipeline.run()
    await shop.execute("UPDATE item SET due = '2026-12-01', sold_at = '2026-11-02' WHERE item_id = 3")
    await pipeline.run()
    assert ("fact_sale", 3) not in await keys(pipeline)
    assert ("fact_sale", 4) in await keys(pipeline)
    columns = tuple(column for column in FACT_SALE.columns if column.name != "due_date")
    await replayed(pipeline.reading(with_table(CORRECTED, replace(FACT_SALE, columns=columns))))
    found = await pipeline.select("SELECT sold_date FROM fact_sale_current WHERE item_id = 3")
    assert found == [(date(2026, 11, 2),)]
    found = await pipeline.select("SELECT sold_date FROM fact_sale WHERE item_id = 3 ORDER BY 1")
    assert found == [(date(2026, 11, 1),), (date(2026, 11, 2),)]


async def test_a_replayed_row_that_was_deleted_at_the_source_is_marked_deleted(
    shop: asyncpg.Connection, pipeline: Pipeline
) -> None:
    at_hand = system(pipeline)
    before = await quarantined(at_hand)
    await shop.execute("DELETE FROM item WHERE item_id = 2")
    await pipeline.run(compare_keys=True)
    corrected = pipeline.reading(CORRECTED)
    for message in (await replay(at_hand, before)).batches:
        await corrected.load(await corrected.remodel(message))
    assert await codes(pipeline) == [(1, "abc")]
    assert (await corrected.verify()).is_equal


async def test_a_row_whose_batch_is_no_longer_known_is_reported(pipeline: Pipeline) -> None:
    bucket = pipeline.objects.buckets[LANDING]
    for key in [key for key in bucket if "/manifests/" in key]:
        del bucket[key]
    done = await replayed(pipeline)
    assert (done.rows, done.batches, [entry.key for entry in done.lost]) == (0, [], [(2,)])
