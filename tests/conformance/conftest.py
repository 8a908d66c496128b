"""The same suite for the fake, moto and LocalStack: code may rely on what holds for all of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from contracts.contract import Contract
from infra.local.databases import LOADER, READER, SOURCE_OWNER
from services.ingestion.memory_source import MemorySource
from services.ingestion.postgres_source import PostgresSource
from services.loading.memory_warehouse import MemoryWarehouse
from services.loading.postgres_warehouse import PostgresWarehouse
from services.loading.staging import FEW_ROWS
from shared.object_store import ObjectStore
from shared.postgres import Database
from shared.queue import Queue
from shared.service import Clients, open_clients
from shared.testing import FakeObjectStore, FakeQueue
from tests.fixtures.applications import CONTRACT, DDL, InMemory, InPostgres, Scene
from tests.fixtures.localstack import REGION
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.shop_warehouse import Shop
from tests.fixtures.small_contract import SHOP

MAX_RECEIVE_COUNT = 3


@dataclass(frozen=True)
class Queues:
    """A queue that dead-letters messages after three receipts, its dead-letter queue, and one that does not exist."""

    queue: Queue
    dead_letters: Queue
    absent: Queue | None


@dataclass(frozen=True)
class Objects:
    """A store with one bucket."""

    store: ObjectStore
    bucket: str
    clients: Clients | None = None  # None: the fake, which always keeps versions

    async def keep_versions(self) -> None:
        if self.clients is not None:
            status: Any = {"Status": "Enabled"}
            await self.clients.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration=status)

    async def tags(self, key: str) -> dict[str, str]:
        if self.clients is None:
            assert isinstance(self.store, FakeObjectStore)
            return self.store.tags.get((self.bucket, key), {})
        answer = await self.clients.s3.get_object_tagging(Bucket=self.bucket, Key=key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    async def delete(self, key: str, version_id: str | None = None) -> None:
        if self.clients is None:
            assert isinstance(self.store, FakeObjectStore)
            self.store.delete(self.bucket, key, version_id)
        else:
            version: Any = {} if version_id is None else {"VersionId": version_id}
            await self.clients.s3.delete_object(Bucket=self.bucket, Key=key, **version)


@pytest.fixture(params=["fake", "moto", pytest.param("localstack", marks=pytest.mark.localstack)])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def clients(
    implementation: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Clients | None]:
    """None stands for the fakes."""
    if implementation == "fake":
        yield None
        return
    if implementation == "moto":
        endpoint = request.getfixturevalue("moto_endpoint")
        with urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")):  # noqa: S310, ASYNC210 - a server of our own
            pass
    else:
        endpoint = request.getfixturevalue("localstack").endpoint_url
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    async with open_clients(REGION) as opened:
        yield opened


@pytest.fixture
async def queues(clients: Clients | None) -> AsyncIterator[Queues]:
    if clients is None:
        dead = FakeQueue("dead")
        yield Queues(FakeQueue("alive", dead_letters=dead, max_receive_count=MAX_RECEIVE_COUNT), dead, None)
        return
    sqs = clients.control
    name = f"conformance-{uuid4().hex[:12]}"
    dead_url = (await sqs.create_queue(QueueName=f"{name}-dlq"))["QueueUrl"]
    arn = (await sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVE_COUNT})
    url = (await sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": redrive}))["QueueUrl"]
    yield Queues(clients.queue(url), clients.queue(dead_url), clients.queue(f"{url}-absent"))
    await sqs.delete_queue(QueueUrl=url)
    await sqs.delete_queue(QueueUrl=dead_url)


@pytest.fixture
async def objects(clients: Clients | None, implementation: str) -> AsyncIterator[Objects]:
    if clients is None:
        yield Objects(FakeObjectStore("landing"), "landing")
        return
    bucket = f"conformance-{uuid4().hex[:12]}"
    await clients.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    store = clients.objects()
    yield Objects(store, bucket, clients)
    if implementation == "moto":
        return  # reset before each test
    listed = await clients.s3.list_object_versions(Bucket=bucket)
    while entries := [*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())]:
        for one in entries:
            await clients.s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])
        listed = await clients.s3.list_object_versions(Bucket=bucket)
    await clients.s3.delete_bucket(Bucket=bucket)


@pytest.fixture
def star() -> Contract:
    """What the warehouse holds; a test may parametrize it."""
    return SHOP


@pytest.fixture(params=["fake", "postgres", "postgres with temporary tables"])
async def shop(request: pytest.FixtureRequest, star: Contract) -> AsyncIterator[Shop]:
    if request.param == "fake":
        yield Shop(MemoryWarehouse(star), None)
        return
    cluster: TestCluster = request.getfixturevalue("postgres_cluster")
    url = cluster.url(request.getfixturevalue("warehouse_database"), LOADER)
    async with aclosing(Database("warehouse", SecretStr(url), connections=6)) as database:
        few_rows = FEW_ROWS if request.param == "postgres" else 0
        yield Shop(PostgresWarehouse(database, star, few_rows=few_rows), database)


@pytest.fixture(params=["fake", "postgres"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    if request.param == "fake":
        memory = MemorySource(CONTRACT)
        yield Scene(memory, InMemory(memory))
        return
    cluster: TestCluster = request.getfixturevalue("postgres_cluster")
    name: str = request.getfixturevalue("source_database")
    owner = await asyncpg.connect(cluster.url(name, SOURCE_OWNER))
    await owner.execute(DDL)
    await owner.close()
    database = Database("source", SecretStr(cluster.url(name, READER)), connections=2)
    yield Scene(PostgresSource(database, CONTRACT), InPostgres(cluster.url(name, SOURCE_OWNER)))
    await database.aclose()
