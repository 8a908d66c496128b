"""What an operation on dead letters means to do, is doing and has done, in the landing bucket.

dead-letters/begun/ID.json               what was asked, by whom, why
dead-letters/archive/ID/NNNNN.jsonl      the letters as they were
dead-letters/journal/ID/NNNNNNNN.jsonl   a line per step of a letter, in order
dead-letters/resumed/ID/NNNNN.json       who went on with it, and why
dead-letters/ended/ID.json               how it ended; as long as it is missing, the operation can be resumed

No object is ever written twice: two processes at one operation, each with half of the truth, would end it wrongly.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from services.operator.dlq.letters import Archived, Letter
from services.operator.dlq.lock import LockedError
from services.operator.dlq.operation import (
    MAY_CHOOSE,
    End,
    Ended,
    Line,
    Operation,
    Resumption,
    Step,
    now,
    read_ended,
    read_line,
    read_operation,
)
from shared.errors import PermanentError
from shared.object_store import ConflictError, ObjectStore, replace_ours
from shared.stored_documents import read_stored

PREFIX = "dead-letters/"
_BEGUN, _ENDED = f"{PREFIX}begun/", f"{PREFIX}ended/"
_READ_AT_ONCE = 20  # objects
Document = TypeVar("Document")


@dataclass
class Journal:
    """The journal of one operation, which one process at a time writes: whoever has the lock of the queue."""

    objects: ObjectStore
    bucket: str
    operation: Operation
    lines: dict[str, Line] = field(default_factory=dict)  # the last of each letter
    is_chosen: bool = False  # whether it says that all letters were chosen
    stopped: str = ""  # by which safety limit, if one has stopped it
    resumptions: list[Resumption] = field(default_factory=list)
    _steps: Counter[Step] = field(default_factory=Counter)
    _written: int = 0
    _archives: int = 0

    async def begin(self) -> None:
        """Write down what was asked, before anything is done."""
        await self._create(_begun(self.operation.id), self.operation.model_dump_json())

    async def load(self) -> None:
        """Read what another process has written of this operation."""
        journals = await self.objects.keys(self.bucket, self._key("journal", ""))
        archives = await self.objects.keys(self.bucket, self._key("archive", ""))
        async for _, lines in _documents(self.objects, self.bucket, journals, _lines):
            self._note(lines)
        self._written, self._archives = _next_number(journals), _next_number(archives)
        resumed = await self.objects.keys(self.bucket, self._key("resumed", ""))
        self.resumptions = [
            one
            async for _, one in _documents(
                self.objects, self.bucket, resumed, lambda _, body: Resumption.model_validate_json(body)
            )
        ]

    async def go_on(self, operator: str, reason: str) -> None:
        """Write down who goes on, when what was written before is loaded."""
        resumption = Resumption(operator=operator, reason=reason, at=now())
        await self._create(self._key("resumed", f"{len(self.resumptions):05d}.json"), resumption.model_dump_json())
        self.resumptions.append(resumption)

    async def has_ended(self) -> bool:
        """Whether nothing more is to be done."""
        return await self.objects.read(self.bucket, _ended(self.operation.id)) is not None

    async def archive(self, letters: Sequence[Letter]) -> None:
        """Keep letters as they are; then they are ARCHIVED."""
        number = self._archives
        text = "".join(f"{Archived.of(letter).model_dump_json()}\n" for letter in letters)
        await self._create(self._key("archive", f"{number:05d}.jsonl"), text)
        self._archives += 1
        at = now()
        await self.write(Line(letter=letter.id, step=Step.ARCHIVED, at=at, archive=number) for letter in letters)

    async def archived(self, number: int) -> list[Archived]:
        """The letters of an archive object. Raises: PermanentError."""
        key = self._key("archive", f"{number:05d}.jsonl")
        found = await self.objects.read(self.bucket, key)
        if found is None:
            raise PermanentError(
                f"'{self.bucket}/{key}' is gone, and the letters in it; restore a version of it, then try again"
            )
        what, remedy = "archive of dead letters", "restore its former version"
        return read_stored(_archived, f"{self.bucket}/{key}", found.body, what=what, remedy=remedy)

    async def write(self, lines: Iterable[Line]) -> None:
        """Steps, in order; when this returns they are kept. Raises: LockedError when another process goes on with it."""
        new = list(lines)
        if not new:
            return
        text = "".join(f"{line.model_dump_json(exclude_defaults=True)}\n" for line in new)
        await self._create(self._key("journal", f"{self._written:08d}.jsonl"), text)
        self._written += 1
        self._note(new)

    async def reach(self, step: Step, letters: Iterable[str], detail: str = "") -> None:
        """Letters have come to `step`."""
        at = now()
        await self.write(Line(letter=one, step=step, at=at, archive=self._archive_of(one), detail=detail) for one in letters)

    async def skip(self, letters: Iterable[str], why: str) -> None:
        """Letters stay where they are; what was being sent when a process was killed may have been."""
        doubtful = {one: self.lines[one].step is Step.SENDING for one in letters}
        await self.reach(Step.SKIPPED, [one for one, in_doubt in doubtful.items() if not in_doubt], why)
        await self.reach(Step.SKIPPED, [one for one, in_doubt in doubtful.items() if in_doubt], f"may have been sent; {why}")

    async def choose_no_more(self) -> None:
        """All letters are chosen: whatever arrives from now on is none of this operation's."""
        await self.write([Line(letter="", step=Step.PLANNED, at=now())])

    async def stop(self, why: str) -> None:
        """A safety limit: nothing more is sent, whoever goes on."""
        await self.write([Line(letter="", step=Step.SKIPPED, at=now(), detail=why)])

    async def end(self, end: End, detail: str = "") -> Ended:
        """Nothing more will be done."""
        ended = Ended(at=now(), end=end, counts=self.counts, detail=detail)
        await self._create(_ended(self.operation.id), ended.model_dump_json())
        return ended

    @property
    def counts(self) -> dict[str, int]:
        """Letters by their last step."""
        return {step.value: count for step, count in self._steps.items() if count}

    def count(self, step: Step) -> int:
        """Letters whose last step is this one."""
        return self._steps[step]

    def at(self, *steps: Step) -> list[str]:
        """The letters whose last step is one of these."""
        return [one for one, line in self.lines.items() if line.step in steps]

    def _archive_of(self, letter: str) -> int | None:
        known = self.lines.get(letter)
        return None if known is None else known.archive

    def _note(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if not line.letter:
                self.is_chosen = True
                self.stopped = line.detail
                continue
            known = self.lines.get(line.letter)
            if known is not None:
                self._steps[known.step] -= 1
            self._steps[line.step] += 1
            self.lines[line.letter] = line

    def _key(self, what: str, name: str) -> str:
        return f"{PREFIX}{what}/{self.operation.id}/{name}"

    async def _create(self, key: str, text: str) -> None:
        try:
            await replace_ours(self.objects, self.bucket, key, text.encode(), expected=None)
        except ConflictError as error:
            text = f"somebody else goes on with operation {self.operation.id}; `starlift dlq audit` says how it ended"
            raise LockedError(text) from error


def _begun(operation: str) -> str:
    return f"{_BEGUN}{operation}.json"


def _ended(operation: str) -> str:
    return f"{_ENDED}{operation}.json"


def _operation(key: str, body: bytes) -> Operation:
    return read_operation(key.removeprefix(_BEGUN).removesuffix(".json"), body)


def _next_number(keys: Sequence[str]) -> int:
    names = (key.rpartition("/")[2].removesuffix(".jsonl") for key in keys)
    return max((int(name) for name in names if name.isdecimal()), default=-1) + 1


def _lines(_key: str, body: bytes) -> list[Line]:
    return [read_line(line) for line in body.splitlines()]


def _archived(body: bytes) -> list[Archived]:
    return [Archived.model_validate_json(line) for line in body.splitlines()]


async def _documents(
    objects: ObjectStore, bucket: str, keys: Sequence[str], parse: Callable[[str, bytes], Document]
) -> AsyncIterator[tuple[str, Document]]:
    """Yield each key with the result of `parse`, in order; several objects are read at once.

    Raises: DamagedDocumentError.
    """
    remedy = "restore its former version, or delete it: its letters may then be sent twice, which is harmless"
    for start in range(0, len(keys), _READ_AT_ONCE):
        some = keys[start : start + _READ_AT_ONCE]
        found = await asyncio.gather(*(objects.read(bucket, key) for key in some))
        for key, one in zip(some, found, strict=True):
            if one is not None:
                what = "document about dead letters"
                yield key, read_stored(partial(parse, key), f"{bucket}/{key}", one.body, what=what, remedy=remedy)


async def operations(objects: ObjectStore, bucket: str) -> list[tuple[Operation, Ended | None]]:
    """Every operation, oldest first, with how it ended; None: it has not, it runs or was interrupted."""
    begun = await objects.keys(bucket, _BEGUN)
    endings = await objects.keys(bucket, _ENDED)
    ended = {key: one async for key, one in _documents(objects, bucket, endings, lambda _, body: read_ended(body))}
    found = [one async for _, one in _documents(objects, bucket, begun, _operation)]
    return sorted(((one, ended.get(_ended(one.id))) for one in found), key=lambda pair: (pair[0].began_at, pair[0].id))


async def unended(objects: ObjectStore, bucket: str) -> list[Operation]:
    """The operations that have not ended: they run, or were interrupted."""
    ended = set(await objects.keys(bucket, _ENDED))
    begun = [key for key in await objects.keys(bucket, _BEGUN) if key.replace(_BEGUN, _ENDED) not in ended]
    return [one async for _, one in _documents(objects, bucket, begun, _operation)]


async def doubts(objects: ObjectStore, bucket: str, service: str, but: str = "") -> dict[str, str]:
    """Why letters of a service must be left alone: an operation that has not ended may have sent them, and will delete them.

    `but` is the id of an operation that knows what it has sent.
    """
    found: dict[str, str] = {}
    for operation in await unended(objects, bucket):
        if operation.service == service and operation.kind in MAY_CHOOSE and operation.id != but:
            journal = Journal(objects, bucket, operation)
            await journal.load()
            because = f"operation {operation.id} may have sent it; `starlift dlq resume {operation.id}` first"
            found |= dict.fromkeys(journal.at(Step.SENDING, Step.SENT), because)
    return found
