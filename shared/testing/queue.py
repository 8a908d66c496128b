"""SQS in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

from shared.queue import (
    BATCH_MAXIMUM,
    NO_ATTRIBUTES,
    POLL_GRACE,
    VISIBILITY_MAXIMUM,
    Delivery,
    Depth,
    Failures,
    Outgoing,
    require_sendable,
)
from shared.testing.clock import EPOCH, loop_now
from shared.testing.faults import Faults

_EARLY_S = 1e-6  # more than what asyncio's timers are early by: on a clock that only timers move, early would be never


@dataclass(eq=False, slots=True)
class StoredMessage:
    """A message in a FakeQueue. Times are the loop's seconds; `receipt` is the latest, empty before the first."""

    message_id: str
    body: str
    attributes: Mapping[str, str]
    sent_at: datetime
    visible_at: float
    receive_count: int = 0
    first_received_at: datetime = EPOCH
    received_at: float = 0
    receipt: str = ""


class FakeQueue:
    """A queue that behaves as SQS does, and hands messages out in the order in which they became visible, or in a random one.

    A message received more than `max_receive_count` times goes to `dead_letters` instead. A stale receipt deletes nothing.
    """

    def __init__(
        self,
        name: str = "queue",
        *,
        dead_letters: FakeQueue | None = None,
        max_receive_count: int | None = None,
        order: Random | None = None,
    ) -> None:
        self.faults = Faults()
        self.messages: list[StoredMessage] = []
        self.sent: list[StoredMessage] = []
        self._name = name
        self._dead_letters = dead_letters
        self._max_receive_count = max_receive_count
        self._order = order
        self._receipt_count = 0
        self._invalid: set[str] = set()
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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        async with self.faults.call("receive", patience=wait + POLL_GRACE):
            while True:
                self._redrive()
                ready = sorted(self._visible(), key=lambda message: message.visible_at)
                if self._order is not None:
                    self._order.shuffle(ready)
                ready = ready[: min(limit, BATCH_MAXIMUM)]
                if ready or loop.time() >= deadline:
                    return [self._deliver(message, visibility) for message in ready]
                await self._change(until=min([deadline, *(message.visible_at for message in self.messages)]))

    async def delete(self, receipts: Iterable[str]) -> Failures:
        """See Queue."""
        wanted = list(receipts)
        async with self.faults.call("delete") as is_partial:
            failed = _every_other(wanted, is_partial)
            served = set(wanted) - failed
            self.messages = [message for message in self.messages if message.receipt not in served]
        return Failures(gone=frozenset(served & self._invalid), transient=failed)

    async def set_visibility(self, changes: Mapping[str, timedelta]) -> Failures:
        """See Queue. Gone is a receipt whose message is not in flight, or would be hidden for more than 12 hours in all."""
        async with self.faults.call("set_visibility") as is_partial:
            now = asyncio.get_running_loop().time()
            failed = _every_other(list(changes), is_partial)
            gone = set(changes) - failed
            for message in self.messages:
                if message.receipt not in gone or message.visible_at <= now:
                    continue
                hidden_until = now + changes[message.receipt].total_seconds()
                if hidden_until - message.received_at <= VISIBILITY_MAXIMUM.total_seconds():
                    message.visible_at = hidden_until
                    gone.discard(message.receipt)
            self._changed.set()
        return Failures(gone=frozenset(gone), transient=failed)

    async def send(self, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
        """See Queue."""
        async with self.faults.call("send"):
            return self.put(body, delay=delay, attributes=attributes).message_id

    async def send_all(self, messages: Sequence[Outgoing]) -> list[str | None]:
        """See Queue. A partial failure refuses every other message."""
        for message in messages:
            require_sendable(self._name, message)
        async with self.faults.call("send_all") as is_partial:
            refused = set(range(0, len(messages), 2)) if is_partial else set()
            return [
                None if index in refused else self.put(message.body, attributes=message.attributes).message_id
                for index, message in enumerate(messages)
            ]

    async def depth(self) -> Depth:
        """See Queue."""
        async with self.faults.call("depth"):
            visible = self._visible()
            hidden = [message for message in self.messages if message not in visible]
            in_flight = sum(1 for message in hidden if message.receipt)
        return Depth(visible=len(visible), in_flight=in_flight, delayed=len(hidden) - in_flight)

    def put(
        self, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES
    ) -> StoredMessage:
        """Put a message into the queue as another sender: no fault strikes."""
        require_sendable(self._name, Outgoing(body, attributes), delay)
        visible_at = asyncio.get_running_loop().time() + delay.total_seconds()
        message = StoredMessage(f"{self._name}-{len(self.sent) + 1}", body, dict(attributes), loop_now(), visible_at)
        self.sent.append(message)
        self._store(message)
        return message

    def expire(self, message: StoredMessage) -> None:
        """End the message's visibility timeout: a renewal then fails with MessageNotInflight."""
        message.visible_at = min(message.visible_at, asyncio.get_running_loop().time())
        self._changed.set()

    def invalidate(self, message: StoredMessage) -> None:
        """Make the receipt invalid for every request; the message stays hidden until its visibility timeout ends."""
        self._invalid.add(message.receipt)
        message.receipt = f"{message.receipt}, expired"

    def duplicate(self, message: StoredMessage) -> StoredMessage:
        """Deliver the message once more, as a server of SQS does that missed its receipt or its deletion."""
        again = replace(message, receipt="", visible_at=asyncio.get_running_loop().time())
        self._store(again)
        return again

    def _store(self, message: StoredMessage) -> None:
        self.messages.append(message)
        self._changed.set()

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
        self._receipt_count += 1
        message.receive_count += 1
        message.receipt = f"{message.message_id}/{self._receipt_count}"
        message.received_at = asyncio.get_running_loop().time()
        message.visible_at = message.received_at + visibility.total_seconds()
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
            async with asyncio.timeout_at(until + _EARLY_S):
                await self._changed.wait()
        except TimeoutError:
            return


def _every_other(receipts: list[str], is_partial: bool) -> frozenset[str]:  # noqa: FBT001 - a private switch
    return frozenset(receipts[::2]) if is_partial else frozenset()
