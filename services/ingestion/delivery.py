"""Deliveries, in which the rows of a data set come: a file of the drop zone, or all pages of one fetch from an API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

from contracts.datasets import Contents
from contracts.files import Outcome
from contracts.state import DatasetState
from contracts.tables import SourceTable


class UnreadableDeliveryError(Exception):
    """A delivery can't be taken at all; its text says why and what to do. Recovery: a person corrects it and delivers again."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, not yet typed."""

    place: int  # its line in a text; otherwise its number, from 1
    values: Mapping[str, object]  # by column: texts of CSV; what JSON has, with numbers exact (int, Decimal)


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that can't be read, not even its key."""

    place: int
    reason: str  # the rest of a sentence that begins with the place: "has 3 fields instead of 5"
    text: str = ""  # its beginning, for the quarantine


class Delivery(Protocol):
    """Something that waits to be taken."""

    @property
    def table(self) -> SourceTable:
        """The data set."""
        ...

    @property
    def name(self) -> str:
        """What people call it: the key of a file, the path of a request."""
        ...

    @property
    def contents(self) -> Contents:
        """Whether it has every row."""
        ...

    def records(self) -> AsyncGenerator[list[Record | BadRecord], None]:
        """Its records, some at a time, in bounded memory.

        Raises: UnreadableDeliveryError; TransientError, DependencyDownError.
        """
        ...

    def state(self) -> DatasetState:
        """What the next delivery of the data set begins after; known once `records` has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a delivery."""

    run: int | None  # that took it; None: it was refused or changed nothing
    records: int = 0
    bad: int = 0  # records that are in quarantine
    reason: str | None = None  # why it was refused, why it changed nothing, or why a whole snapshot was taken as an increment
    is_unchanged: bool = False  # it says what the delivery before it said

    @property
    def outcome(self) -> Outcome:
        """In one word."""
        return Outcome.UNCHANGED if self.is_unchanged else Outcome.REFUSED if self.run is None else Outcome.TAKEN


class Deliveries(Protocol):
    """Where the deliveries of a source come from. Called under the source's lease only."""

    async def next(self, known: Mapping[str, DatasetState]) -> Delivery | None:
        """The next one that waits, in the order in which they are taken; `known` is what the last run left, by data set.

        Runs ask until there is none. One that is neither settled nor refused is returned again.
        """
        ...

    async def settle(self, delivery: Delivery, taken: Taken) -> None:
        """Record what became of a delivery, so that it no longer waits. Safe to repeat."""
        ...
