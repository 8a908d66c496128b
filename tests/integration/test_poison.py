"""Messages that can't be handled, among good ones: real handlers on LocalStack and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from random import Random
from uuid import uuid4

import asyncpg
import pytest

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Trigger, decode, encode
from contracts.objects import ObjectRef
from infra.local.localstack import LocalStack
from services.ingestion import handler as ingestion
from services.ingestion.postgres_source import PostgresSource
from services.ingestion.source import BatchLimits
from services.loading import handler as loading
from services.loading.postgres_warehouse import PostgresWarehouse
from services.operator.local.totesys.fill import fill
from services.operator.progress import not_in_ledger
from services.operator.proof.verify import verify
from services.operator.system import System
from services.remodelling import handler as remodelling
from shared.consumer import Consumer, Handler
from shared.envelope import opening
from shared.object_store import ObjectStore
from shared.outcome import Done
from shared.parquet import encode_parquet
from shared.queue import Delivery, Queue
from shared.service import Clients, open_clients
from shared.source_store import SourceStore
from shared.testing import FakeQueue, reference
from tests.fixtures.limits import HANG_S
from tests.fixtures.localstack import REGION
from tests.fixtures.pipeline import SOURCE, Pipeline, landed_frame
from tests.unit.shared.consumer.scene import RULES

pytestmark = pytest.mark.localstack
RULES_IN_A_HURRY = replace(
    RULES,
    attempts=2,
    slots=3,
    poll_wait=timedelta(seconds=1),
    defer_limit=timedelta(seconds=2),
    drain_budget=timedelta(seconds=5),
)


@dataclass(frozen=True)
class Place:
    """Buckets and queues of one test, and the databases."""

    clients: Clients
    bucket: str
    remodelling: Queue
    loading: Queue
    dead_letters: Queue
    pipeline: Pipeline

    @property
    def objects(self) -> ObjectStore:
        return self.clients.objects()

    @property
    def store(self) -> SourceStore:
        return SourceStore(self.objects, SOURCE, self.bucket, self.bucket)

    @property
    def system(self) -> System:
        system = self.pipeline.system
        settings = system.settings.model_copy(update={"landing_bucket": self.bucket, "processed_bucket": self.bucket})
        return replace(system, settings=settings, objects=self.objects)

    async def announced(self) -> list[BatchIngested]:
        """Make one run into the bucket; return its batches, not yet sent."""
        outlet = FakeQueue("outlet")
        deps = ingestion.Dependencies(
            PostgresSource(self.pipeline.source, self.pipeline.contract), self.store, outlet, BatchLimits(rows=100)
        )
        data = IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR)
        assert await ingestion.handle(IngestSource(**opening("tests"), data=data), deps) == Done()
        batches = [decode(text) for text in outlet.bodies]
        return [batch for batch in batches if isinstance(batch, BatchIngested)]

    @asynccontextmanager
    async def services(self) -> AsyncIterator[None]:
        """Run remodelling and loading."""
        contract = self.pipeline.contract
        remodel = partial(remodelling.handle, deps=remodelling.Dependencies(self.objects, self.loading, contract, self.bucket))
        warehouse = PostgresWarehouse(self.pipeline.warehouse, contract)
        load = partial(loading.handle, deps=loading.Dependencies(self.objects, warehouse, contract, FakeQueue()))
        consumers = [self._consumer(remodel, self.remodelling), self._consumer(load, self.loading)]
        async with asyncio.TaskGroup() as running:
            for consumer in consumers:
                running.create_task(consumer.run())
            yield
            for consumer in consumers:
                consumer.stop()

    def _consumer(self, handler: Handler, queue: Queue) -> Consumer:
        return Consumer(
            handler,
            RULES_IN_A_HURRY,
            queue=queue,
            dead_letters=self.dead_letters,
            probes={},
            rng=Random(1),  # noqa: S311
        )


@pytest.fixture
async def place(
    localstack: LocalStack, pipeline: Pipeline, source: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    await fill(source, orders=20, seed=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", localstack.endpoint_url)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    name = f"poison-{uuid4().hex[:12]}"
    async with open_clients(REGION) as clients:
        await clients.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})
        urls = [(await clients.control.create_queue(QueueName=f"{name}-{queue}"))["QueueUrl"] for queue in ("r", "l", "d")]
        remodel, load, dead = (clients.queue(url) for url in urls)
        yield Place(clients, name, remodel, load, dead, pipeline)
        for url in urls:
            await clients.control.delete_queue(QueueUrl=url)
        for key in await clients.objects().keys(name, ""):
            await clients.s3.delete_object(Bucket=name, Key=key)
        await clients.s3.delete_bucket(Bucket=name)


def with_object(batch: BatchIngested, ref: ObjectRef) -> str:
    """The batch under other ids, with its first extract pointing to another object."""
    first, *others = batch.data.extracts
    extracts = (first.model_copy(update={"object": ref}), *others)
    data = batch.data.model_copy(update={"extracts": extracts, "batch_id": uuid4()})
    return encode(batch.model_copy(update={"data": data, "id": uuid4()}))


async def poison_of(place: Place, batch: BatchIngested) -> dict[str, str]:
    """A message for each way in which one can be bad."""
    extract = batch.data.extracts[0]
    types = place.pipeline.contract.source_table(extract.table).extract_types
    frame = await landed_frame(place.objects, place.pipeline.contract, extract)
    fewer = dict(list(types.items())[:-1])
    bodies = {"narrow": encode_parquet(frame[list(fewer)], fewer), "nonsense": b"no Parquet"}
    for key, body in bodies.items():
        await place.objects.put(place.bucket, key, body)
    narrow, nonsense = (reference(place.bucket, key, body, row_count=1) for key, body in bodies.items())
    text = json.loads(encode(batch))
    return {
        "undecodable body": "hello",
        "unknown type": json.dumps({**text, "type": "starlift.batch_brewed.v1"}),
        "newer version": json.dumps({**text, "type": "starlift.batch_ingested.v99"}),
        "object gone": with_object(batch, extract.object.model_copy(update={"key": "nowhere"})),
        "hash differs": with_object(batch, extract.object.model_copy(update={"sha256": "0" * 64})),
        "contract violated": with_object(batch, narrow),
        "always raises": with_object(batch, nonsense),
    }


EXPLAINED = {  # how each ends: reason, attempts, and a part of what its failure record says
    "undecodable body": (FailureReason.UNDECODABLE, 1, "the body is not JSON; Starlift does not send such messages"),
    "unknown type": (FailureReason.UNDECODABLE, 1, "the type 'starlift.batch_brewed.v1' is not one of"),
    "newer version": (FailureReason.EXHAUSTED, 1, "is newer than version 5, which this build knows; deferred for longer than"),
    "object gone": (FailureReason.PERMANENT, 1, "/nowhere', which does not exist; restore it and replay"),
    "hash differs": (FailureReason.PERMANENT, 1, f"bytes with sha256 {'0' * 64}; restore it and replay"),
    "contract violated": (
        FailureReason.PERMANENT,
        1,
        "does not fit contract 'totesys': \"the file has no column ['",
    ),
    "always raises": (FailureReason.EXHAUSTED, 2, "unexpected "),
}


async def test_poison_is_dead_lettered_with_a_reason_while_good_batches_are_loaded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.consumer.executor.NEWER_MESSAGE_DELAY", timedelta(seconds=1))
    good = await place.announced()
    poison = await poison_of(place, good[0])
    bodies = [*poison.values(), *(encode(batch) for batch in good)]
    Random(1).shuffle(bodies)  # noqa: S311 - the same order each time
    for body in bodies:
        await place.remodelling.send(body)
    async with asyncio.timeout(HANG_S), place.services():
        letters = await received(place.dead_letters, len(poison))
        (manifest,) = await place.store.manifests_after(0)
        batches = [batch.data.batch_id for batch in manifest.batches]
        while await not_in_ledger(place.pipeline.system, batches):  # noqa: ASYNC110 (the ledger has no event for it)
            await asyncio.sleep(0.1)
    verdict = await verify(place.system)
    assert verdict.is_equal
    assert verdict.as_of_run == manifest.run
    for name, body in poison.items():
        record = FailureRecord.model_validate_json(letters[body].attributes[FAILURE_ATTRIBUTE])
        reason, attempts, explanation = EXPLAINED[name]
        assert (record.reason, record.attempts) == (reason, attempts), name
        assert explanation in record.message, name
        assert record.source_queue == place.remodelling.name
    for queue in (place.remodelling, place.loading, place.dead_letters):
        depth = await queue.depth()
        assert (depth.visible, depth.delayed) == (0, 0)


async def received(queue: Queue, count: int) -> dict[str, Delivery]:
    """The first `count` messages, by their bodies."""
    found: dict[str, Delivery] = {}
    while len(found) < count:
        deliveries = await queue.receive(10, wait=timedelta(seconds=1), visibility=timedelta(minutes=5))
        found |= {delivery.body: delivery for delivery in deliveries}
    return found
