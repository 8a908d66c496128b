"""Databases of totesys and its warehouse for each test that needs them; the mark `begins_with` says what they contain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import asyncpg
import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.operator.local.totesys.fill import connect, create
from tests.fixtures.beginnings import Beginning, Beginnings
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster


@pytest.fixture(scope="session")
def beginnings(postgres_cluster: TestCluster) -> Beginnings:
    return Beginnings(postgres_cluster)


@pytest.fixture
def beginning(request: pytest.FixtureRequest, beginnings: Beginnings) -> Beginning | None:
    """What the test's databases are copies of; None if they are empty."""
    mark = request.node.get_closest_marker("begins_with")
    return beginnings.of(mark.args[0]) if mark else None


@pytest.fixture
def source_database(postgres_cluster: TestCluster, beginning: Beginning | None) -> Iterator[str]:
    """The name of a totesys database that starlift_reader may read."""
    name = postgres_cluster.create_database(template=beginning.source if beginning else None)
    yield name
    postgres_cluster.drop_database(name)


@pytest.fixture
def warehouse_database(postgres_cluster: TestCluster, beginning: Beginning | None) -> Iterator[str]:
    """The name of a database owned by starlift_loader."""
    name = postgres_cluster.create_warehouse(template=beginning.warehouse if beginning else None)
    yield name
    postgres_cluster.drop_database(name)


@pytest.fixture
def warehouse_url(postgres_cluster: TestCluster, warehouse_database: str) -> str:
    """The URL of the warehouse for the loader, which owns it."""
    return postgres_cluster.url(warehouse_database, LOADER)


@pytest.fixture
def source_url(postgres_cluster: TestCluster, source_database: str) -> str:
    """The URL of the source for the application, which owns its tables."""
    return postgres_cluster.url(source_database, SOURCE_OWNER)


@pytest.fixture
async def source(source_url: str, beginning: Beginning | None) -> AsyncIterator[asyncpg.Connection]:
    """The application's session in a totesys database, which has no rows unless the test begins with some."""
    connection = await connect(source_url)
    if beginning is None:
        await create(connection)
    yield connection
    await connection.close()


@pytest.fixture
async def pipeline(
    postgres_cluster: TestCluster, source_database: str, warehouse_database: str, beginning: Beginning | None
) -> AsyncIterator[Pipeline]:
    """A pipeline that reads as a role with only SELECT, and writes as the warehouse's owner."""
    source, warehouse = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(source, warehouse) as opened:
        if beginning is None:
            yield opened
            return
        async with opened.source.connection() as connection:
            oid = await connection.fetchval("SELECT oid FROM pg_database WHERE datname = current_database()")
        yield replace(opened, objects=beginning.objects_for(oid))


@pytest.fixture
async def loaded(pipeline: Pipeline) -> Pipeline:
    """The pipeline of a test that begins with something loaded."""
    return pipeline


@pytest.fixture
async def filled(source: asyncpg.Connection) -> asyncpg.Connection:
    """The application of a test that begins with something filled."""
    return source


@pytest.fixture
async def owner(postgres_cluster: TestCluster, source_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's session."""
    connection = await asyncpg.connect(postgres_cluster.url(source_database, SOURCE_OWNER))
    yield connection
    await connection.close()


@pytest.fixture
async def empty(postgres_cluster: TestCluster, source_database: str, warehouse_database: str) -> AsyncIterator[Pipeline]:
    """A pipeline without a contract, which each test sets."""
    urls = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls) as pipeline:
        yield pipeline
