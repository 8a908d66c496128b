"""A consumer on fakes and the virtual clock, and the vocabulary of its tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from uuid import uuid5

from contracts.failure import FAILURE_ATTRIBUTE, FailureRecord
from contracts.messages import IngestSource, IngestSourceData, Message, Trigger, encode
from contracts.objects import BATCH_NAMESPACE
from shared.consumer import Consumer, Handler, Probe, Rules
from shared.outcome import Done, Outcome
from shared.testing import EPOCH, FakeQueue, loop_now

RULES = Rules(
    service="remodelling",
    version="1.2.3",
    slots=2,
    attempts=5,
    handler_limit=timedelta(hours=1),
    visibility_timeout=timedelta(seconds=60),
    poll_wait=timedelta(seconds=20),
    drain_budget=timedelta(seconds=80),
    defer_limit=timedelta(days=1),
)
A_WEEK = timedelta(days=7)


def message(number: int = 1) -> IngestSource:
    return IngestSource(
        id=uuid5(BATCH_NAMESPACE, str(number)),
        source="tests",
        time=EPOCH,
        traceparent=f"00-{'1' * 32}-{'2' * 16}-01",
        data=IngestSourceData(source_name="totesys", trigger=Trigger.OPERATOR),
    )


def body(number: int = 1) -> str:
    return encode(message(number))


@dataclass
class Script:
    """A scripted handler: raises or returns the next of `steps`, then always succeeds. `calls` are loop times."""

    steps: list[Outcome | Exception] = field(default_factory=list)
    takes: timedelta = timedelta(0)
    calls: list[float] = field(default_factory=list)
    cancelled: int = 0

    async def __call__(self, _message: Message) -> Outcome:
        self.calls.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.takes.total_seconds())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        step = self.steps.pop(0) if self.steps else Done()
        if isinstance(step, Exception):
            raise step
        return step


@dataclass
class Scene:
    """`queue` moves a message to `dead_letters` by itself only after ten receipts, as the real one does."""

    dead_letters: FakeQueue = field(default_factory=lambda: FakeQueue("remodelling-dlq"))
    queue: FakeQueue = field(init=False)
    rules: Rules = RULES
    probes: Mapping[str, Probe] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = FakeQueue("remodelling", dead_letters=self.dead_letters, max_receive_count=10)

    def consumer(self, handler: Handler, **rules: object) -> Consumer:
        return Consumer(
            handler,
            replace(self.rules, **rules),  # type: ignore[arg-type]
            queue=self.queue,
            dead_letters=self.dead_letters,
            probes=self.probes,
            rng=Random(1),  # noqa: S311 - the same delays each time
            now=loop_now,
        )

    @asynccontextmanager
    async def consuming(self, handler: Handler, **rules: object) -> AsyncIterator[Consumer]:
        """Run the consumer; at the end, stop it and wait for it."""
        consumer = self.consumer(handler, **rules)
        running = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            consumer.stop()
            await running

    async def consume_until(self, handler: Handler, condition: Callable[[], bool], **rules: object) -> None:
        """Consume until the condition holds."""
        async with self.consuming(handler, **rules):
            await until(condition)

    async def consume_all(self, handler: Handler, **rules: object) -> None:
        """Consume until the queue is empty."""
        await self.consume_until(handler, lambda: not self.queue.messages, **rules)

    async def show_again(self) -> None:
        """Make the first message visible behind the consumer's back."""
        await self.queue.set_visibility({self.queue.messages[0].receipt: timedelta(0)})

    def failure(self, index: int = 0) -> FailureRecord:
        """The failure record of a dead letter."""
        return FailureRecord.model_validate_json(self.dead_letters.messages[index].attributes[FAILURE_ATTRIBUTE])


async def until(condition: Callable[[], bool], within: timedelta = A_WEEK, turn_s: float = 0.25) -> None:
    """Wait, on the loop's clock, until the condition holds; check less and less often."""
    started_at = now()
    async with asyncio.timeout(within.total_seconds()):
        while not condition():  # noqa: ASYNC110 - any condition, and the clock is virtual
            await asyncio.sleep(max(turn_s, (now() - started_at) / 1000))


def now() -> float:
    return asyncio.get_running_loop().time()
