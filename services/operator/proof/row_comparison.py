"""Two streams of rows, ordered by key, compared side by side in bounded memory. Pure: async iterators in, findings out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from services.operator.proof.canonical import ORPHAN
from services.operator.wording import printable
from shared.source_keys import Key

Values = tuple[str | None, ...]
LOOKED_UP_AT_ONCE = 100_000  # keys that only the warehouse has, looked up in the ledger together
NAMED_MAXIMUM = 10_000  # rows of one table that differ, or wait; any others are only counted


@unique
class Wait(StrEnum):
    """What brings a row that differs."""

    RUN = "run"  # the next run: the row was written after the last one began
    BATCH = "batch"  # a batch that was announced and is not loaded
    COMPARISON = (
        "comparison"  # the next comparison of keys, or an answer to it: the row, or its partner, was deleted at the source
    )
    EMPTY = "empty"  # a person's decision: the source table has no row left
    DELIVERY = "delivery"  # a person: what a run has delivered is not known
    KEY = "key"  # the loader: the table's unique key was dropped, so a row may be in it twice


@dataclass(frozen=True, slots=True)
class Cause:
    """What a row waits for. It is *in flight* while that is on its way, and *stuck* once that is late or needs a person."""

    wait: Wait
    reason: str = ""  # of a stuck row: what it waits for, and what to do
    is_assumed: bool = False  # the row's transaction ids are not known: it may be new, or not

    @property
    def is_stuck(self) -> bool:
        """Whether the row is late, or will not arrive without a person."""
        return bool(self.reason)

    @property
    def may_pass(self) -> bool:
        """Whether a run that is loaded in the next seconds may bring the row."""
        return not self.is_stuck or self.wait is Wait.RUN


@unique
class Mismatch(StrEnum):
    """How a row differs."""

    MISSING = "missing"  # in the source, not in the warehouse
    EXTRA = "extra"  # in the warehouse, not in the source
    DIFFERENT = "different"  # in both, not equal


@dataclass(frozen=True, slots=True)
class Row:
    """A star row in its canonical form, of either side."""

    key: Key
    values: Values  # every value's text in the order of the table's columns; None for NULL
    cause: Cause | None = None  # why the warehouse may not have the row
    stamp: str = ""  # changes whenever the row is written; ORPHAN in it marks a partner that is gone

    @property
    def is_orphan(self) -> bool:
        """Whether the source lacks a row that it is joined from."""
        return ORPHAN in self.stamp


@dataclass(frozen=True, slots=True)
class Both:
    """The canonical texts of a column that differs; None for NULL."""

    expected: str | None
    actual: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that differs."""

    kind: Mismatch
    key: Key
    columns: dict[str, Both] = field(default_factory=dict)  # the columns that differ, if the row is in both

    def __str__(self) -> str:
        """Which row, and for each column that differs what was expected and what was found."""
        key = ", ".join(map(printable, self.key))
        columns = "; ".join(f"{name}: expected {both.expected!r}, found {both.actual!r}" for name, both in self.columns.items())
        return f"{key} is {self.kind}" + (f" ({columns})" if columns else "")


