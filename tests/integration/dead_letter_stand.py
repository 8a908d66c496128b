"""Queues and a bucket of its own on LocalStack for each operator that a test needs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from pydantic import SecretStr

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import Extract, Role, encode
from contracts.objects import ObjectRef
from infra.local.bootstrap import client, create_bucket
from infra.local.localstack import LocalStack
from services.operator.system import SERVICES, OperatorSettings, System
from shared.postgres import Database
from shared.queue import BATCH_MAXIMUM, Delivery, Outgoing, Queue
from shared.service import Clients
from tests.unit.services.operator.scene import BEGAN, ingested

SERVICE = "remodelling"
_NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"  # a replay without canaries asks no database
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Stand:
    """The surroundings of an operator; `aws` holds the AWS variables of its process."""

    values: dict[str, str]
    aws: dict[str, str]

    @property
    def settings(self) -> OperatorSettings:
        return OperatorSettings(**self.values)  # type: ignore[arg-type]


def stands_on(localstack: LocalStack, count: int) -> list[Stand]:
    """Stands with a bucket and queues of their own for one service; the other services' are shared. LocalStack forgets them."""
    name = f"dead-letters-{uuid4().hex[:8]}"
    endpoint, region = localstack.endpoint_url, localstack.region
    with closing(client("sqs", endpoint, region)) as sqs, closing(client("s3", endpoint, region)) as s3:

        def queues(prefix: str, service: str) -> dict[str, str]:
            return {
                f"{service}_queue_url": sqs.create_queue(QueueName=f"{prefix}-{service}")["QueueUrl"],
                f"{service}_dead_letter_url": sqs.create_queue(QueueName=f"{prefix}-{service}-dlq")["QueueUrl"],
            }

        others = {key: url for one in SERVICES if one != SERVICE for key, url in queues(name, one).items()}
        common = {"region": region, "source_url": _NOWHERE, "warehouse_url": _NOWHERE, **others}
        aws = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        stands = []
        for own in (f"{name}-{number}" for number in range(count)):
            create_bucket(s3, own, region)
            buckets = {"landing_bucket": own, "processed_bucket": own}
            stands.append(Stand({**common, **queues(own, SERVICE), **buckets}, aws))
        return stands


def system_of(stand: Stand, clients: Clients) -> System:
    """The system of `open_system`, on shared clients: creating them takes longer than most tests do."""
    settings = stand.settings
    nowhere = Database("warehouse", SecretStr(_NOWHERE), connections=1)
    return System(
        settings=settings,
        contract=settings.contract,
        queues={one: clients.queue(getattr(settings, f"{one}_queue_url")) for one in SERVICES},
        dead_letters={one: clients.queue(getattr(settings, f"{one}_dead_letter_url")) for one in SERVICES},
        objects=clients.objects(),
        source=nowhere,
        warehouse=nowhere,
    )


def letters(count: int, *, run: int, extracts: int = 0) -> list[Outgoing]:
    """Dead letters, each with its own batch of that many extracts."""
    record = FailureRecord(
        reason=FailureReason.PERMANENT,
        error_type="SourceMismatchError",
        message="table 'staff' lacks column 'email'",
        fingerprint="0123456789abcdef",
        fingerprint_version=2,
        attempts=1,
        first_failed_at=BEGAN,
        last_failed_at=BEGAN,
        source_queue=SERVICE,
        service=SERVICE,
        version="1.2.3",
    )
    attributes = {FAILURE_ATTRIBUTE: record.model_dump_json()}
    ref = ObjectRef(bucket="landing", key="k" * 100, byte_count=1, row_count=1, sha256="0" * 64)
    given = {"extracts": tuple(Extract(table=f"table_{one}", role=Role.BASE, object=ref) for one in range(extracts))}
    batches = (ingested(run, index) for index in range(count))
    return [
        Outgoing(encode(batch.model_copy(update={"data": batch.data.model_copy(update=given)})), attributes)
        for batch in batches
    ]


async def drained(queue: Queue) -> list[Delivery]:
    """Every visible message of a queue, which is removed from it."""
    found: list[Delivery] = []
    while some := await queue.receive(BATCH_MAXIMUM, wait=_SECOND, visibility=timedelta(minutes=10)):
        await queue.delete([one.receipt_handle for one in some])
        found += some
    return found
