"""While services of two builds run side by side, messages that a build does not know wait; nothing is dropped."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from pydantic import SecretStr

from contracts.column_types import INTEGER, TEXT
from contracts.messages import BatchIngested, BatchRemodelled, Mode
from contracts.origins import FromSource
from contracts.tables import Column, SourceColumn
from infra.local.databases import LOADER
from services.loading import handler as loading
from services.loading.migrate import migrate
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.settings import LoadingSettings
from services.remodelling import handler as remodelling
from shared.errors import PermanentError
from shared.outcome import Defer, Outcome
from shared.testing import FakeQueue
from tests.fixtures.beginnings import begins_with, filled_totesys
from tests.fixtures.pipeline import PROCESSED, Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import with_column, with_table
from tests.fixtures.totesys import CONTRACT

pytestmark = begins_with(filled_totesys(orders=10))
STAFF = CONTRACT.warehouse_table("dim_staff")
NEWER_STAR = with_table(CONTRACT, with_column(STAFF, Column("department_id", INTEGER, FromSource("department_id"))))


async def load(pipeline: Pipeline, message: BatchRemodelled) -> Outcome:
    warehouse = PostgresWarehouse(pipeline.warehouse, pipeline.contract)
    deps = loading.Dependencies(pipeline.objects, warehouse, pipeline.contract, FakeQueue())
    return await loading.handle(message, deps)


async def remodel(pipeline: Pipeline, message: BatchIngested) -> tuple[Outcome, FakeQueue]:
    queue = FakeQueue("loading")
    deps = remodelling.Dependencies(pipeline.objects, queue, pipeline.contract, PROCESSED)
    return await remodelling.handle(message, deps), queue


async def test_an_older_loader_defers_star_rows_that_have_a_newer_column(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    (message,) = await pipeline.reading(NEWER_STAR).read()
    outcome = await load(pipeline, message)
    assert isinstance(outcome, Defer)
    assert outcome.delay == timedelta(seconds=60)
    assert "dim_staff" in outcome.reason
    assert "['department_id']" in outcome.reason
    assert await pipeline.select("SELECT count(*) FROM starlift.ledger") == [(0,)]
    await pipeline.reading(NEWER_STAR).load(message)
    assert (await pipeline.reading(NEWER_STAR).verify()).is_equal


async def test_an_older_remodeller_defers_extracts_that_have_a_newer_column(
    filled: asyncpg.Connection, pipeline: Pipeline
) -> None:
    await filled.execute("ALTER TABLE staff ADD COLUMN nickname text NOT NULL DEFAULT 'x'")
    staff = CONTRACT.source_table("staff")
    newer = replace(staff, columns=(*staff.columns, SourceColumn("nickname", TEXT)))
    tables = tuple(newer if table is staff else table for table in CONTRACT.source_tables)
    (message,) = await pipeline.reading(replace(CONTRACT, source_tables=tables)).ingest()
    outcome, queue = await remodel(pipeline, message)
    assert isinstance(outcome, Defer)
    assert "['nickname']" in outcome.reason
    assert not queue.sent


async def test_an_older_loader_still_loads_a_warehouse_migrated_for_a_newer_one(
    filled: asyncpg.Connection, pipeline: Pipeline, postgres_cluster: TestCluster, warehouse_database: str
) -> None:
    settings = LoadingSettings(
        region="eu-west-2",
        queue_url="http://127.0.0.1:9/loading",
        dead_letter_url="http://127.0.0.1:9/loading-dlq",
        landing_bucket="landing",
        processed_bucket="processed",
        slots=1,
        handler_limit=timedelta(minutes=1),
        contract=NEWER_STAR,
        warehouse_url=SecretStr(postgres_cluster.url(warehouse_database, LOADER)),
    )
    columns = (
        "SELECT is_nullable FROM information_schema.columns WHERE table_name = 'dim_staff' AND column_name = 'department_id'"
    )
    await pipeline.run()
    await migrate(settings)
    await migrate(settings)
    assert await pipeline.select(columns) == [("YES",)]
    await filled.execute("UPDATE staff SET first_name = 'Ada'")
    await pipeline.run(Mode.FULL)
    assert (await pipeline.verify()).is_equal
    newer = pipeline.reading(NEWER_STAR)
    await newer.run()
    assert (await newer.verify()).is_equal


async def test_a_table_that_the_contract_lacks_is_named(filled: asyncpg.Connection, pipeline: Pipeline) -> None:
    (message,) = await pipeline.ingest()
    extract = message.data.extracts[0].model_copy(update={"table": "invoice"})
    strange = message.model_copy(update={"data": message.data.model_copy(update={"extracts": (extract,)})})
    with pytest.raises(PermanentError, match=r"can't be remodelled: .*has no source table 'invoice'; deploy the contract"):
        await remodel(pipeline, strange)
    star = await pipeline.remodel(message)
    rows = star.data.tables[0].model_copy(update={"table": "fact_invoice"})
    unknown = star.model_copy(update={"data": star.data.model_copy(update={"tables": (rows,)})})
    with pytest.raises(PermanentError, match=r"can't be loaded: .*has no warehouse table 'fact_invoice'; deploy the contract"):
        await load(pipeline, unknown)
