"""The three real services on LocalStack and PostgreSQL, with queues and buckets of their own, and the `starlift` command."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from uuid import uuid4

from services.ingestion import handler as ingestion
from services.ingestion.postgres_source import PostgresSource
from services.loading import handler as loading
from services.loading.postgres_warehouse import PostgresWarehouse
from services.operator.system import SERVICES, OperatorSettings, System, open_system
from services.remodelling import handler as remodelling
from shared.consumer import Consumer, Handler, Rules
from shared.queue import Delivery
from shared.service import Clients, World, aws_probes, open_clients
from tests.fixtures.command import Answer, run_starlift
from tests.fixtures.localstack import REGION
from tests.fixtures.totesys import CONTRACT

_RULES = Rules(
    service="fuzz",
    version="0",
    slots=3,
    attempts=1,
    handler_limit=timedelta(minutes=5),
    visibility_timeout=timedelta(seconds=60),
    poll_wait=timedelta(seconds=1),
    drain_budget=timedelta(seconds=5),
    defer_limit=timedelta(0),
)


class Hasty(Random):
    """Always draws the shortest delay, so that waits of minutes on AWS take moments here."""

    def random(self) -> float:
        """Nearly nothing."""
        return super().random() / 100


@dataclass
class Stand:
    """The system that a fuzzer works on."""

    system: System
    clients: Clients
    urls: Mapping[str, str]  # of the queues, by service
    environment: Mapping[str, str]
    running: list[asyncio.Task[None]] = field(default_factory=list)
    commands: Counter[str] = field(default_factory=Counter)

    async def starlift(self, *words: str) -> Answer:
        """Run a command. Raises: AssertionError for a traceback, an unexpected error, or a service that has ended."""
        answer = await asyncio.to_thread(partial(run_starlift, *words, environment=self.environment))
        self.commands[words[0]] += 1
        assert "this is a bug" not in answer.err, answer
        self.require_alive()
        return answer

    def require_alive(self) -> None:
        """Raises: what ended a service."""
        for task in self.running:
            assert not task.done(), task

    async def until_idle(self) -> None:
        """Wait until no queue of a service has a message."""
        while True:
            self.require_alive()
            depths = await asyncio.gather(*(queue.depth() for queue in self.system.queues.values()))
            if not any(depth.visible + depth.in_flight + depth.delayed for depth in depths):
                return
            await asyncio.sleep(0.1)

    async def dead_letters(self) -> list[Delivery]:
        """Take every dead letter out of its queue."""
        found: list[Delivery] = []
        for queue in self.system.dead_letters.values():
            while taken := await queue.receive(10, wait=timedelta(seconds=1), visibility=timedelta(minutes=1)):
                await queue.delete([delivery.receipt_handle for delivery in taken])
                found += taken
        return found

    def handlers(self) -> dict[str, Handler]:
        """What each service does with a message."""
        system = self.system
        read = ingestion.Dependencies(PostgresSource(system.database, CONTRACT), system.store, system.queues["remodelling"])
        remodel = remodelling.Dependencies(system.objects, system.queues["loading"], CONTRACT, system.store.processed_bucket)
        load = loading.Dependencies(
            system.objects, PostgresWarehouse(system.warehouse, CONTRACT), CONTRACT, system.queues["ingestion"]
        )
        return {
            "ingestion": partial(ingestion.handle, deps=read),
            "remodelling": partial(remodelling.handle, deps=remodel),
            "loading": partial(loading.handle, deps=load),
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Run the services."""
        system = self.system
        probes = {"source": system.database.probe, "warehouse": system.warehouse.probe}
        consumers = []
        for name, handler in self.handlers().items():
            world = World(system.queues[name], system.dead_letters[name], None, system.objects)
            of_aws = aws_probes(world, [system.settings.landing_bucket, system.settings.processed_bucket])
            consumers.append(
                Consumer(
                    handler,
                    _RULES,
                    queue=world.queue,
                    dead_letters=world.dead_letters,
                    probes={**of_aws, **probes},
                    rng=Hasty(1),
                )
            )
        self.running = [asyncio.create_task(consumer.run()) for consumer in consumers]
        try:
            yield
            self.require_alive()
        finally:
            for consumer in consumers:
                consumer.stop()
            await asyncio.gather(*self.running)


@asynccontextmanager
async def open_stand(source_url: str, warehouse_url: str) -> AsyncIterator[Stand]:
    """Queues and buckets of its own on the LocalStack that the environment names; they are removed at the end."""
    name = f"fuzz-{uuid4().hex[:12]}"
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(open_clients(REGION))
        variables = {"REGION": REGION, "SOURCE_URL": source_url, "WAREHOUSE_URL": warehouse_url}
        for service in SERVICES:
            for suffix, variable in (("dlq", "DEAD_LETTER_URL"), ("", "QUEUE_URL")):
                answer = await clients.control.create_queue(QueueName=f"{name}-{service}{suffix}")
                variables[f"{service.upper()}_{variable}"] = answer["QueueUrl"]
                stack.push_async_callback(clients.control.delete_queue, QueueUrl=answer["QueueUrl"])
        for kind in ("landing", "processed"):
            bucket = variables[f"{kind.upper()}_BUCKET"] = f"{name}-{kind}"
            await clients.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})  # type: ignore[typeddict-item]
            stack.push_async_callback(_remove_bucket, clients, bucket)
        environment = {f"STARLIFT_{variable}": value for variable, value in variables.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STARLIFT_", "PG"))}
        settings = OperatorSettings(**{variable.lower(): value for variable, value in variables.items()})  # type: ignore[arg-type]
        system = await stack.enter_async_context(open_system(settings))
        urls = {service: variables[f"{service.upper()}_QUEUE_URL"] for service in SERVICES}
        yield Stand(system, clients, urls, {**kept, **environment})


async def _remove_bucket(clients: Clients, bucket: str) -> None:
    for key in await clients.objects().keys(bucket, ""):
        await clients.s3.delete_object(Bucket=bucket, Key=key)
    await clients.s3.delete_bucket(Bucket=bucket)
