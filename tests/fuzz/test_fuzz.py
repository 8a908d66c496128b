"""A short round of each kind; `make fuzz` plays for minutes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from infra.local.databases import LOADER, READER, SOURCE_OWNER
from infra.local.localstack import LocalStack
from tests.fixtures.postgres_cluster import TestCluster
from tests.fuzz.__main__ import aws, fuzz

pytestmark = pytest.mark.localstack


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's advice; our own messages have 2 KiB
async def test_garbage_is_dead_lettered_and_damage_repaired_while_good_runs_load(
    localstack: LocalStack,
    postgres_cluster: TestCluster,
    source_database: str,
    warehouse_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in aws(localstack.endpoint_url).items():
        monkeypatch.setenv(name, value)
    source = [postgres_cluster.url(source_database, role) for role in (READER, SOURCE_OWNER)]
    warehouse = postgres_cluster.url(warehouse_database, LOADER)
    happened = await fuzz(source[0], warehouse, source[1], seed=1, lasting=timedelta(0))
    assert happened["messages"] > 0
    assert happened["documents, read and healed"] > 0
