"""Fakes of the queue and the object store, in memory and on the event loop's clock: deterministic, and made to be asserted on.

The conformance suite runs them beside SQS and S3. `faults` makes the next calls of a method fail.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5

from contracts.objects import ObjectRef
from shared.errors import DependencyDownError
from shared.object_store import Versioned, conflict, verified
from shared.queue import NO_ATTRIBUTES, Delivery, Depth, Failures, require_sendable

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # the wall clock's time when the loop's clock says 0


def loop_now() -> datetime:
    """The loop's clock as a wall clock."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


class Faults:
    """Errors to come: `faults.add("receive", error)` makes the next `receive` raise it, before it does anything."""

    def __init__(self) -> None:
        self._coming: defaultdict[str, deque[Exception]] = defaultdict(deque)

    def add(self, method: str, *errors: Exception) -> None:
        """One error a call, in this order."""
        self._coming[method].extend(errors)

    async def strike(self, method: str) -> None:
        """Lets others run first, as every network call does; then raises what was added for the method, once each."""
        await asyncio.sleep(0)
        if self._coming[method]:
            raise self._coming[method].popleft()


@dataclass(slots=True)
class StoredMessage:
    """A message in a FakeQueue. `visible_at` is in the loop's seconds; `receipt` is the latest, empty before the first."""

    message_id: str
    body: str
    attributes: Mapping[str, str]
    sent_at: datetime
    visible_at: float
    receive_count: int = 0
    first_received_at: datetime = EPOCH
    receipt: str = ""


class FakeQueue:
    """A queue that behaves as SQS does, and hands messages out in the order in which they became visible.

    A message received more than `max_receive_count` times goes to `dead_letters` instead. A stale receipt deletes nothing.
    """

    def __init__(
        self, name: str = "queue", *, dead_letters: FakeQueue | None = None, max_receive_count: int | None = None
    ) -> None:
        self.faults = Faults()
        self.messages: list[StoredMessage] = []
        self.sent: list[StoredMessage] = []
        self._name = name
        self._dead_letters = dead_letters
        self._max_receive_count = max_receive_count
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def bodies(self) -> list[str]:
        """Of every message that is not deleted, oldest first."""
        return [message.body for message in self.messages]

    async def receive(self, limit: int, *, wait: timedelta, visibility: timedelta) -> list[Delivery]:
        """See Queue."""
        await self.faults.strike("receive")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        while True:
            self._redrive()
            ready = sorted(self._visible(), key=lambda message: message.visible_at)[:limit]
            if ready or loop.time() >= deadline:
                return [self._deliver(message, visibility) for message in ready]
            await self._change(until=min([deadline, *(message.visible_at for message in self.messages)]))

    async def delete(self, receipts: Iterable[str]) -> Failures:
        """See Queue."""
        await self.faults.strike("delete")
        unwanted = set(receipts)
        self.messages = [message for message in self.messages if message.receipt not in unwanted]
        return Failures()

    async def set_visibility(self, changes: Mapping[str, timedelta]) -> Failures:
        """See Queue."""
        await self.faults.strike("set_visibility")
        now = asyncio.get_running_loop().time()
        gone = set(changes)
        for message in self.messages:
            if message.receipt in changes and message.visible_at > now:
                message.visible_at = now + changes[message.receipt].total_seconds()
                gone.discard(message.receipt)
        self._changed.set()
        return Failures(gone=frozenset(gone))

    async def send(self, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
        """See Queue."""
        await self.faults.strike("send")
        require_sendable(self._name, body, delay, attributes)
        visible_at = asyncio.get_running_loop().time() + delay.total_seconds()
        message = StoredMessage(f"{self._name}-{len(self.sent) + 1}", body, dict(attributes), loop_now(), visible_at)
        self.messages.append(message)
        self.sent.append(message)
        self._changed.set()
        return message.message_id

    async def depth(self) -> Depth:
        """See Queue."""
        await self.faults.strike("depth")
        visible = self._visible()
        hidden = [message for message in self.messages if message not in visible]
        in_flight = sum(1 for message in hidden if message.receipt)
        return Depth(visible=len(visible), in_flight=in_flight, delayed=len(hidden) - in_flight)

    def _visible(self) -> list[StoredMessage]:
        now = asyncio.get_running_loop().time()
        return [message for message in self.messages if message.visible_at <= now]

    def _redrive(self) -> None:
        if self._dead_letters is None or self._max_receive_count is None:
            return
        for message in self._visible():
            if message.receive_count >= self._max_receive_count:
                self.messages.remove(message)
                self._dead_letters.messages.append(message)

    def _deliver(self, message: StoredMessage, visibility: timedelta) -> Delivery:
        message.receive_count += 1
        message.receipt = f"{message.message_id}/{message.receive_count}"
        message.visible_at = asyncio.get_running_loop().time() + visibility.total_seconds()
        if message.receive_count == 1:
            message.first_received_at = loop_now()
        return Delivery(
            message_id=message.message_id,
            body=message.body,
            receipt_handle=message.receipt,
            receive_count=message.receive_count,
            sent_at=message.sent_at,
            first_received_at=message.first_received_at,
            attributes=message.attributes,
        )

    async def _change(self, *, until: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        except TimeoutError:
            return


class FakeObjectStore:
    """An object store that behaves as S3 does. `buckets` holds bucket, key and bytes, for a test to read, change and remove."""

    def __init__(self, *buckets: str) -> None:
        self.faults = Faults()
        self.buckets: dict[str, dict[str, bytes]] = {bucket: {} for bucket in buckets}

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        """See ObjectStore."""
        await self.faults.strike("put")
        self._bucket(bucket)[key] = body

    async def get(self, ref: ObjectRef) -> bytes:
        """See ObjectStore."""
        await self.faults.strike("get")
        return verified(ref, self._bucket(ref.bucket).get(ref.key))

    async def read(self, bucket: str, key: str) -> Versioned | None:
        """See ObjectStore."""
        await self.faults.strike("read")
        body = self._bucket(bucket).get(key)
        return None if body is None else Versioned(body, _etag(body))

    async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        """See ObjectStore."""
        await self.faults.strike("replace")
        current = self._bucket(bucket).get(key)
        if (None if current is None else _etag(current)) != expected:
            raise conflict(bucket, key)
        self._bucket(bucket)[key] = body
        return _etag(body)

    async def keys(self, bucket: str, prefix: str, *, after: str = "") -> list[str]:
        """See ObjectStore."""
        await self.faults.strike("keys")
        found = [key for key in self._bucket(bucket) if key.startswith(prefix) and key.encode() > after.encode()]
        return sorted(found, key=str.encode)

    def _bucket(self, bucket: str) -> dict[str, bytes]:
        try:
            return self.buckets[bucket]
        except KeyError:
            raise DependencyDownError("s3", f"'{bucket}' does not exist; rerun the set-up") from None


def _etag(body: bytes) -> str:
    """S3's: of the content, so that equal bytes are equal versions."""
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'
