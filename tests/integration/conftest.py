"""A simulated source for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.operator.local.totesys.fill import connect, create
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster


@pytest.fixture
def source_url(postgres_cluster: TestCluster, source_database: str) -> str:
    """The URL of the source for the application, which owns its tables."""
    return postgres_cluster.url(source_database, SOURCE_OWNER)


@pytest.fixture
async def source(source_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of the application in a totesys without rows."""
    connection = await connect(source_url)
    await create(connection)
    yield connection
    await connection.close()


@pytest.fixture
async def pipeline(postgres_cluster: TestCluster, source_database: str, warehouse_database: str) -> AsyncIterator[Pipeline]:
    """Reads as a role that may do nothing but SELECT, and writes as the warehouse's owner."""
    source, warehouse = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(source, warehouse) as opened:
        yield opened


@pytest.fixture
async def owner(postgres_cluster: TestCluster, source_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's session."""
    connection = await asyncpg.connect(postgres_cluster.url(source_database, SOURCE_OWNER))
    yield connection
    await connection.close()


@pytest.fixture
async def empty(postgres_cluster: TestCluster, source_database: str, warehouse_database: str) -> AsyncIterator[Pipeline]:
    """A pipeline that each test gives its contract."""
    urls = postgres_cluster.url(source_database, READER), postgres_cluster.url(warehouse_database, LOADER)
    async with open_pipeline(*urls) as pipeline:
        yield pipeline
