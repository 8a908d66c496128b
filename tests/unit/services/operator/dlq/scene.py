"""Dead letters on fakes and the virtual clock, and the vocabulary of their tests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from contracts.dead_letters import Ended, Kind
from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import BatchIngested, Message, decode, encode
from services.operator.dlq.audit import Audited, Author, audit, removed
from services.operator.dlq.filters import Filter
from services.operator.dlq.operations import Task, carry_out, put_back
from services.operator.system import System
from shared.testing import EPOCH, FakeQueue, StoredMessage, loop_now
from tests.unit.services.operator.scene import LANDING, Scene, ingested

SERVICE = "remodelling"
ANN = Author("ann", "the column is back")
ALL = Filter()


def failure(**changed: Any) -> FailureRecord:
    """The failure record of a letter that failed long ago."""
    record = FailureRecord(
        reason=FailureReason.PERMANENT,
        error_type="SourceMismatchError",
        message="table 'staff' lacks column 'email'",
        fingerprint="0123456789abcdef",
        fingerprint_version=2,
        attempts=1,
        first_failed_at=EPOCH - timedelta(days=1),
        last_failed_at=EPOCH - timedelta(days=1),
        source_queue=f"starlift-{SERVICE}",
        service=SERVICE,
        version="1.2.3",
    )
    return record.model_copy(update=changed)


def put_dead(queue: FakeQueue, *bodies: str, record: FailureRecord | None = None) -> list[str]:
    """Put dead letters with these bodies; return their ids. Must be called on the loop."""
    attributes = {FAILURE_ATTRIBUTE: (record or failure()).model_dump_json()}
    return [queue.put(body, attributes=attributes).message_id for body in bodies]


class DeadScene(Scene):
    """The dead letters of one service, and what an operator does with them."""

    @property
    def system(self) -> System:
        return replace(super().system, clock=loop_now)

    @property
    def dead(self) -> FakeQueue:
        return self.dead_letters[SERVICE]

    @property
    def alive(self) -> FakeQueue:
        return self.queues[SERVICE]

    def add(self, count: int = 1, *, run: int = 1, **changed: Any) -> list[str]:
        """Add dead letters, each with a batch of its own; return their ids."""
        bodies = [encode(ingested(run, index)) for index in range(count)]
        return put_dead(self.dead, *bodies, record=failure(**changed))

    @property
    def replayed(self) -> Counter[str]:
        """How often each message was sent to the service, by its id."""
        return Counter(str(decode(message.body).id) for message in self.alive.sent)

    async def do(self, kind: Kind, chosen: Filter = ALL, service: str = SERVICE, **more: Any) -> Ended:
        """Carry out an operation; a replay runs fast unless it sets a rate."""
        return ended_of(await carry_out(self.system, service, Task(kind, chosen, **{"rate": 1000.0, **more}), ANN))

    async def replay(self, chosen: Filter = ALL, **more: Any) -> Ended:
        return await self.do(Kind.REPLAY, chosen, **more)

    async def discard(self, chosen: Filter = ALL, **more: Any) -> Ended:
        return await self.do(Kind.DISCARD, chosen, **more)

    async def restore(self, operation: str) -> Ended:
        return ended_of(await put_back(self.system, await removed(self.system, operation), ANN))

    async def latest(self) -> Audited:
        """The latest operation."""
        return (await audit(self.system))[-1]

    def keys(self, what: str) -> list[str]:
        """The objects of all operations."""
        return sorted(key for key in self.objects.buckets[LANDING] if key.startswith(f"dead-letters/{what}/"))

    def hidden(self) -> list[StoredMessage]:
        """Dead letters that cannot be received now."""
        return [one for one in self.dead.messages if one.visible_at > asyncio.get_running_loop().time()]

    @asynccontextmanager
    async def serving(self, work: Callable[[BatchIngested], None]) -> AsyncIterator[None]:
        """Run the service, which does `work` with each message."""

        async def serve() -> None:
            while True:
                for delivery in await self.alive.receive(10, wait=timedelta(seconds=20), visibility=timedelta(seconds=60)):
                    message = decode(delivery.body)
                    assert isinstance(message, BatchIngested)
                    work(message)
                    await self.alive.delete([delivery.receipt_handle])

        running = asyncio.create_task(serve())
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def die(self, message: Message, service: str = SERVICE) -> None:
        """Dead-letter a message as a service does: the failure record counts the replays that it arrived with."""
        came = [one for one in self.queues[service].sent if decode(one.body).id == message.id]
        records = [FailureRecord.model_validate_json(one.attributes[FAILURE_ATTRIBUTE]) for one in came]
        replays = records[-1].replays if records else 0
        put_dead(self.dead_letters[service], encode(message), record=failure(last_failed_at=loop_now(), replays=replays))


def ended_of(operation: Audited) -> Ended:
    assert operation.ended is not None
    return operation.ended


def ids_of(messages: Iterable[StoredMessage]) -> list[str]:
    return [message.message_id for message in messages]