@dataclass(frozen=True, slots=True)
class LastRefusal:
    """The last run from which the warehouse could not hold a row."""

    run: int  # the run that read the row
    horizon: int | None = None  # that run's horizon, known once a later run is loaded


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A row that waits."""

    stamp: str  # of the source's row at the first look
    is_missing: bool  # whether the warehouse had no row of this key


@dataclass
class TableFindings:
    """What is found of one table while its rows are compared; sums are of rows."""

    table: str
    expected: int = 0  # in the source
    actual: int = 0  # in the warehouse
    waiting: Counter[Cause] = field(default_factory=Counter)  # rows that differ for a cause
    quarantined: int = 0  # rows that the warehouse could not hold
    differences: list[Difference] = field(default_factory=list)  # all others that differ, up to NAMED_MAXIMUM
    unnamed: int = 0  # those beyond NAMED_MAXIMUM
    digest: str = ""  # a hash over all compared rows of the source
    waiting_rows: dict[Key, WaitingRow] = field(default_factory=dict)  # rows that wait, up to NAMED_MAXIMUM
    deleted: set[Key] = field(default_factory=set)  # rows that the source no longer has, up to NAMED_MAXIMUM

    @property
    def stuck(self) -> int:
        """How many rows wait for something that is late or needs a person."""
        return sum(count for cause, count in self.waiting.items() if cause.is_stuck)

    @property
    def in_flight(self) -> int:
        """How many rows wait for something that is on its way."""
        return self.waiting.total() - self.stuck

    @property
    def different(self) -> int:
        """How many rows differ for no known cause."""
        return len(self.differences) + self.unnamed

    def add_difference(self, difference: Difference) -> None:
        """Count a row that differs for no known cause."""
        if len(self.differences) < NAMED_MAXIMUM:
            self.differences.append(difference)
        else:
            self.unnamed += 1

    def add_deleted(self, key: Key, cause: Cause) -> None:
        """Count a row that was deleted at the source since keys were compared."""
        self.waiting[cause] += 1
        if len(self.deleted) < NAMED_MAXIMUM:
            self.deleted.add(key)

    def add_mismatch(self, difference: Difference, row: Row, cause: Cause | None, refused: Mapping[Key, LastRefusal]) -> None:
        """Count a row that is not as in the source: it waits for `cause`, is in quarantine, or differs."""
        in_quarantine = is_in_quarantine(row, refused)
        # Quarantine outranks the cause of an orphan: most such rows are refused because of their lost partner. It also outranks
        # an assumption, as long as no later run is loaded: each of them reads such a row again.
        is_recent = row.key in refused and refused[row.key].horizon is None
        if cause is not None and not (in_quarantine and (row.is_orphan or (cause.is_assumed and is_recent))):
            self.waiting[cause] += 1
            if len(self.waiting_rows) < NAMED_MAXIMUM:
                self.waiting_rows[row.key] = WaitingRow(row.stamp, difference.kind is Mismatch.MISSING)
        elif in_quarantine:
            self.quarantined += 1
        else:
            self.add_difference(difference)


Explained = Callable[[Collection[Key]], Awaitable[Mapping[Key, Cause | None]]]


async def compare(
    findings: TableFindings,
    expected: AsyncIterator[Row],
    actual: AsyncIterator[Row],
    columns: tuple[str, ...],
    refused: Mapping[Key, LastRefusal],
    explained: Explained,
) -> None:
    """Walk both streams, ordered by key, side by side, and add what is found to `findings`.

    `explained` returns those of the keys missing at the source whose rows loads have made, with what each waits for: None for
    an inferred member, which stands for a row that is not there.
    """
    extra: list[Key] = []
    last: Key | None = None  # of the source
    async for left, right in _side_by_side(expected, actual):
        findings.expected += left is not None
        findings.actual += right is not None
        last = last if left is None else left.key
        if left is None and right is not None:
            if right.key == last:  # there twice, which no delete explains
                findings.add_difference(Difference(Mismatch.EXTRA, right.key))
            elif right.cause is not None:
                findings.add_deleted(right.key, right.cause)
            else:
                extra.append(right.key)
                if len(extra) == LOOKED_UP_AT_ONCE:
                    await _judge_extra(findings, extra, explained)
                    extra = []
        elif left is not None and (right is None or left.values != right.values):
            cause = left.cause or (right.cause if right is not None else None)
            findings.add_mismatch(difference_of(left, right, columns), left, cause, refused)
    await _judge_extra(findings, extra, explained)
    findings.differences.sort(key=lambda difference: difference.key)


async def _judge_extra(findings: TableFindings, extra: list[Key], explained: Explained) -> None:
    causes = await explained(extra) if extra else {}
    for key in extra:
        if key not in causes:
            findings.add_difference(Difference(Mismatch.EXTRA, key))
        elif (cause := causes[key]) is not None:
            findings.add_deleted(key, cause)
        else:
            findings.actual -= 1


async def _side_by_side(
    expected: AsyncIterator[Row], actual: AsyncIterator[Row]
) -> AsyncIterator[tuple[Row | None, Row | None]]:
    """Rows of equal keys in pairs; a row without its equal is paired with None."""
    left, right = await anext(expected, None), await anext(actual, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key < right.key):
            yield left, None
            left = await anext(expected, None)
        elif left is None or right.key < left.key:
            yield None, right
            right = await anext(actual, None)
        else:
            yield left, right
            left, right = await anext(expected, None), await anext(actual, None)


def is_in_quarantine(row: Row, refused: Mapping[Key, LastRefusal]) -> bool:
    """Whether the row is still in quarantine.

    A row that was written, or whose partner was, at or above the horizon of the run that refused it was read again by a later
    run. If that is loaded, and has not refused it, the warehouse had the row once and has lost it since.
    """
    refusal = refused.get(row.key)
    if refusal is None or refusal.horizon is None:
        return refusal is not None
    return not any(_is_reached(refusal.horizon, int(number)) for number in re.findall(r"\d+", row.stamp))


def _is_reached(horizon: int, number: int) -> bool:
    """Of 32 bits of a transaction id, which wrap around, half count as at or above the horizon; runs have more, and don't."""
    return number >= horizon if number >= 2**32 else (number - horizon) % 2**32 < 2**31


def difference_of(expected: Row, actual: Row | None, columns: tuple[str, ...]) -> Difference:
    """How a row of the warehouse differs from what it should be: it is missing, or some columns have other values."""
    if actual is None:
        return Difference(Mismatch.MISSING, expected.key)
    pairs = zip(columns, expected.values, actual.values, strict=True)
    return Difference(Mismatch.DIFFERENT, expected.key, {name: Both(*both) for name, *both in pairs if both[0] != both[1]})
