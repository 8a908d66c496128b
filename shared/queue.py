"""A queue: the port that services use, and SQS behind it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from contracts.messages import MESSAGE_BYTES_MAXIMUM
from shared.aws_errors import aws_errors, is_throttling
from shared.errors import PermanentError
from shared.wire_form import byte_count, packed, packed_byte_count, unpacked

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient
    from types_aiobotocore_sqs.type_defs import BatchResultErrorEntryTypeDef, MessageTypeDef

BATCH_MAXIMUM = 10  # entries of one SQS request
DELAY_MAXIMUM = timedelta(minutes=15)  # SQS: DelaySeconds <= 900
VISIBILITY_MAXIMUM = timedelta(hours=12)  # SQS, counted from when the message was received
RECEIPT_TIMEOUT = timedelta(seconds=5)  # of deletes and changes of visibility: leases wait for them
ANSWER_TIMEOUT = timedelta(seconds=15)  # of every other request but a poll
POLL_GRACE = timedelta(seconds=10)  # a long poll that is this late counts as hung
HOLD_MAXIMUM = VISIBILITY_MAXIMUM - timedelta(minutes=15)  # how long we keep one delivery: SQS shows it again soon after
NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a message; the same message has the same `message_id` and a new `receipt_handle` each time.

    `receive_count` starts at 1. `sent_at` and `first_received_at` are aware UTC.
    """

    message_id: str
    body: str
    receipt_handle: str
    receive_count: int
    sent_at: datetime
    first_received_at: datetime
    attributes: Mapping[str, str] = field(default_factory=lambda: NO_ATTRIBUTES)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be sent."""

    body: str
    attributes: Mapping[str, str] = field(default_factory=lambda: NO_ATTRIBUTES)


@dataclass(frozen=True, slots=True)
class Failures:
    """Receipts for which a batch request failed: those `gone` no longer hold their message, `transient` ones may be retried."""

    gone: frozenset[str] = frozenset()
    transient: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages a queue holds, as SQS counts them: approximately, and up to a minute late."""

    visible: int  # waiting to be received
    in_flight: int  # received and not yet deleted
    delayed: int  # sent with a delay that has not ended


