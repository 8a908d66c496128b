"""Comparing two ordered streams of rows, in bounded memory. Pure: async iterators in, differences out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Any

Key = tuple[Any, ...]
Values = tuple[str | None, ...]
LISTED_AT_ONCE = 100_000  # keys that only the warehouse has: looked up in the last key list together
ORPHAN = "gone"
NAMED_MAXIMUM = 10_000  # of the rows of one table that differ, or are in flight: the others are only counted


@unique
class Kind(StrEnum):
    """How a row differs."""

    MISSING = "missing"  # in the source, not in the warehouse
    EXTRA = "extra"  # in the warehouse, not in the source
    DIFFERENT = "different"  # in both, not equal


@dataclass(frozen=True, slots=True)
class Row:
    """A star row: its key and every value in its canonical text, None for NULL; `version` changes whenever it is written.

    ORPHAN stands there for a partner that is gone.
    """

    key: Key
    values: Values
    in_flight: bool = False
    version: str = ""

    @property
    def is_orphan(self) -> bool:
        """Whether the source lacks a row that it is joined from."""
        return ORPHAN in self.version


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that differs; `columns` maps each differing column to (expected, actual)."""

    kind: Kind
    key: Key
    columns: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last time that the warehouse could not hold a row: in run `run`, whose horizon is known if a later run is loaded."""

    run: int
    horizon: int | None = None


@dataclass(frozen=True, slots=True)
class Awaited:
    """A row in flight: its version in the source, and whether the warehouse had no such row at all."""

    version: str
    is_missing: bool


@dataclass
class TableVerdict:
    """What the comparison of one table found. `in_flight` and `quarantined` rows differ for a reason that is known.

    The others are named, up to NAMED_MAXIMUM; `unnamed` counts the rest. `awaited` are rows in flight, `deleted` those that the
    source has no longer. `digest` is a hash over all rows of the source that were compared.
    """

    table: str
    expected: int = 0
    actual: int = 0
    in_flight: int = 0
    quarantined: int = 0
    differences: list[Difference] = field(default_factory=list)
    unnamed: int = 0
    digest: str = ""
    awaited: dict[Key, Awaited] = field(default_factory=dict)
    deleted: set[Key] = field(default_factory=set)

    @property
    def different(self) -> int:
        """How many rows differ for no reason that is known."""
        return len(self.differences) + self.unnamed

    @property
    def is_equal(self) -> bool:
        """Whether every row that should be equal is."""
        return not self.different

    def differs(self, difference: Difference) -> None:
        """One row more that differs."""
        if len(self.differences) < NAMED_MAXIMUM:
            self.differences.append(difference)
        else:
            self.unnamed += 1

    def is_awaited(self, row: Row, *, is_missing: bool) -> None:
        """One row more that is in flight."""
        self.in_flight += 1
        if len(self.awaited) < NAMED_MAXIMUM:
            self.awaited[row.key] = Awaited(row.version, is_missing)

    def is_deleted(self, key: Key) -> None:
        """One row more that is gone from the source since keys were compared: in flight until they are again."""
        self.in_flight += 1
        if len(self.deleted) < NAMED_MAXIMUM:
            self.deleted.add(key)


Listed = Callable[[Collection[Key]], Awaitable[set[Key]]]


async def nothing_listed(_keys: Collection[Key]) -> set[Key]:
    """Keys were never compared."""
    return set()


async def compare(
    verdict: TableVerdict,
    expected: AsyncIterator[Row],
    actual: AsyncIterator[Row],
    columns: tuple[str, ...],
    refused: Mapping[Key, Refusal] = MappingProxyType({}),
    listed: Listed = nothing_listed,
) -> TableVerdict:
    """Walk both streams, ordered by key, side by side, and put what is found into `verdict`.

    Of the keys that the source lacks, `listed` says which it had when keys were compared last.
    """
    extra: list[Key] = []
    last: Key | None = None  # of the source
    async for left, right in _side_by_side(expected, actual):
        verdict.expected += left is not None
        verdict.actual += right is not None
        last = last if left is None else left.key
        if left is None and right is not None:
            if right.key == last:  # there twice, which no delete explains
                verdict.differs(Difference(Kind.EXTRA, right.key))
            elif right.in_flight:
                verdict.is_deleted(right.key)
            else:
                extra.append(right.key)
                if len(extra) == LISTED_AT_ONCE:
                    await _judge_extra(verdict, extra, listed)
                    extra = []
        elif left is not None and right is None:
            _count(verdict, Difference(Kind.MISSING, left.key), left, refused)
        elif left is not None and right is not None and left.values != right.values:
            _count(verdict, Difference(Kind.DIFFERENT, left.key, differing(left.values, right.values, columns)), left, refused)
    await _judge_extra(verdict, extra, listed)
    verdict.differences.sort(key=lambda difference: difference.key)
    return verdict


async def _judge_extra(verdict: TableVerdict, extra: list[Key], listed: Listed) -> None:
    deleted = await listed(extra) if extra else set()
    for key in extra:
        if key in deleted:
            verdict.is_deleted(key)
        else:
            verdict.differs(Difference(Kind.EXTRA, key))


async def _side_by_side(
    expected: AsyncIterator[Row], actual: AsyncIterator[Row]
) -> AsyncIterator[tuple[Row | None, Row | None]]:
    """Rows of equal keys in pairs, None beside a row that stands alone."""
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


def _count(verdict: TableVerdict, difference: Difference, row: Row, refused: Mapping[Key, Refusal]) -> None:
    is_held = is_excused(row, refused)
    if row.in_flight and not (row.is_orphan and is_held):  # mostly it is its lost partner that it is refused for
        verdict.is_awaited(row, is_missing=difference.kind is Kind.MISSING)
    elif is_held:
        verdict.quarantined += 1
    else:
        verdict.differs(difference)


def is_excused(row: Row, refused: Mapping[Key, Refusal]) -> bool:
    """Whether the row is in quarantine still.

    A row that was written, or whose partner was, behind the horizon of the run that refused it was read again by a later one.
    If that is loaded, and has not refused it, the warehouse had the row once and has lost it since.
    """
    refusal = refused.get(row.key)
    if refusal is None or refusal.horizon is None:
        return refusal is not None
    # 32 bits of a transaction id, which come round: half of them are behind the horizon.
    return not any((int(xid) - refusal.horizon) % 2**32 < 2**31 for xid in re.findall(r"\d+", row.version))


def differing(expected: Values, actual: Values, columns: tuple[str, ...]) -> dict[str, tuple[str | None, str | None]]:
    """The columns in which two rows differ, with both values."""
    pairs = zip(columns, expected, actual, strict=True)
    return {name: (left, right) for name, left, right in pairs if left != right}
