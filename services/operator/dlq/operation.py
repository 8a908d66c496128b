"""What an operation on dead letters is: what was asked, how far each letter has come, how it ended."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, unique

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from services.operator.dlq.filters import Filter


@unique
class Step(StrEnum):
    """How far a letter has come. Written before what it announces or after what it reports: see docs/decisions/0007."""

    PLANNED = "planned"  # chosen
    ARCHIVED = "archived"  # kept, with its body
    SENDING = "sending"  # may have been sent
    SENT = "sent"  # has been sent
    DELETED = "deleted"  # is no longer in the dead-letter queue: done
    FAILED = "failed"  # SQS did not do it; it is still in the dead-letter queue
    SKIPPED = "skipped"  # was not to be sent; it is still in the dead-letter queue


EARLIEST = datetime.min.replace(tzinfo=UTC)  # of what says no time
UNFINISHED = (Step.PLANNED, Step.ARCHIVED, Step.SENDING, Step.SENT)


@unique
class Kind(StrEnum):
    """What an operation does with its letters."""

    REPLAY = "replay"
    EDIT = "edit"
    DISCARD = "discard"
    RESTORE = "restore"  # back into the dead-letter queue, from an archive
    NATIVE = "native"  # SQS's own move task
    UNKNOWN = "unknown"  # something that only a newer build understands


RESUMABLE = frozenset({Kind.REPLAY, Kind.EDIT, Kind.DISCARD})  # the others choose no letters that they could find again
MAY_CHOOSE = RESUMABLE | {Kind.UNKNOWN}


@unique
class End(StrEnum):
    """How an operation ended."""

    DONE = "done"
    PARTIAL = "partial"  # some letters stayed
    STOPPED = "stopped"  # a safety limit
    NOTHING = "nothing"  # no letter was chosen
    UNKNOWN = "unknown"  # in a way that only a newer build understands


@dataclass(frozen=True, slots=True)
class Author:
    """Who does something, and why: both are kept."""

    operator: str
    reason: str = ""


class _Stored(BaseModel):
    """Read by later and by earlier builds, so unknown fields are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Operation(_Stored):
    """What was asked.

    `filter` chose the letters, `limit` of them at most; `rate` is in letters a second; `body` is the new body of an edited one.
    """

    id: str
    kind: Kind
    service: str
    operator: str
    reason: str
    began_at: AwareDatetime
    filter: Filter = Filter()
    limit: int | None = None
    force: bool = False
    rate: float = 10.0
    canary: int = 0
    body: str | None = None


class Resumption(_Stored):
    """Who went on with an operation, and why."""

    operator: str
    reason: str
    at: AwareDatetime


class Ended(_Stored):
    """How it ended: letters by their last step, and why it stopped, if it did."""

    at: AwareDatetime
    end: End
    counts: dict[str, int]
    detail: str = ""


def read_operation(ident: str, body: bytes) -> Operation:
    """What was asked; of what a newer build was asked, who, when and why. A filter that is half understood chooses too much."""
    try:
        return Operation.model_validate_json(body)
    except ValidationError:
        document = json.loads(body)
        told = {name: document.get(name, "") for name in ("service", "operator", "reason")}
        return Operation(id=ident, kind=Kind.UNKNOWN, began_at=document.get("began_at", EARLIEST), **told)


def read_ended(body: bytes) -> Ended:
    """How it ended; that it has ended is certain, whatever this build understands."""
    try:
        return Ended.model_validate_json(body)
    except ValidationError:
        return Ended(at=json.loads(body).get("at", EARLIEST), end=End.UNKNOWN, counts={})


class Line(_Stored):
    """One step of one letter. `archive` is the number of the archive object that has it.

    An empty `letter`: all were chosen, or, with a `detail`, a safety limit has stopped it.
    """

    letter: str
    step: Step
    at: AwareDatetime
    archive: int | None = None
    detail: str = ""


def read_line(text: bytes) -> Line:
    """One step of one letter; of a step that only a newer build knows this much: the letter may have been sent."""
    try:
        return Line.model_validate_json(text)
    except ValidationError:
        document = json.loads(text) | {"step": Step.SENDING, "detail": "a step of a newer build"}
        return Line.model_validate(document)


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def new_operation_id(at: datetime) -> str:
    """Sorts by time; two at once differ."""
    return f"{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
