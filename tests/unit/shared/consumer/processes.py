"""Consumers as processes that may be killed, each behind a connection that watches what it asks of the queue."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from random import Random

import structlog

from contracts.messages import Message
from shared.consumer import Consumer, Rules
from shared.consumer.attempt import read_attempt
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.outcome import Done, Outcome
from shared.queue import NO_ATTRIBUTES, Delivery, Depth, Failures, Outgoing
from shared.testing import FakeQueue, StoredMessage, loop_now
from tests.unit.shared.consumer.scene import RULES, body, now

UNANSWERED = (TransientError, DependencyDownError, asyncio.CancelledError)
LEASE_S = RULES.visibility_timeout.total_seconds()


class Kind(StrEnum):
    """What becomes of a message when nothing else goes wrong."""

    GOOD = "good"
    SLOW = "slow"
    UNLUCKY = "fails three times"
    HOPELESS = "always fails"
    PERMANENT = "permanent failure"
    UNDECODABLE = "not a message"
    NEWER = "of a later version"

    @property
    def is_to_be_done(self) -> bool:
        return self in {Kind.GOOD, Kind.SLOW, Kind.UNLUCKY}


WORK = {  # how long a handler takes: nothing, longer than a drain, or longer than two leases
    Kind.SLOW: timedelta(seconds=150),
    Kind.UNLUCKY: timedelta(seconds=30),
    Kind.HOPELESS: timedelta(seconds=30),
}


def body_of(kind: Kind, number: int) -> str:
    if kind is Kind.UNDECODABLE:
        return f"hello {number}"
    if kind is Kind.NEWER:
        return json.dumps({**json.loads(body(number)), "type": "starlift.ingest_source.v99"})
    return body(number)


@dataclass
class World:
    """The world that all processes share, and its history. A body stands for its message: copies have the same.

    `excused` are the bodies that a fault other than a stop may have cost an attempt.
    """

    queue: FakeQueue
    dead_letters: FakeQueue
    kinds: dict[str, Kind] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)
    excused: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    is_warehouse_up: bool = True

    def send(self, kind: Kind) -> None:
        text = body_of(kind, len(self.kinds))
        self.kinds[text] = kind
        self.queue.put(text)

    def is_somewhere(self, text: str, *, beside: str | None = None) -> bool:
        """True if the message exists, not counting copies held by a receipt."""
        others = [message.body for message in self.queue.messages if message.receipt != beside]
        return text in others or text in self.dead_letters.bodies

    def require(self, holds: bool, rule: str) -> None:  # noqa: FBT001 - as assert
        if not holds:
            self.violations.append(rule)

    async def ask_warehouse(self) -> None:
        if not self.is_warehouse_up:
            raise DependencyDownError("warehouse", "no answer")


@dataclass
class Holding:
    """A process's view of a delivery: the end of its lease, and whether the process knows that the lease is lost."""

    body: str
    ends_at: float
    message_id: str
    is_gone: bool = False
    is_given_up: bool = False