class Queue(Protocol):
    """At-least-once, in no order. Every method raises TransientError, DependencyDownError("sqs") and PermanentError."""

    @property
    def name(self) -> str:
        """The queue's name, for people."""
        ...

    async def receive(self, limit: int, *, wait: timedelta, visibility: timedelta) -> list[Delivery]:
        """Receive up to `limit` deliveries, never more than 10, hidden from others for `visibility`; wait up to `wait` for one.

        Never cancel it: messages on their way would be hidden although no consumer works on them. It ends within `wait` and
        POLL_GRACE.
        """
        ...

    async def delete(self, receipts: Iterable[str]) -> Failures:
        """Delete messages. May be repeated."""
        ...

    async def set_visibility(self, changes: Mapping[str, timedelta]) -> Failures:
        """Hide each receipt's message for that time from now on; zero shows it again at once."""
        ...

    async def send(self, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
        """Send a message, visible after `delay` (at most 15 minutes), and return its id."""
        ...

    async def send_all(self, messages: Sequence[Outgoing]) -> list[str | None]:
        """Send messages in few requests, and return their ids in the order given; None for one that SQS refused.

        When it raises, the answers to the requests before (see `requests_of`) are lost: send one request at a time.
        """
        ...

    async def depth(self) -> Depth:
        """How many messages the queue holds."""
        ...


class SqsQueue:
    """An SQS queue.

    `receiver` and `control` are two clients: ten long polls on the only pool of 10 connections delayed a heartbeat by 7.4 s.
    `once` never retries a request by itself: a caller that sends many has to know what may have been sent twice.
    """

    def __init__(self, url: str, *, receiver: SQSClient, control: SQSClient, once: SQSClient) -> None:
        self._url = url
        self._receiver = receiver
        self._control = control
        self._once = once

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self._url.rpartition("/")[2]

    async def receive(self, limit: int, *, wait: timedelta, visibility: timedelta) -> list[Delivery]:
        """See Queue. The client's read timeout must exceed `wait`."""
        with aws_errors("sqs", self.name):
            async with asyncio.timeout((wait + POLL_GRACE).total_seconds()):
                answer = await self._receiver.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=min(limit, BATCH_MAXIMUM),
                    WaitTimeSeconds=_seconds(wait),
                    VisibilityTimeout=_seconds(visibility),
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
        return [_delivery(message) for message in answer.get("Messages", ())]

    async def delete(self, receipts: Iterable[str]) -> Failures:
        """See Queue."""

        async def request(batch: Sequence[str]) -> Sequence[BatchResultErrorEntryTypeDef]:
            answer = await self._control.delete_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(batch)],
            )
            return answer.get("Failed", ())

        return await self._change(list(receipts), request)

    async def set_visibility(self, changes: Mapping[str, timedelta]) -> Failures:
        """See Queue."""

        async def request(batch: Sequence[str]) -> Sequence[BatchResultErrorEntryTypeDef]:
            answer = await self._control.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": _seconds(changes[receipt])}
                    for index, receipt in enumerate(batch)
                ],
            )
            return answer.get("Failed", ())

        return await self._change(list(changes), request)

    async def _change(
        self, receipts: Sequence[str], request: Callable[[Sequence[str]], Awaitable[Sequence[BatchResultErrorEntryTypeDef]]]
    ) -> Failures:
        """Make a `request` for every ten receipts; it returns the entries that SQS reports as failed."""
        failed: dict[str, BatchResultErrorEntryTypeDef] = {}
        for start in range(0, len(receipts), BATCH_MAXIMUM):
            batch = receipts[start : start + BATCH_MAXIMUM]
            with aws_errors("sqs", self.name):
                async with asyncio.timeout(RECEIPT_TIMEOUT.total_seconds()):
                    failed |= {batch[int(entry["Id"])]: entry for entry in await request(batch)}
        gone = frozenset(receipt for receipt, entry in failed.items() if _is_gone(entry))
        return Failures(gone=gone, transient=frozenset(failed) - gone)

    async def send(self, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
        """See Queue."""
        require_sendable(self.name, Outgoing(body, attributes), delay)
        wire_body, wire_attributes = packed(body, attributes)
        with aws_errors("sqs", self.name):
            async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                answer = await self._control.send_message(
                    QueueUrl=self._url,
                    MessageBody=wire_body,
                    DelaySeconds=_seconds(delay),
                    MessageAttributes=wire_attributes,
                )
        return answer["MessageId"]

    async def send_all(self, messages: Sequence[Outgoing]) -> list[str | None]:
        """See Queue."""
        for message in messages:
            require_sendable(self.name, message)
        ids: list[str | None] = []
        for batch in requests_of(messages):
            as_sent = [packed(message.body, message.attributes) for message in batch]
            with aws_errors("sqs", self.name):
                async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                    answer = await self._once.send_message_batch(
                        QueueUrl=self._url,
                        Entries=[
                            {"Id": str(index), "MessageBody": body, "MessageAttributes": attributes}
                            for index, (body, attributes) in enumerate(as_sent)
                        ],
                    )
            taken = {int(entry["Id"]): entry["MessageId"] for entry in answer.get("Successful", ())}
            ids += [taken.get(index) for index in range(len(batch))]
        return ids

    async def depth(self) -> Depth:
        """See Queue."""
        with aws_errors("sqs", self.name):
            async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                answer = await self._control.get_queue_attributes(
                    QueueUrl=self._url,
                    AttributeNames=[
                        "ApproximateNumberOfMessages",
                        "ApproximateNumberOfMessagesNotVisible",
                        "ApproximateNumberOfMessagesDelayed",
                    ],
                )
        counts = answer["Attributes"]
        return Depth(
            visible=int(counts["ApproximateNumberOfMessages"]),
            in_flight=int(counts["ApproximateNumberOfMessagesNotVisible"]),
            delayed=int(counts["ApproximateNumberOfMessagesDelayed"]),
        )


def require_sendable(queue: str, message: Outgoing, delay: timedelta = timedelta(0)) -> None:
    """Check a message for what SQS would refuse. Raises: PermanentError."""
    size = byte_count(message.body, NO_ATTRIBUTES)
    if size <= MESSAGE_BYTES_MAXIMUM:  # no receiver unpacks a longer body, however small gzip makes it
        size = packed_byte_count(message.body, message.attributes)
    if size > MESSAGE_BYTES_MAXIMUM:
        raise PermanentError(
            f"a message to '{queue}' has {size} bytes, SQS takes {MESSAGE_BYTES_MAXIMUM}; put the data into an object "
            "and send its reference"
        )
    if not timedelta(0) <= delay <= DELAY_MAXIMUM:
        raise PermanentError(f"a message to '{queue}' can be delayed by 0 to 15 minutes, not by {delay}; shorten the delay")


def requests_of(messages: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """Cut messages into requests of at most ten, and of half the bytes that SQS takes, so that JSON's escapes have room."""
    batch: list[Outgoing] = []
    total = 0
    for message in messages:
        size = byte_count(message.body, message.attributes)
        if batch and (len(batch) == BATCH_MAXIMUM or total + size > MESSAGE_BYTES_MAXIMUM // 2):
            yield batch
            batch, total = [], 0
        batch.append(message)
        total += size
    if batch:
        yield batch


def _seconds(span: timedelta) -> int:
    """Whole seconds for SQS, rounded up: a short span must not become zero, which shows a message again."""
    return math.ceil(span.total_seconds())


def _delivery(message: MessageTypeDef) -> Delivery:
    system = message["Attributes"]
    attributes = message.get("MessageAttributes", {})
    return Delivery(
        message_id=message["MessageId"],
        body=unpacked(message),
        receipt_handle=message["ReceiptHandle"],
        receive_count=int(system["ApproximateReceiveCount"]),
        sent_at=_from_milliseconds(system["SentTimestamp"]),
        first_received_at=_from_milliseconds(system["ApproximateFirstReceiveTimestamp"]),
        attributes={key: value["StringValue"] for key, value in attributes.items() if "StringValue" in value},
    )


def _from_milliseconds(text: str) -> datetime:
    return datetime.fromtimestamp(int(text) / 1000, UTC)


def _is_gone(entry: BatchResultErrorEntryTypeDef) -> bool:
    """Whether the receipt no longer holds its message, or has held it for 12 hours: SQS calls that the sender's fault."""
    code = entry["Code"]
    return code == "ReceiptHandleIsInvalid" or (entry["SenderFault"] and not is_throttling(code))
