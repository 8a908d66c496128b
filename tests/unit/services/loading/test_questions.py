from __future__ import annotations

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from contracts.key_hashes import BUCKETS_MAXIMUM, SUMMED_BITS, TableHashes
from services.loading.questions import QUESTION_BYTES, UNLIKELY_KEYS, Suspects, cut, question_id, suspects
from shared.key_hashes import hash_of, hashed, sums_of, table_hashes
from shared.source_keys import Key


async def stream(*keys: Key) -> AsyncIterator[Key]:
    for key in keys:
        yield key


def flat(counts: list[int], sums: list[int]) -> TableHashes:
    return TableHashes(table="item", counts=tuple(counts), sums=tuple(sums))


def test_a_bucket_names_the_surplus_key_only_if_there_is_exactly_one() -> None:
    theirs = flat([1, 1, 1, 1], [10, 10, 10, 10])
    found = suspects(theirs, {0: (2, 17), 1: (3, 30), 2: (1, 10), 3: (2, 3)}, 0)
    assert found.named == {0: 7, 1: None, 3: None}


def test_buckets_with_a_surplus_are_always_asked_about_and_the_others_in_turn() -> None:
    size = UNLIKELY_KEYS // 2
    theirs = flat([size] * 7 + [0], [0] * 8)
    ours = dict.fromkeys(range(7), (size, 1)) | {7: (size, 1)}
    turns, first = [], 0
    for _ in range(5):
        found = suspects(theirs, ours, first)
        assert not found.is_whole
        turns.append((sorted(found.named), found.next_place != 0))
        first = found.next_place
    parts = [([0, 4, 7], True), ([2, 6, 7], True), ([1, 5, 7], True), ([3, 7], False)]
    assert turns == [*parts, parts[0]]


@pytest.mark.parametrize("sizes", [(8, 4, 8, 4), (4, 8, 16, 1), (1024, 2048, 1024, 512)])
def test_a_rotation_covers_every_key_even_if_the_number_of_buckets_varies(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a table that is cut into fewer buckets by a run that has read more of its rows."""
    monkeypatch.setattr("services.loading.questions.UNLIKELY_KEYS", 300)
    keys: list[Key] = [(number,) for number in range(1000)]
    passed, first, turn = set[Key](), 0, 0
    while turn == 0 or first:
        buckets = sizes[turn % len(sizes)]
        ours = {bucket: (count, total) for bucket, count, total in sums_of(keys, buckets)}
        found = suspects(flat([1000] * buckets, [0] * buckets), ours, first)
        passed |= {key for key in keys if (hash_of(key) >> SUMMED_BITS) % buckets in found.named}
        first, turn = found.next_place, turn + 1
    assert turn > 1
    assert passed == set(keys)


def test_a_comparison_that_asks_about_every_bucket_is_complete_wherever_the_last_one_stopped() -> None:
    theirs, ours = flat([9, 9], [0, 0]), {0: (5, 1), 1: (5, 1)}
    for first in (0, BUCKETS_MAXIMUM // 2):
        assert suspects(theirs, ours, first) == Suspects({0: None, 1: None}, 0, is_whole=True)


def test_a_bucket_larger_than_the_bound_is_asked_about_alone() -> None:
    found = suspects(flat([UNLIKELY_KEYS * 3], [0]), {0: (UNLIKELY_KEYS * 2, 1)}, 0)
    assert (found.named, found.next_place) == ({0: None}, 0)


async def test_no_question_is_larger_than_its_bound_and_no_key_is_lost() -> None:
    keys = [(number, "\x07é" * 200) for number in range(1000)]
    parts = [part async for part in cut(stream(*keys))]
    assert [key for part in parts for key in part] == keys
    assert len(parts) > 1
    assert max(len(json.dumps(part, separators=(",", ":"))) for part in parts) <= QUESTION_BYTES + 2


def test_the_id_of_a_question_is_derived_from_its_origin_table_and_keys() -> None:
    batch = uuid4()
    ids = [
        question_id(origin, table, keys)
        for origin in (1, 2, batch)
        for table in ("a", "b")
        for keys in ([(1,)], [(2,)], [(1,), (2,)])
    ]
    assert len(set(ids)) == len(ids)
    assert question_id(batch, "a", [(1,)]) == question_id(batch, "a", ((1,),))


@pytest.mark.parametrize("size", [0, 1, 127, 129, 100_000])
def test_equal_keys_give_equal_hashes_in_a_bounded_number_of_buckets(size: int) -> None:
    keys = [(number, "x") for number in range(size)]
    theirs = table_hashes("item", sums_of(keys))
    ours = {bucket: (count, total) for bucket, count, total in sums_of(keys, len(theirs.counts))}
    assert suspects(theirs, ours, 0).named == {}
    assert len(theirs.counts) <= BUCKETS_MAXIMUM


def test_the_columns_of_a_key_are_hashed_separately() -> None:
    assert hash_of(("a", "bc")) != hash_of(("ab", "c"))
    assert "length(" in hashed(["a", "b"])
