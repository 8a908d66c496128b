"""Passwords that are changed while the services run, and secrets that follow later."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from random import Random
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from aiobotocore.session import get_session
from pydantic import SecretStr
from structlog.testing import capture_logs

from contracts.messages import IngestSource, IngestSourceData, Trigger, encode
from infra.local.databases import LOADER, READER
from services.ingestion import handler as ingestion
from services.ingestion.postgres_source import PostgresSource
from services.loading import handler as loading
from services.loading.postgres_warehouse import PostgresWarehouse
from services.remodelling import handler as remodelling
from shared.consumer import Consumer, Handler, Probe
from shared.database_url import database_url
from shared.envelope import opening
from shared.errors import LoginRefusedError
from shared.postgres import Database
from shared.service import open_clients
from shared.testing import FakeQueue
from tests.fixtures.limits import HANG_S
from tests.fixtures.localstack import REGION
from tests.fixtures.pipeline import PROCESSED, SOURCE, Pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.small_contract import SCHEMA, SHOP
from tests.unit.shared.consumer.scene import RULES

AWKWARD = "p#@/%:?[ "  # what a generated password may contain


@dataclass
class Login:
    """A role of one database with a secret of its own, as a managed database keeps it: the login and nothing else."""

    admin: asyncpg.Connection
    role: str
    place: SecretStr  # the database's URL without a login

    async def change(self, password: str) -> None:
        """Change the password and end every session, as a failover after the change does."""
        await self.admin.execute(f"ALTER ROLE {self.role} PASSWORD '{password}'")
        await self.admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", self.role)

    async def store(self, password: str) -> None:
        """Store the password in the secret."""
        await self.store_text(json.dumps({"username": self.role, "password": password}))

    async def store_text(self, text: str) -> None:
        """Store any text in the secret."""
        async with get_session().create_client("secretsmanager", region_name=REGION) as secrets:
            await secrets.put_secret_value(SecretId=self.role, SecretString=text)

    async def open(self, name: str) -> Database:
        """The database as a service opens it."""
        read = partial(database_url, name, url=self.place, secret_id=self.role, region=REGION)
        return Database(name, await read(), connections=2, reread=read)


@asynccontextmanager
async def login_of(url: str, member_of: str) -> AsyncIterator[Login]:
    """A role of the database at the superuser's `url`."""
    parts = urlsplit(url)
    admin = await asyncpg.connect(url)
    login = Login(
        admin, f"rotated_{uuid4().hex[:12]}", SecretStr(f"postgresql://127.0.0.1:{parts.port}{parts.path}?sslmode=disable")
    )
    await admin.execute(f"CREATE ROLE {login.role} LOGIN PASSWORD 'first' IN ROLE {member_of}")
    async with get_session().create_client("secretsmanager", region_name=REGION) as secrets:
        await secrets.create_secret(Name=login.role, SecretString="{}")
    await login.store("first")
    try:
        yield login
    finally:
        await admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", login.role)
        await admin.execute(f"REASSIGN OWNED BY {login.role} TO {member_of}; DROP OWNED BY {login.role}")
        await admin.execute(f"DROP ROLE {login.role}")
        await admin.close()


@pytest.fixture
def secrets_manager(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)


@pytest.fixture
async def logins(
    secrets_manager: None, postgres_cluster: TestCluster, source_database: str, warehouse_database: str
) -> AsyncIterator[tuple[Login, Login]]:
    """Those of the source and of the warehouse."""
    async with (
        login_of(postgres_cluster.url(source_database), READER) as reader,
        login_of(postgres_cluster.url(warehouse_database), LOADER) as loader,
    ):
        yield reader, loader


