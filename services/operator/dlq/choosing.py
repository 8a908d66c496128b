"""Which letters an operation is about: chosen once, archived, and written down before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from services.operator.dlq.filters import Filter
from services.operator.dlq.hold import PATIENCE, VISIBILITY_MAXIMUM, Hold, holding
from services.operator.dlq.journal import Journal
from services.operator.dlq.letters import Letter, read_letter
from services.operator.dlq.lock import LockedError
from services.operator.dlq.operation import UNFINISHED, Kind, Line, Operation, Step, now
from services.operator.system import System
from shared.errors import PermanentError
from shared.queue import require_sendable

REPLAYS_MAXIMUM = 3  # of one message, without force
ARCHIVE_LETTERS = 200  # in one object
ARCHIVE_BYTES = 4 * 1024 * 1024  # likewise: what is in memory at once
LOST = "is no longer there, or somebody else has it in hand"


def reason_to_skip(letter: Letter, *, force: bool) -> str | None:
    """Why a letter is not replayed; None: it is."""
    if letter.problem is not None:
        return letter.problem
    if letter.failure.replays >= REPLAYS_MAXIMUM and not force:
        return f"it was replayed {letter.failure.replays} times already; find out why it dies, or use --force"
    outgoing = letter.outgoing
    try:
        require_sendable(letter.service, outgoing.body, timedelta(0), outgoing.attributes)
    except PermanentError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Matching:
    """The letters of a service that `chosen` matches, `limit` of them at most, one by one."""

    service: str
    chosen: Filter
    limit: int | None
    hold: Hold

    async def __aiter__(self) -> AsyncIterator[Letter]:
        """Look once."""
        count = 0
        async for delivery in self.hold.letters():
            letter = read_letter(self.service, delivery)
            if self.chosen.matches(letter):
                yield letter
                count += 1
                if count == self.limit:
                    return

    @property
    def elsewhere(self) -> int:
        """How many others had in hand when we had looked at all, so that nobody knows whether they match."""
        return self.hold.elsewhere


@asynccontextmanager
async def matching(system: System, service: str, chosen: Filter, limit: int | None = None) -> AsyncIterator[Matching]:
    """The letters of a service that `chosen` matches; at the end they are handed back."""
    async with holding(system.dead_letters[service]) as hold:
        yield Matching(service, chosen, limit, hold)


@dataclass
class Choice:
    """Takes an operation's letters in hand, chooses and archives those that are new to it, and hands the others back.

    `doubts` are letters that another operation may have sent, with what is to be told of them.
    """

    operation: Operation
    journal: Journal
    hold: Hold
    doubts: Mapping[str, str]
    _wanted: set[str] = field(default_factory=set)  # chosen before an interruption, and not found yet
    _count: int = 0
    _skipped: list[Line] = field(default_factory=list)
    _letters: list[Letter] = field(default_factory=list)
    _byte_count: int = 0

    async def make(self, *, resumed: bool) -> int:
        """Every letter that the operation's filter matches; once all are chosen, those that the journal names.

        How many others still had in hand, so that nobody knows whether they match. Raises: LockedError.
        """
        self._wanted = set(self.journal.at(*UNFINISHED))
        self._count = len(self.journal.lines)
        # A killed process hides its letters for longer than a colleague looks at them.
        elsewhere = await self._search(patience=VISIBILITY_MAXIMUM if resumed else PATIENCE)
        await self._write()
        if not self.journal.is_chosen:
            await self.journal.choose_no_more()
        for why in set(self.doubts.values()):  # somebody may have sent them since they were chosen
            await self.journal.skip([one for one in self.journal.at(Step.ARCHIVED) if self.doubts.get(one) == why], why)
        ours = set(self.journal.at(*UNFINISHED))
        await self.hold.hand_back(one for one in self.hold if one not in ours)
        await self._miss(elsewhere)
        return elsewhere

    async def _search(self, patience: timedelta) -> int:
        if self._has_all():
            return 0
        async for delivery in self.hold.letters(patience=patience):
            self._consider(read_letter(self.operation.service, delivery))
            if len(self._letters) + len(self._skipped) >= ARCHIVE_LETTERS or self._byte_count >= ARCHIVE_BYTES:
                await self._write()
            if self._has_all():
                return 0
        return self.hold.elsewhere

    def _has_all(self) -> bool:
        return not self._wanted and (self.journal.is_chosen or self._is_full())

    def _is_full(self) -> bool:
        return self.operation.limit is not None and self._count >= self.operation.limit

    def _consider(self, letter: Letter) -> None:
        self._wanted.discard(letter.id)
        known = self.journal.lines.get(letter.id)
        if known is not None:
            if known.step is Step.PLANNED:
                self._take(letter)
        elif not self.journal.is_chosen and not self._is_full() and self.operation.filter.matches(letter):
            self._count += 1
            reason = self.doubts.get(letter.id)
            if reason is None and self.operation.kind is Kind.REPLAY:
                reason = reason_to_skip(letter, force=self.operation.force)
            if reason is None:
                self._take(letter)
            else:
                self._skipped.append(Line(letter=letter.id, step=Step.SKIPPED, at=now(), detail=reason))

    def _take(self, letter: Letter) -> None:
        self._letters.append(letter)
        self._byte_count += len(letter.delivery.body)

    async def _write(self) -> None:
        planned = [Line(letter=letter.id, step=Step.PLANNED, at=now()) for letter in self._letters]
        await self.journal.write([*self._skipped, *planned])
        if self._letters:
            await self.journal.archive(self._letters)
        self._skipped, self._letters, self._byte_count = [], [], 0

    async def _miss(self, elsewhere: int) -> None:
        """Write down what has become of letters that are not in hand. Raises: LockedError."""
        if self.operation.kind is Kind.DISCARD:  # what was not found when it went on may be archived, deleted, not reported
            unseen = [one for one in self.journal.at(Step.ARCHIVED) if one in self._wanted]
            if unseen and elsewhere:
                raise out_of_reach(self.operation, len(unseen))
            await self.journal.reach(Step.DELETED, unseen, "was no longer there")
        unsent = self.journal.at(Step.PLANNED, Step.ARCHIVED, Step.SENDING)
        await self.journal.skip([one for one in unsent if one not in self.hold], LOST)


def out_of_reach(operation: Operation, count: int) -> LockedError:
    """The error when others have letters in hand that are to be deleted, or were, and nobody knows."""
    return LockedError(
        f"{count} letters of {operation.service} are to be deleted, and somebody else has them in hand; "
        f"`starlift dlq resume {operation.id}` does it later"
    )
