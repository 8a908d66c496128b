from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from services.operator.proof.comparison import Difference, Key, Kind, Row, TableVerdict, compare

COLUMNS = ("id", "name")
Values = tuple[str | None, ...]
Rows = dict[Key, Values]


async def stream(rows: Iterable[Row]) -> AsyncIterator[Row]:
    for row in rows:
        yield row


def compared(
    expected: Rows, actual: Rows, in_flight: frozenset[Key] = frozenset(), quarantined: frozenset[Key] = frozenset()
) -> TableVerdict:
    left = (Row(key, expected[key], in_flight=key in in_flight) for key in sorted(expected))
    right = (Row(key, actual[key]) for key in sorted(actual))
    return asyncio.run(compare(TableVerdict("t"), stream(left), stream(right), COLUMNS, quarantined))


def row(key: int, name: str | None = "a") -> tuple[Key, Values]:
    return (key,), (str(key), name)


def rows(*pairs: tuple[Key, Values]) -> Rows:
    return dict(pairs)


def test_equal_rows_are_equal() -> None:
    found = compared(rows(row(1), row(2, None)), rows(row(1), row(2, None)))
    assert (found.is_equal, found.expected, found.actual) == (True, 2, 2)


def test_nothing_equals_nothing() -> None:
    assert compared({}, {}).is_equal


def test_a_row_that_differs_is_named_with_both_values() -> None:
    found = compared(rows(row(1)), rows(row(1, "b")))
    assert found.differences == [Difference(Kind.DIFFERENT, (1,), {"name": ("a", "b")})]
    assert not found.is_equal


def test_null_is_no_empty_text() -> None:
    found = compared(rows(row(1, None)), rows(row(1, "")))
    assert found.differences == [Difference(Kind.DIFFERENT, (1,), {"name": (None, "")})]


def test_missing_and_extra_rows_are_named_wherever_they_stand() -> None:
    found = compared(rows(row(1), row(3), row(6)), rows(row(2), row(3), row(4)))
    assert found.differences == [
        Difference(Kind.MISSING, (1,)),
        Difference(Kind.EXTRA, (2,)),
        Difference(Kind.EXTRA, (4,)),
        Difference(Kind.MISSING, (6,)),
    ]


def test_a_row_in_flight_or_in_quarantine_is_counted_apart() -> None:
    expected, actual = rows(row(1), row(2), row(3), row(4)), rows(row(1, "old"), row(3, "old"))
    found = compared(expected, actual, frozenset({(1,), (2,)}), frozenset({(2,), (3,), (4,)}))
    assert (found.in_flight, found.quarantined, found.differences) == (2, 2, [])


def test_a_row_in_flight_that_is_equal_already_counts_as_equal() -> None:
    found = compared(rows(row(1)), rows(row(1)), frozenset({(1,)}), frozenset({(1,)}))
    assert (found.in_flight, found.quarantined, found.is_equal) == (0, 0, True)


KEYS = st.tuples(st.integers(0, 6), st.sampled_from("abc"))
SIDES = st.dictionaries(KEYS, st.tuples(st.sampled_from("xy"), st.none() | st.sampled_from(["", "z"])))
SOME = st.frozensets(KEYS)


@given(SIDES, SIDES, SOME, SOME)
@settings(deadline=None)
def test_it_finds_what_two_dictionaries_would(
    expected: Rows, actual: Rows, flying: frozenset[Key], held: frozenset[Key]
) -> None:
    found = compared(expected, actual, flying, held)
    wrong = {key for key in expected if actual.get(key) != expected[key]}
    assert found.in_flight == len(wrong & flying)
    assert found.quarantined == len(wrong & held - flying)
    assert {difference.key for difference in found.differences if difference.kind is not Kind.EXTRA} == wrong - flying - held
    assert {
        difference.key for difference in found.differences if difference.kind is Kind.EXTRA
    } == actual.keys() - expected.keys()
    assert [difference.key for difference in found.differences] == sorted(difference.key for difference in found.differences)
    assert (found.expected, found.actual) == (len(expected), len(actual))
    for difference in found.differences:
        for name, (left, right) in difference.columns.items():
            index = COLUMNS.index(name)
            assert (left, right) == (expected[difference.key][index], actual[difference.key][index])
