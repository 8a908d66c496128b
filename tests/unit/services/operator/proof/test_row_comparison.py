from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Collection, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.operator.proof import row_comparison
from services.operator.proof.row_comparison import (
    Both,
    Cause,
    Difference,
    LastRefusal,
    Mismatch,
    Row,
    TableFindings,
    Wait,
    compare,
    is_in_quarantine,
)
from shared.source_keys import Key

COLUMNS = ("id", "name")
YOUNG = Cause(Wait.RUN)
DELETED = Cause(Wait.COMPARISON)
Values = tuple[str | None, ...]
Rows = dict[Key, Values]


async def stream(rows: Iterable[Row]) -> AsyncIterator[Row]:
    for row in rows:
        yield row


async def nothing_known(_keys: Collection[Key]) -> dict[Key, Cause | None]:
    """No load made any of the rows."""
    return {}


def compared(
    expected: Rows, actual: Rows, in_flight: frozenset[Key] = frozenset(), quarantined: frozenset[Key] = frozenset()
) -> TableFindings:
    left = (Row(key, expected[key], YOUNG if key in in_flight else None) for key in sorted(expected))
    right = (Row(key, actual[key]) for key in sorted(actual))
    found = TableFindings("t")
    asyncio.run(compare(found, stream(left), stream(right), COLUMNS, dict.fromkeys(quarantined, LastRefusal(7)), nothing_known))
    return found


def row(key: int, name: str | None = "a") -> tuple[Key, Values]:
    return (key,), (str(key), name)


def rows(*pairs: tuple[Key, Values]) -> Rows:
    return dict(pairs)


def test_equal_rows_are_equal() -> None:
    found = compared(rows(row(1), row(2, None)), rows(row(1), row(2, None)))
    assert (found.different, found.expected, found.actual) == (0, 2, 2)


def test_two_empty_tables_are_equal() -> None:
    assert not compared({}, {}).different


def test_a_row_that_differs_is_named_with_both_values() -> None:
    found = compared(rows(row(1)), rows(row(1, "b")))
    assert found.differences == [Difference(Mismatch.DIFFERENT, (1,), {"name": Both("a", "b")})]
    assert found.different == 1


def test_null_differs_from_the_empty_text() -> None:
    found = compared(rows(row(1, None)), rows(row(1, "")))
    assert found.differences == [Difference(Mismatch.DIFFERENT, (1,), {"name": Both(None, "")})]


def test_missing_and_extra_rows_are_named_at_any_position() -> None:
    found = compared(rows(row(1), row(3), row(6)), rows(row(2), row(3), row(4)))
    assert found.differences == [
        Difference(Mismatch.MISSING, (1,)),
        Difference(Mismatch.EXTRA, (2,)),
        Difference(Mismatch.EXTRA, (4,)),
        Difference(Mismatch.MISSING, (6,)),
    ]


def test_a_row_in_flight_or_in_quarantine_is_counted_separately() -> None:
    expected, actual = rows(row(1), row(2), row(3), row(4)), rows(row(1, "old"), row(3, "old"))
    found = compared(expected, actual, frozenset({(1,), (2,)}), frozenset({(2,), (3,), (4,)}))
    assert (found.in_flight, found.quarantined, found.differences) == (2, 2, [])


def test_a_row_in_flight_that_is_already_equal_counts_as_equal() -> None:
    found = compared(rows(row(1)), rows(row(1)), frozenset({(1,)}), frozenset({(1,)}))
    assert (found.in_flight, found.quarantined, found.different) == (0, 0, 0)


@pytest.mark.parametrize(
    ("horizon", "stamp", "is_so"),
    [
        (None, "{900}", True),  # no later run is loaded
        (700, "{699}", True),
        (700, "{700}", False),  # a later run has read it again, and has not refused it
        (700, "{5,NULL,700}", False),  # a partner was written
        (700, "{5,NULL}", True),
        (2**32 + 5, "{5}", False),  # ids are given without their upper half
        (2**32 + 5, "{4294967295}", True),
        (1_767_227_400_001, "1767227400000", True),  # of a data set, whose stamp is a run
        (1_767_227_400_001, "1770227400000", False),  # five weeks later
    ],
)
def test_a_row_is_in_quarantine_until_a_later_run_has_read_it_again(horizon: int | None, stamp: str, *, is_so: bool) -> None:
    refused = {(1,): LastRefusal(7, horizon)}
    assert is_in_quarantine(Row((1,), (), stamp=stamp), refused) is is_so
    assert not is_in_quarantine(Row((2,), (), stamp=stamp), refused)


async def test_a_duplicate_row_of_a_key_in_the_source_is_always_extra() -> None:
    async def known(keys: Collection[Key]) -> dict[Key, Cause | None]:
        return dict.fromkeys(keys, DELETED)

    right = [Row((1,), ("1", "a"))] * 2
    found = TableFindings("t")
    await compare(found, stream([Row((1,), ("1", "a"))]), stream(right), COLUMNS, {}, known)
    assert (found.differences, found.in_flight) == ([Difference(Mismatch.EXTRA, (1,))], 0)
    found = TableFindings("t")
    await compare(found, stream([]), stream(right), COLUMNS, {}, known)
    assert (found.differences, found.in_flight) == ([], 2)


async def test_rows_that_the_source_lacks_are_judged_in_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million of them took 131 MB."""
    monkeypatch.setattr(row_comparison, "LOOKED_UP_AT_ONCE", 1_000)
    monkeypatch.setattr(row_comparison, "NAMED_MAXIMUM", 100)
    asked: list[int] = []

    async def known(keys: Collection[Key]) -> dict[Key, Cause | None]:
        asked.append(len(keys))
        return {key: DELETED for key in keys if key[0] % 2}

    tracemalloc.start()
    found = TableFindings("t")
    await compare(found, stream([]), stream(Row((key,), ()) for key in range(30_500)), (), {}, known)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert asked == [1_000] * 30 + [500]
    assert (found.in_flight, found.different, found.actual) == (15_250, 15_250, 30_500)
    assert peak < 2**20


KEYS = st.tuples(st.integers(0, 6), st.sampled_from("abc"))
SIDES = st.dictionaries(KEYS, st.tuples(st.sampled_from("xy"), st.none() | st.sampled_from(["", "z"])))
SOME = st.frozensets(KEYS)


@given(SIDES, SIDES, SOME, SOME)
@settings(deadline=None)
def test_the_comparison_finds_the_same_as_two_dictionaries(
    expected: Rows, actual: Rows, flying: frozenset[Key], held: frozenset[Key]
) -> None:
    found = compared(expected, actual, flying, held)
    wrong = {key for key in expected if actual.get(key) != expected[key]}
    assert found.in_flight == len(wrong & flying)
    assert found.quarantined == len(wrong & held - flying)
    assert {
        difference.key for difference in found.differences if difference.kind is not Mismatch.EXTRA
    } == wrong - flying - held
    assert {
        difference.key for difference in found.differences if difference.kind is Mismatch.EXTRA
    } == actual.keys() - expected.keys()
    assert [difference.key for difference in found.differences] == sorted(difference.key for difference in found.differences)
    assert (found.expected, found.actual) == (len(expected), len(actual))
    for difference in found.differences:
        for name, both in difference.columns.items():
            index = COLUMNS.index(name)
            assert (both.expected, both.actual) == (expected[difference.key][index], actual[difference.key][index])
