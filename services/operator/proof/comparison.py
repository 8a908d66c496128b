"""Comparing two ordered streams of rows, in bounded memory. Pure: async iterators in, differences out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any

Key = tuple[Any, ...]


@unique
class Kind(StrEnum):
    """How a row differs."""

    MISSING = "missing"  # in the source, not in the warehouse
    EXTRA = "extra"  # in the warehouse, not in the source
    DIFFERENT = "different"  # in both, not equal


@dataclass(frozen=True, slots=True)
class Row:
    """A star row: its key and every value in its canonical text, None for NULL."""

    key: Key
    values: tuple[str | None, ...]
    in_flight: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that differs; `columns` maps each differing column to (expected, actual)."""

    kind: Kind
    key: Key
    columns: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)


@dataclass
class TableVerdict:
    """What the comparison of one table found. `in_flight` and `quarantined` rows differ for a reason that is known."""

    table: str
    expected: int = 0
    actual: int = 0
    in_flight: int = 0
    quarantined: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether every row that should be equal is."""
        return not self.differences


async def compare(
    verdict: TableVerdict,
    expected: AsyncIterator[Row],
    actual: AsyncIterator[Row],
    columns: tuple[str, ...],
    quarantined: frozenset[Key] = frozenset(),
) -> TableVerdict:
    """Walk both streams, ordered by key, side by side, and put what is found into `verdict`."""
    async for left, right in _side_by_side(expected, actual):
        verdict.expected += left is not None
        verdict.actual += right is not None
        if left is None and right is not None:
            verdict.differences.append(Difference(Kind.EXTRA, right.key))
        elif left is not None and right is None:
            _count(verdict, Difference(Kind.MISSING, left.key), left, quarantined)
        elif left is not None and right is not None and left.values != right.values:
            _count(verdict, Difference(Kind.DIFFERENT, left.key, dict(_differing(left, right, columns))), left, quarantined)
    return verdict


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


def _count(verdict: TableVerdict, difference: Difference, row: Row, quarantined: frozenset[Key]) -> None:
    if row.in_flight:
        verdict.in_flight += 1
    elif row.key in quarantined:
        verdict.quarantined += 1
    else:
        verdict.differences.append(difference)


def _differing(left: Row, right: Row, columns: tuple[str, ...]) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
    for name, expected, actual in zip(columns, left.values, right.values, strict=True):
        if expected != actual:
            yield name, (expected, actual)