class Connection:
    """The queue as one process sees it, until the process dies. Checks each request against what the process must know."""

    def __init__(self, queue: FakeQueue, world: World, process: Process) -> None:
        self._queue = queue
        self._world = world
        self._process = process

    @property
    def name(self) -> str:
        return self._queue.name

    async def send_all(self, messages: Sequence[Outgoing]) -> list[str | None]:
        raise AssertionError(f"a consumer sends one message at a time, not {len(messages)}")

    async def receive(self, limit: int, *, wait: timedelta, visibility: timedelta) -> list[Delivery]:
        self._require_alive()
        self._world.require(not self._process.consumer._outages.down, "received while it waited for a dependency")
        try:
            deliveries = await self._queue.receive(limit, wait=wait, visibility=visibility)
        except UNANSWERED:
            held = {receipt for process in self._process.all for receipt in process.holdings}
            stranded = [found for found in self._queue.messages if found.receipt and found.receipt not in held]
            self._world.excused |= {found.body for found in stranded}
            raise
        if self._process.is_gone:  # killed while the answer is on its way
            self._world.excused |= {delivery.body for delivery in deliveries}
        self._require_alive()
        for delivery in deliveries:
            ends_at = now() + visibility.total_seconds()
            self._process.holdings[delivery.receipt_handle] = Holding(delivery.body, ends_at, delivery.message_id)
            self._require_unburnt(delivery)
        return deliveries

    async def delete(self, receipts: Iterable[str]) -> Failures:
        self._require_alive()
        wanted = list(receipts)
        for receipt in wanted:
            holding = self._process.holdings[receipt]
            self._world.require(not holding.is_gone and now() < holding.ends_at, "deleted after its lease was lost")
            is_safe = holding.body in self._world.done or self._world.is_somewhere(holding.body, beside=receipt)
            self._world.require(is_safe, "deleted what is neither done nor anywhere else")
            self._process.finished.add(holding.message_id)
        failures = await self._watched(wanted, self._queue.delete(wanted))
        self._give_up(set(wanted) - failures.gone - failures.transient)
        return failures

    async def set_visibility(self, changes: Mapping[str, timedelta]) -> Failures:
        self._require_alive()
        asked_at = now()
        given_up = [receipt for receipt, span in changes.items() if span != RULES.visibility_timeout]
        try:
            failures = await self._watched(changes, self._queue.set_visibility(changes))
        except UNANSWERED:  # it may have been done
            self._give_up(given_up)
            raise
        for receipt in changes.keys() - failures.gone - failures.transient:
            self._process.holdings[receipt].ends_at = asked_at + changes[receipt].total_seconds()
        for receipt in failures.gone:
            self._process.holdings[receipt].is_gone = True
        self._give_up(set(given_up) - failures.gone - failures.transient)
        return failures

    async def send(self, text: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
        self._require_alive()
        try:
            return await self._queue.send(text, delay=delay, attributes=attributes)
        except UNANSWERED:
            self._world.excused.add(text)
            raise

    async def depth(self) -> Depth:
        self._require_alive()
        return await self._queue.depth()

    async def _watched(self, receipts: Iterable[str], request: Coroutine[None, None, Failures]) -> Failures:
        """A failed request about receipts excuses their messages: a lease may end because of it, or a deletion come late."""
        bodies = {receipt: self._process.holdings[receipt].body for receipt in receipts}
        try:
            failures = await request
        except UNANSWERED:
            self._world.excused |= set(bodies.values())
            raise
        self._world.excused |= {bodies[receipt] for receipt in failures.gone | failures.transient}
        return failures

    def _give_up(self, receipts: Iterable[str]) -> None:
        for receipt in receipts:
            self._process.holdings[receipt].is_given_up = True

    def _require_unburnt(self, delivery: Delivery) -> None:
        attempt, failed = read_attempt(delivery, loop_now()).number, self._world.failed[delivery.body]
        is_right = attempt == 1 + failed or delivery.body in self._world.excused
        kind = self._world.kinds[delivery.body].value
        self._world.require(is_right, f"attempt {attempt} of a '{kind}' message at {now():.3f} s, where {failed} failed")

    def _require_alive(self) -> None:
        if self._process.is_gone:
            raise asyncio.CancelledError


class Process:
    """A consumer and what it holds. `all` are the processes of its world, including dead ones."""

    def __init__(self, world: World, rules: Rules, seed: int, everybody: list[Process]) -> None:
        self.world = world
        self.all = everybody
        self.holdings: dict[str, Holding] = {}
        self.finished: set[str] = set()
        self.gone_at: float | None = None
        self.is_killed = False
        self.consumer = Consumer(
            self.handle,
            rules,
            queue=Connection(world.queue, world, self),
            dead_letters=Connection(world.dead_letters, world, self),
            probes={"warehouse": world.ask_warehouse},
            rng=Random(seed),  # noqa: S311 - the same delays each time
            now=loop_now,
        )
        self.running = asyncio.create_task(self.consumer.run())
        self.running.add_done_callback(self._ended)

    @property
    def is_gone(self) -> bool:
        return self.gone_at is not None

    async def kill(self) -> None:
        """End like SIGKILL: nothing more of it reaches the queue or the warehouse."""
        self.is_killed = True
        self.world.excused |= {holding.body for holding in self.holdings.values() if not holding.is_given_up}
        self.gone_at = now()
        self.running.cancel()
        await asyncio.wait([self.running])

    async def handle(self, message: Message) -> Outcome:
        text = next(text for text in self.world.kinds if str(message.id) in text)
        message_id = structlog.contextvars.get_contextvars()["message_id"]
        self.world.require(message_id not in self.finished, "worked again on what it has done")
        await self.world.ask_warehouse()
        kind = self.world.kinds[text]
        await asyncio.sleep(WORK.get(kind, timedelta(0)).total_seconds())
        if kind is Kind.PERMANENT:
            raise PermanentError("the table is gone; restore it")
        if kind is Kind.HOPELESS or (kind is Kind.UNLUCKY and self.world.failed[text] < 3):
            self.world.failed[text] += 1
            raise TransientError("no luck; trying later")
        self.world.done.add(text)
        return Done()

    def left_hidden(self, at: float) -> list[StoredMessage]:
        """Messages that no other process can receive at loop time `at`, because this dead process held them."""
        held = {receipt for receipt, holding in self.holdings.items() if not holding.is_given_up}
        return [message for message in self.world.queue.messages if message.receipt in held and message.visible_at > at]

    def _ended(self, running: asyncio.Task[None]) -> None:
        if self.gone_at is None:
            self.gone_at = now()
        if not running.cancelled() and running.exception() is not None:
            self.world.violations.append(f"a consumer ended by {running.exception()!r}")
