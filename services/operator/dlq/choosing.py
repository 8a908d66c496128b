"""Which letters an operation is about: chosen once, archived, and written down before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services.operator.dlq.filters import Filter
from services.operator.dlq.hold import Hold, holding
from services.operator.dlq.journal import LAST, Journal, Kind, Line, Operation, Step
from services.operator.dlq.letters import Letter, now, read_letter
from services.operator.system import System

REPLAYS_MAXIMUM = 3  # of one message, without force
ARCHIVE_LETTERS = 200  # in one object
ARCHIVE_BYTES = 4 * 1024 * 1024  # likewise: what is in memory at once


def reason_to_skip(letter: Letter, *, force: bool) -> str | None:
    """Why a letter is not replayed; None: it is."""
    if letter.problem is not None:
        return letter.problem
    if letter.failure.replays >= REPLAYS_MAXIMUM and not force:
        return f"it was replayed {letter.failure.replays} times already; find out why it dies, or use --force"
    return None


async def matching(system: System, service: str, chosen: Filter, limit: int | None = None) -> AsyncIterator[Letter]:
    """The letters of a service that `chosen` matches, one by one; whoever stops asking hands them all back."""
    count = 0
    async with holding(system.dead_letters[service]) as hold:
        async for delivery in hold.letters():
            letter = read_letter(service, delivery)
            if chosen.matches(letter):
                count += 1
                yield letter
            if limit is not None and count >= limit:
                return


@dataclass
class Choice:
    """Takes an operation's letters in hand, chooses and archives those that are new to it, and hands the others back."""

    operation: Operation
    journal: Journal
    hold: Hold
    _others: list[str] = field(default_factory=list)
    _skipped: list[Line] = field(default_factory=list)
    _letters: list[Letter] = field(default_factory=list)
    _byte_count: int = 0

    async def make(self, *, resumed: bool) -> None:
        """Every letter that the operation's filter matches; once all are chosen, those that the journal names."""
        async for delivery in self.hold.letters(patient=resumed):
            self._consider(read_letter(self.operation.service, delivery))
            if len(self._letters) + len(self._skipped) >= ARCHIVE_LETTERS or self._byte_count >= ARCHIVE_BYTES:
                await self._write()
        await self._write()
        if not self.journal.is_chosen:
            await self.journal.choose_no_more()
        await self.hold.hand_back(self._others)
        await self._miss()

    def _consider(self, letter: Letter) -> None:
        known = self.journal.lines.get(letter.id)
        if known is not None:
            if known.step is Step.PLANNED:
                self._letters.append(letter)
            elif known.step in LAST:
                self._others.append(letter.id)
            return
        if self.journal.is_chosen or self._is_full() or not self.operation.filter.matches(letter):
            self._others.append(letter.id)
            return
        reason = reason_to_skip(letter, force=self.operation.force) if self.operation.kind is Kind.REPLAY else None
        if reason is None:
            self._letters.append(letter)
            self._byte_count += len(letter.delivery.body)
        else:
            self._skipped.append(Line(letter=letter.id, step=Step.SKIPPED, at=now(), detail=reason))
            self._others.append(letter.id)

    def _is_full(self) -> bool:
        chosen = len(self.journal.lines) + len(self._letters) + len(self._skipped)
        return self.operation.limit is not None and chosen >= self.operation.limit

    async def _write(self) -> None:
        planned = [Line(letter=letter.id, step=Step.PLANNED, at=now()) for letter in self._letters]
        await self.journal.write([*self._skipped, *planned])
        if self._letters:
            await self.journal.archive(self._letters)
        self._skipped, self._letters, self._byte_count = [], [], 0

    async def _miss(self) -> None:
        """Write down what has become of the letters that were chosen before an interruption, and are not to be found."""
        gone = {one: line.step for one, line in self.journal.lines.items() if one not in self.hold.receipts}
        deleted = [one for one, step in gone.items() if step is Step.SENT]
        await self.journal.reach(Step.DELETED, deleted, "was no longer there")
        missed = [one for one, step in gone.items() if step not in LAST and step is not Step.SENT]
        await self.journal.reach(Step.SKIPPED, missed, "is no longer there, or somebody else has it in hand")