@asynccontextmanager
async def services(pipeline: Pipeline) -> AsyncIterator[tuple[FakeQueue, ...]]:
    """The three services on queues in memory, which are yielded in the order of the services, with the dead-letter queue."""
    queues, dead = [FakeQueue(name) for name in ("ingestion", "remodelling", "loading")], FakeQueue("dead")
    reading = ingestion.Dependencies(PostgresSource(pipeline.source, SHOP), pipeline.store, queues[1], pipeline.limits)
    shaping = remodelling.Dependencies(pipeline.objects, queues[2], SHOP, PROCESSED)
    writing = loading.Dependencies(pipeline.objects, PostgresWarehouse(pipeline.warehouse, SHOP), SHOP, queues[0])
    handlers: list[tuple[Handler, Mapping[str, Probe]]] = [
        (partial(ingestion.handle, deps=reading), {"source": pipeline.source.probe}),
        (partial(remodelling.handle, deps=shaping), {}),
        (partial(loading.handle, deps=writing), {"warehouse": pipeline.warehouse.probe}),
    ]
    rules = replace(RULES, poll_wait=timedelta(seconds=1))
    consumers = [
        Consumer(handler, rules, queue=queue, dead_letters=dead, probes=probes, rng=Random(1))  # noqa: S311 (the same each time)
        for queue, (handler, probes) in zip(queues, handlers, strict=True)
    ]
    async with asyncio.TaskGroup() as group:
        for consumer in consumers:
            group.create_task(consumer.run())
        try:
            yield *queues, dead
        finally:
            for consumer in consumers:
                consumer.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 (any condition)
            await asyncio.sleep(0.05)


async def test_rotated_passwords_cost_time_and_no_attempt(
    logins: tuple[Login, Login], postgres_cluster: TestCluster, source_database: str, owner: asyncpg.Connection
) -> None:
    reader, loader = logins
    await owner.execute(SCHEMA)
    await owner.execute("INSERT INTO maker SELECT n, 'maker ' || n FROM generate_series(1, 50) AS n")
    pipeline = replace(Pipeline(await reader.open("source"), await loader.open("warehouse")), contract=SHOP)
    command = encode(IngestSource(**opening("tests"), data=IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR)))
    with capture_logs() as logs:

        def refused(name: str) -> bool:
            return any(entry["event"] == "dependency_down" and entry["dependency"] == name for entry in logs)

        async with services(pipeline) as (commands, batches, rows, dead):
            await commands.send(command)
            await until(lambda: len(rows.sent) == 1 and not rows.messages)
            await owner.execute("UPDATE maker SET maker_name = maker_name || ' & Sons'")
            for login in logins:
                await login.change(AWKWARD)
            await commands.send(command)
            await until(lambda: refused("source"))
            await reader.store_text('{"username": "half a sec')  # a person who edits it makes a mistake
            await reader.store(AWKWARD)
            await until(lambda: refused("warehouse"))
            await loader.store(AWKWARD)
            await until(lambda: len(rows.sent) == 2 and not rows.messages)
            assert (await pipeline.verify()).is_equal
        assert dead.sent == []
        assert {message.receive_count for queue in (commands, batches, rows) for message in queue.sent} == {1}
    for database in (pipeline.source, pipeline.warehouse):
        await database.aclose()


async def test_an_unreadable_secret_is_an_outage_while_the_password_is_refused(logins: tuple[Login, Login]) -> None:
    reader, _ = logins
    database = await reader.open("source")
    await reader.change("second")
    for text in ('{"username": "half a sec', "postgresql://no-user-here/shop"):
        await reader.store_text(text)
        with pytest.raises(LoginRefusedError, match=r"refuses the login, and its secret can't be read again: .*source"):
            await database.probe()
    await reader.store("second")
    await database.probe()
    await database.aclose()


@pytest.mark.parametrize(("service", "name"), [("ingestion", "source"), ("loading", "warehouse")])
async def test_a_service_with_a_wrong_password_ends_with_one_sentence(
    secrets_manager: None, postgres_cluster: TestCluster, service: str, name: str
) -> None:
    async with open_clients(REGION) as clients:
        queues = [
            (await clients.control.create_queue(QueueName=f"{service}-{end}"))["QueueUrl"] for end in ("in", "dead", "out")
        ]
        for bucket in (f"{service}-landing", f"{service}-processed"):
            await clients.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
    environment = dict(zip(("QUEUE_URL", "DEAD_LETTER_URL", "NEXT_QUEUE_URL"), queues, strict=True)) | {
        "REGION": REGION,
        "LANDING_BUCKET": f"{service}-landing",
        "PROCESSED_BUCKET": f"{service}-processed",
        "SLOTS": "1",
        "HANDLER_LIMIT_S": "60",
        f"{name.upper()}_URL": postgres_cluster.url().replace(postgres_cluster.password("postgres"), "wrong"),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"services.{service}"),
        env=os.environ | {f"STARLIFT_{key}": value for key, value in environment.items()},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(HANG_S):
        output, _ = await process.communicate()
    last = json.loads(output.splitlines()[-1])
    assert (process.returncode, last["event"]) == (1, "service_failed")
    assert last["error"].startswith(f"the {name} database refuses the user or the password; correct its URL or secret")
