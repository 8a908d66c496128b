"""Dead letters among fakes, on the virtual clock, and the words that their tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord
from contracts.messages import BatchIngested, Message, decode, encode
from services.operator.dlq import actions, choosing, hold, journal, lock
from services.operator.dlq.actions import Replay
from services.operator.dlq.filters import Filter
from services.operator.dlq.journal import Journal
from services.operator.dlq.operation import Author, Ended, Operation
from shared.testing import EPOCH, FakeQueue, StoredMessage, loop_now
from tests.unit.services.operator.scene import LANDING, Scene, ingested

SERVICE = "remodelling"
ANN = Author("ann", "the column is back")
FAST = Replay(rate=1000.0)
ALL = Filter()


def on_loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock of everything here goes with the loop's."""

    def clock() -> datetime:
        try:
            return loop_now()
        except RuntimeError:  # asked between two runs of the loop
            return EPOCH

    for module in (actions, choosing, hold, journal, lock):
        monkeypatch.setattr(module, "now", clock)


def failure(**changed: Any) -> FailureRecord:
    """Why a letter died, long ago."""
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


def bury(queue: FakeQueue, *bodies: str, record: FailureRecord | None = None) -> list[str]:
    """Dead letters with these bodies; their ids. Must be called on the loop."""
    attributes = {FAILURE_ATTRIBUTE: (record or failure()).model_dump_json()}
    return [queue.put(body, attributes=attributes).message_id for body in bodies]


class Graves(Scene):
    """The dead letters of one service, and what an operator does with them."""

    @property
    def dead(self) -> FakeQueue:
        return self.dead_letters[SERVICE]

    @property
    def alive(self) -> FakeQueue:
        return self.queues[SERVICE]

    def bury(self, count: int = 1, *, run: int = 1, **changed: Any) -> list[str]:
        """Dead letters, each with a batch of its own; their ids."""
        bodies = [encode(ingested(run, index)) for index in range(count)]
        return bury(self.dead, *bodies, record=failure(**changed))

    @property
    def replayed(self) -> list[str]:
        """The ids of the messages that were sent to the service, in order."""
        return [str(decode(message.body).id) for message in self.alive.sent]

    async def replay(self, chosen: Filter = ALL, how: Replay = FAST, limit: int | None = None) -> Ended:
        return await actions.do(self.system, actions.replay_operation(SERVICE, chosen, ANN, how, limit))

    async def discard(self, chosen: Filter = ALL, limit: int | None = None) -> Ended:
        return await actions.do(self.system, actions.discard_operation(SERVICE, chosen, ANN, limit))

    async def resume(self) -> Ended:
        (operation,) = await actions.interrupted(self.system)
        return await actions.resume(self.system, operation, ANN)

    async def operation(self) -> Operation:
        """The latest."""
        return (await actions.audit(self.system))[-1][0]

    async def journal(self) -> Journal:
        """Of the latest operation."""
        return await actions.journal_of(self.system, await self.operation())

    async def steps(self) -> dict[str, str]:
        """The last step of each letter in the latest operation."""
        return {one: str(line.step) for one, line in (await self.journal()).lines.items()}

    async def details(self) -> set[str]:
        """Of those steps."""
        return {line.detail for line in (await self.journal()).lines.values()}

    def keys(self, what: str) -> list[str]:
        """The objects of all operations."""
        return sorted(key for key in self.objects.buckets[LANDING] if key.startswith(f"dead-letters/{what}/"))

    def hidden(self) -> list[StoredMessage]:
        """Dead letters that nobody sees now."""
        return [one for one in self.dead.messages if one.visible_at > asyncio.get_running_loop().time()]

    @asynccontextmanager
    async def serving(self, work: Callable[[BatchIngested], None]) -> AsyncIterator[None]:
        """The service, which does `work` with each message."""

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
        """What a service does that can't work on a message: its failure record counts the replays that it came with."""
        came = [one for one in self.queues[service].sent if decode(one.body).id == message.id]
        records = [FailureRecord.model_validate_json(one.attributes[FAILURE_ATTRIBUTE]) for one in came]
        replays = records[-1].replays if records else 0
        bury(self.dead_letters[service], encode(message), record=failure(last_failed_at=loop_now(), replays=replays))


def ids_of(messages: Iterable[StoredMessage]) -> list[str]:
    return [message.message_id for message in messages]
