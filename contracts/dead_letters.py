"""What operations on dead letters leave in the landing bucket: the audit, and the letters as they were.

dead-letters/begun/ID.json            what was asked, by whom and why
dead-letters/archive/ID/NNNNN.jsonl   the letters as they were, written before anything is done with them
dead-letters/ended/ID.json            how it ended and what became of each letter; missing while it runs, or if it was killed

Each object is written once. Operations of earlier builds, which also kept a journal and a lock, are read as they are.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum, unique
from typing import Any

from pydantic import AwareDatetime, BaseModel

DEAD_LETTERS_PREFIX = "dead-letters/"
BEGUN_PREFIX, ENDED_PREFIX = f"{DEAD_LETTERS_PREFIX}begun/", f"{DEAD_LETTERS_PREFIX}ended/"


@unique
class Kind(StrEnum):
    """What an operation does with its letters."""

    REPLAY = "replay"  # sends them back to their service
    EDIT = "edit"  # replaces one by a corrected one, in the dead-letter queue
    DISCARD = "discard"  # deletes them
    RESTORE = "restore"  # puts archived or exported ones back into the dead-letter queue

    @property
    def done(self) -> str:
        """The outcome of a letter with which this was done."""
        return {"replay": "replayed", "edit": "edited", "discard": "discarded", "restore": "restored"}[self.value]


@unique
class End(StrEnum):
    """How an operation ended."""

    DONE = "done"  # with every letter that was chosen
    PARTIAL = "partial"  # some letters stayed where they were
    STOPPED = "stopped"  # by a safety limit
    NOTHING = "nothing"  # no letter was chosen
    INTERRUPTED = "interrupted"  # by a person or an error; the letters that are left are still in the queue


class _Stored(BaseModel, frozen=True, extra="ignore"):
    """Read by later and by earlier builds, so unknown fields are ignored, and kinds and ends are text."""


class Operation(_Stored):
    """What was asked."""

    id: str  # sorts by time
    kind: str  # a Kind, or what another build calls it
    service: str  # whose dead letters
    operator: str  # the person's name, as they gave it or as they were logged in
    reason: str
    began_at: AwareDatetime
    filter: dict[str, Any] = {}  # that chose the letters; empty: all
    limit: int | None = None  # letters at most
    force: bool = False  # letters that were replayed too often are replayed all the same
    rate: float | None = None  # letters a second
    canary: int = 0  # letters that are sent first, alone


class Ended(_Stored):
    """How an operation ended."""

    at: AwareDatetime
    end: str  # an End, or what another build calls it
    counts: dict[str, int]  # letters: those with which it was done (`replayed`, …), and `left` where they were
    detail: str = ""  # why it ended so
    outcomes: dict[str, tuple[str, ...]] | None = (
        None  # SQS's ids of the letters by `replayed`, …, or the reason why they stayed
    )


class Archived(BaseModel, frozen=True, extra="forbid"):
    """A dead letter as a line of JSON: of the archive, and of what `export` writes and `restore` reads."""

    service: str  # whose dead letter
    message_id: str  # SQS's; a letter that is put back gets another one
    body: str
    attributes: dict[str, str]
    sent_at: AwareDatetime  # when it came into the dead-letter queue


def new_operation_id(at: datetime) -> str:
    """An id that sorts by time; two operations at once get different ones."""
    return f"{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def begun_key(operation: str) -> str:
    """Where what was asked is kept."""
    return f"{BEGUN_PREFIX}{operation}.json"


def ended_key(operation: str) -> str:
    """Where it is kept how the operation ended."""
    return f"{ENDED_PREFIX}{operation}.json"


def archive_prefix(operation: str) -> str:
    """Where the letters of an operation are kept; keys sort by number."""
    return f"{DEAD_LETTERS_PREFIX}archive/{operation}/"


def archive_key(operation: str, number: int) -> str:
    """Where the part `number`, from 0, of an operation's letters is kept."""
    return f"{archive_prefix(operation)}{number:05d}.jsonl"


def to_lines(letters: Iterable[Archived]) -> bytes:
    """The content of an archive object."""
    return "".join(f"{letter.model_dump_json()}\n" for letter in letters).encode()


def from_lines(content: bytes) -> list[Archived]:
    """The letters in an archive object. Raises: ValueError."""
    return [Archived.model_validate_json(line) for line in content.splitlines()]
