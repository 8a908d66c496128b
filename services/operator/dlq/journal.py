"""What an operation on dead letters means to do, is doing and has done, in the landing bucket.

dead-letters/operations/ID/begun.json          what was asked, by whom, why
dead-letters/operations/ID/archive/NNNNN.jsonl the letters as they were
dead-letters/operations/ID/journal/NNNNNNNN.jsonl  a line per step of a letter, in order
dead-letters/operations/ID/ended.json          how it ended; as long as it is missing, the operation can be resumed
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.operator.dlq.filters import Filter
from services.operator.dlq.letters import Archived, Letter, now
from shared.object_store import ObjectStore

PREFIX = "dead-letters/operations/"
_READ_AT_ONCE = 20  # objects of a journal


@unique
class Step(StrEnum):
    """How far a letter has come. Written before what it announces or after what it reports: see docs/decisions/0007."""

    PLANNED = "planned"  # chosen
    ARCHIVED = "archived"  # kept, with its body
    SENDING = "sending"  # may have been sent
    SENT = "sent"  # has been sent
    DELETED = "deleted"  # is no longer in the dead-letter queue: done
    FAILED = "failed"  # SQS did not take it; it is still in the dead-letter queue
    SKIPPED = "skipped"  # was not to be sent; it is still in the dead-letter queue


LAST = frozenset({Step.DELETED, Step.FAILED, Step.SKIPPED})


@unique
class Kind(StrEnum):
    """What an operation does with the letters it chose."""

    REPLAY = "replay"
    EDIT = "edit"
    DISCARD = "discard"
    RESTORE = "restore"  # back into the dead-letter queue, from an archive; nothing to be resumed
    NATIVE = "native"  # SQS's own move task; likewise


@unique
class End(StrEnum):
    """How an operation ended."""

    DONE = "done"
    PARTIAL = "partial"  # some letters stayed
    STOPPED = "stopped"  # a safety limit
    NOTHING = "nothing"  # no letter was chosen


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


class Ended(_Stored):
    """How it ended: letters by their last step, and why it stopped, if it did."""

    at: AwareDatetime
    end: End
    counts: dict[str, int]
    detail: str = ""


class Line(_Stored):
    """One step of one letter. `archive` is the number of the archive object that has it; an empty `letter`: all were chosen."""

    letter: str
    step: Step
    at: AwareDatetime
    archive: int | None = None
    detail: str = ""


@dataclass
class Journal:
    """The journal of one operation, which one process at a time writes: whoever has the lock of the queue."""

    objects: ObjectStore
    bucket: str
    operation: Operation
    lines: dict[str, Line] = field(default_factory=dict)  # the last of each letter
    is_chosen: bool = False  # whether it says that all letters were chosen
    _written: int = 0
    _archives: int = 0

    async def begin(self) -> None:
        """Write down what was asked, before anything is done."""
        await self.objects.put(self.bucket, self._key("begun.json"), self.operation.model_dump_json().encode())

    async def archive(self, letters: Sequence[Letter]) -> None:
        """Keep letters as they are; then they are ARCHIVED."""
        number = self._archives
        body = "".join(f"{Archived.of(letter).model_dump_json()}\n" for letter in letters)
        await self.objects.put(self.bucket, self._key(f"archive/{number:05d}.jsonl"), body.encode())
        self._archives += 1
        await self.write(Line(letter=letter.id, step=Step.ARCHIVED, at=now(), archive=number) for letter in letters)

    async def archived(self, number: int) -> list[Archived]:
        """The letters of an archive object."""
        found = await self.objects.read(self.bucket, self._key(f"archive/{number:05d}.jsonl"))
        return [] if found is None else [Archived.model_validate_json(line) for line in found.body.splitlines()]

    async def write(self, lines: Iterable[Line]) -> None:
        """Steps, in order; when this returns they are kept."""
        new = list(lines)
        if not new:
            return
        body = "".join(f"{line.model_dump_json(exclude_defaults=True)}\n" for line in new)
        await self.objects.put(self.bucket, self._key(f"journal/{self._written:08d}.jsonl"), body.encode())
        self._written += 1
        self._note(new)

    async def reach(self, step: Step, letters: Iterable[str], detail: str = "") -> None:
        """Letters have come to `step`."""
        at = now()
        await self.write([Line(letter=one, step=step, at=at, archive=self._archive_of(one), detail=detail) for one in letters])

    async def choose_no_more(self) -> None:
        """All letters are chosen: whatever arrives from now on is none of this operation's."""
        await self.write([Line(letter="", step=Step.PLANNED, at=now())])

    async def end(self, end: End, detail: str = "") -> Ended:
        """Nothing more will be done."""
        ended = Ended(at=now(), end=end, counts=self.counts, detail=detail)
        await self.objects.put(self.bucket, self._key("ended.json"), ended.model_dump_json().encode())
        return ended

    @property
    def counts(self) -> dict[str, int]:
        """Letters by their last step."""
        return dict(Counter(line.step.value for line in self.lines.values()))

    def at(self, *steps: Step) -> list[str]:
        """The letters whose last step is one of these."""
        return [one for one, line in self.lines.items() if line.step in steps]

    def _archive_of(self, letter: str) -> int | None:
        known = self.lines.get(letter)
        return None if known is None else known.archive

    def _note(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if line.letter:
                self.lines[line.letter] = line
            else:
                self.is_chosen = True

    def _key(self, name: str) -> str:
        return f"{PREFIX}{self.operation.id}/{name}"

    async def load(self) -> None:
        """Read what another process has written of this operation."""
        journals = await self.objects.keys(self.bucket, self._key("journal/"))
        archives = await self.objects.keys(self.bucket, self._key("archive/"))
        async for body in _bodies(self.objects, self.bucket, journals):
            self._note(Line.model_validate_json(line) for line in body.splitlines())
        self._written, self._archives = _next_number(journals), _next_number(archives)


def _next_number(keys: Sequence[str]) -> int:
    return int(keys[-1].rpartition("/")[2].removesuffix(".jsonl")) + 1 if keys else 0


async def _bodies(objects: ObjectStore, bucket: str, keys: Sequence[str]) -> AsyncIterator[bytes]:
    """The bodies of objects, in order, several asked for at once."""
    for start in range(0, len(keys), _READ_AT_ONCE):
        found = await asyncio.gather(*(objects.read(bucket, key) for key in keys[start : start + _READ_AT_ONCE]))
        for one in found:
            if one is not None:
                yield one.body


async def operations(objects: ObjectStore, bucket: str) -> list[tuple[Operation, Ended | None]]:
    """Every operation, oldest first, with how it ended; None: it has not, it runs or can be resumed."""
    keys = await objects.keys(bucket, PREFIX)
    endings = {key.split("/")[2]: key for key in keys if key.endswith("/ended.json")}
    begun = [key for key in keys if key.endswith("/begun.json")]
    found: list[tuple[Operation, Ended | None]] = []
    async for body in _bodies(objects, bucket, begun):
        operation = Operation.model_validate_json(body)
        found.append((operation, await _ended(objects, bucket, endings.get(operation.id))))
    return sorted(found, key=lambda pair: (pair[0].began_at, pair[0].id))


async def _ended(objects: ObjectStore, bucket: str, key: str | None) -> Ended | None:
    found = None if key is None else await objects.read(bucket, key)
    return None if found is None else Ended.model_validate_json(found.body)
