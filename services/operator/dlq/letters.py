"""A dead letter as an operator sees it: the message, why it failed, and whether it could go back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from contracts.dead_letters import Archived
from contracts.doorbells import understood
from contracts.failure import FAILURE_ATTRIBUTE, FINGERPRINT_VERSION, FailureReason, FailureRecord, fingerprint_of, read_failure
from contracts.messages import Message, NewerMessageError, UndecodableMessageError, encode
from contracts.objects import ObjectRef
from contracts.routes import ROUTES
from shared.consumer.attempt import sender_attributes
from shared.queue import Delivery, Outgoing
from shared.wire_form import attributes_beside

_DEPTH_MAXIMUM = 100  # of the JSON in a letter; a message of ours has eight levels
_CONSUMED = {one.service: [route.kind for route in ROUTES if route.service == one.service] for one in ROUTES}
_EDIT = "for the message inside it, `starlift dlq edit` replaces the letter by that"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of a service."""

    service: str
    delivery: Delivery
    failure: FailureRecord
    document: Any  # the body as JSON; None for other text, and for JSON that is nested absurdly deep
    message: Message | None  # the body, validated and upcast to this build's version; None exactly if there is a problem
    problem: str | None  # why the letter can't go back

    @property
    def id(self) -> str:
        """SQS's id: of this letter, not of the message in it, which another letter may also hold."""
        return self.delivery.message_id

    @property
    def event_id(self) -> str | None:
        """The id of the message."""
        return _text(self.document, "id")

    @property
    def type(self) -> str | None:
        """The type of the message, with its version, as it was sent."""
        return _text(self.document, "type")

    @property
    def data(self) -> Mapping[str, Any]:
        """What the message says; empty if it is not one of ours."""
        data = self.document.get("data") if isinstance(self.document, dict) else None
        return data if isinstance(data, dict) else {}

    @property
    def run(self) -> int | None:
        """The run that the message belongs to; a command belongs to none."""
        run = self.data.get("run")
        return run if isinstance(run, int) else None

    @property
    def batch_id(self) -> UUID | None:
        """The batch that the message is about; a command is about none."""
        try:
            return UUID(str(self.data.get("batch_id")))
        except ValueError:
            return None

    @property
    def snapshot_at(self) -> str | None:
        """When the rows of the message were read, in ISO 8601; a command has none."""
        return _text(self.data.get("snapshot"), "taken_at")

    @property
    def outgoing(self) -> Outgoing:
        """What a replay sends: the message in this build's version, and its failure record, which counts the replay.

        Raises: ValueError for a letter with a problem.
        """
        if self.message is None:
            raise ValueError(f"letter {self.id} can't be replayed: {self.problem}")
        body = self.delivery.body if self.message.type == self.type else encode(self.message)
        counted = self.failure.model_copy(update={"replays": self.failure.replays + 1})
        ours = {FAILURE_ATTRIBUTE: counted.model_dump_json(ensure_ascii=True)}
        return Outgoing(body, attributes_beside(body, ours, sender_attributes(self.delivery)))

    @property
    def archived(self) -> Archived:
        """All that is needed to make the letter again."""
        return Archived(
            service=self.service,
            message_id=self.id,
            body=self.delivery.body,
            attributes=dict(self.delivery.attributes),
            sent_at=self.delivery.sent_at,
        )

    def objects(self) -> list[ObjectRef]:
        """Every object that the message refers to, once."""
        return list({(ref.bucket, ref.key): ref for ref in _references(self.data)}.values())


def read_letter(service: str, delivery: Delivery) -> Letter:
    """What a delivery of a service's dead-letter queue holds. Never fails: anybody may have sent it."""
    try:
        document = json.loads(delivery.body)
    except (ValueError, RecursionError):
        document = None
    if not _is_shallow(document):  # whatever shows it or searches it recurses
        document = None
    message, problem = validated(service, delivery.body)
    if problem is not None and (foreign := _foreign(document)) is not None:
        problem = foreign
    return Letter(service, delivery, _failure(service, delivery), document, message, problem)


def letter_of(archived: Archived) -> Letter:
    """An archived letter, without a receipt: it can be read and sent, and not deleted."""
    delivery = Delivery(archived.message_id, archived.body, "", 1, archived.sent_at, archived.sent_at, archived.attributes)
    return read_letter(archived.service, delivery)


def validated(service: str, body: str) -> tuple[Message | None, str | None]:
    """The message in a body that is to go to `service`, or why it must not."""
    try:
        message = understood(body)
    except (UndecodableMessageError, NewerMessageError) as error:
        return None, str(error)
    if message.type not in (consumed := _CONSUMED[service]):
        return None, f"'{message.type}' is not for {service}, which works on {' and '.join(map(repr, consumed))}"
    return message, None


def _foreign(document: Any) -> str | None:
    """What AWS put into the queue that is not a message of Starlift, and what to do about it."""
    match document:
        case {"Service": "Amazon S3", "Event": "s3:TestEvent"}:
            return "this is an S3 test event, sent when the notifications of a bucket were set up; discard it"
        case {"Records": [{"eventSource": "aws:s3"}, *_]}:
            return "this is an S3 event notification, which only ingestion understands; send it to its queue, then discard this"
        case {"Type": "Notification", "TopicArn": _, "Message": _}:
            return f"this is an SNS notification; enable raw message delivery for the subscription; {_EDIT}"
        case {"Type": "SubscriptionConfirmation" | "UnsubscribeConfirmation", "TopicArn": _}:
            return "this is an SNS subscription's confirmation; remove the queue's subscription, then discard it"
        case {"detail-type": _, "source": _, "detail": _}:
            return f"this is an EventBridge event; have the rule's target send `$.detail` alone; {_EDIT}"
        case _:
            return None


def _failure(service: str, delivery: Delivery) -> FailureRecord:
    """The record that the consumer wrote, or what is known without one: SQS counts receives, and a person's look is one."""
    return read_failure(delivery.attributes.get(FAILURE_ATTRIBUTE, "")) or FailureRecord(
        reason=FailureReason.EXHAUSTED,
        error_type="unknown",
        message="no service recorded why: a person sent it, or SQS moved it after too many receives (does it crash a service?)",
        fingerprint=fingerprint_of(service, "unknown"),
        fingerprint_version=FINGERPRINT_VERSION,
        attempts=None,
        first_failed_at=delivery.sent_at,
        last_failed_at=delivery.sent_at,
        source_queue=service,
        service=service,
        version="unknown",
    )


def _is_shallow(document: Any) -> bool:
    level = [document]
    for _ in range(_DEPTH_MAXIMUM):
        if not level:
            return True
        parents = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [child for children in parents for child in children]
    return False


def _references(value: Any) -> Iterator[ObjectRef]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        try:
            yield ObjectRef.model_validate(value)
        except ValidationError:
            for item in value.values():
                yield from _references(item)


def _text(document: Any, name: str) -> str | None:
    """A text of the document; lone surrogates, which JSON can escape and UTF-8 can't encode, are spelled out."""
    value = document.get(name) if isinstance(document, dict) else None
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else None
