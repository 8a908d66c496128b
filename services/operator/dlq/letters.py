"""A dead letter as an operator sees it: the message, why it died, and whether it could go back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from contracts.failure import FAILURE_ATTRIBUTE, FailureReason, FailureRecord, read_failure
from contracts.messages import Message, NewerMessageError, UndecodableMessageError, decode, encode
from contracts.objects import ObjectRef
from contracts.routes import ROUTES
from shared.consumer.attempt import given
from shared.queue import Delivery, Outgoing

_DEPTH_MAXIMUM = 100  # of the JSON in a letter; a message of ours has eight levels
_CONSUMED = {route.service: route.kind for route in ROUTES}


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of a service. `document` is the body as JSON; None for other text, or JSON that is nested absurdly deep.

    `problem` says why it can't go back.
    `message` is the body, validated and upcast to this build's version; None exactly if there is a problem.
    """

    service: str
    delivery: Delivery
    failure: FailureRecord
    document: Any
    message: Message | None
    problem: str | None

    @property
    def id(self) -> str:
        """SQS's id: that of this letter, not of the message in it, which another letter may hold, too."""
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
        """What the message says; nothing if it is none of ours."""
        data = self.document.get("data") if isinstance(self.document, dict) else None
        return data if isinstance(data, dict) else {}

    @property
    def run(self) -> int | None:
        """The run that the message belongs to; a command belongs to none."""
        run = self.data.get("run")
        return run if isinstance(run, int) else None

    @property
    def outgoing(self) -> Outgoing:
        """What a replay sends: the message in this build's version, and its failure record, which counts the replay.

        Raises: ValueError for a letter with a problem.
        """
        if self.message is None:
            raise ValueError(f"letter {self.id} can't be replayed: {self.problem}")
        body = self.delivery.body if self.message.type == self.type else encode(self.message)
        counted = self.failure.model_copy(update={"replays": self.failure.replays + 1})
        return Outgoing(body, {**given(self.delivery), FAILURE_ATTRIBUTE: counted.model_dump_json(ensure_ascii=True)})

    @property
    def snapshot_at(self) -> str | None:
        """When the rows of the message were read, in ISO 8601; a command has none."""
        return _text(self.data.get("snapshot"), "taken_at")

    def objects(self) -> Iterator[ObjectRef]:
        """Every object that the message refers to."""
        return _references(self.data)


class Archived(BaseModel):
    """A dead letter as a line of JSON: of an archive, and of `export` and `restore`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str
    message_id: str
    body: str
    attributes: dict[str, str]
    sent_at: AwareDatetime

    @classmethod
    def of(cls, letter: Letter) -> Archived:
        """All that is needed to make the letter again."""
        delivery = letter.delivery
        return cls(
            service=letter.service,
            message_id=delivery.message_id,
            body=delivery.body,
            attributes=dict(delivery.attributes),
            sent_at=delivery.sent_at,
        )

    def letter(self) -> Letter:
        """The letter again, without a receipt: it can be read and sent, and not deleted."""
        delivery = Delivery(self.message_id, self.body, "", 1, self.sent_at, self.sent_at, self.attributes)
        return read_letter(self.service, delivery)


def read_letter(service: str, delivery: Delivery) -> Letter:
    """What a delivery of a service's dead-letter queue holds. Never fails: anything may lie there."""
    message, problem = validated(service, delivery.body)
    try:
        document = json.loads(delivery.body)
    except (ValueError, RecursionError):
        document = None
    if not _is_shallow(document):  # whatever shows it or searches it recurses
        document = None
    return Letter(service, delivery, _failure(service, delivery), document, message, problem)


def validated(service: str, body: str) -> tuple[Message | None, str | None]:
    """The message in a body that is to go to `service`, or why it must not."""
    try:
        message = decode(body)
    except (UndecodableMessageError, NewerMessageError) as error:
        return None, str(error)
    if message.type != _CONSUMED[service]:
        return None, f"'{message.type}' is not for {service}, which works on '{_CONSUMED[service]}'"
    return message, None


def _failure(service: str, delivery: Delivery) -> FailureRecord:
    """The record that the consumer wrote, or what little is known of a letter that SQS has moved by itself."""
    return read_failure(delivery.attributes.get(FAILURE_ATTRIBUTE, "")) or FailureRecord(
        reason=FailureReason.EXHAUSTED,
        error_type="unknown",
        message="no service recorded why: SQS moved it after too many receives (does it kill its process?), or a person did",
        fingerprint=sha256(f"{service} unknown".encode()).hexdigest()[:16],
        attempts=max(1, delivery.receive_count),
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
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) else None
