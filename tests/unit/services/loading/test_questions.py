from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from uuid import uuid4

from contracts.key_hashes import SUMMED_BITS, TableHashes
from contracts.tables import RemodelledTable
from services.loading.questions import QUESTION_BYTES_MAXIMUM, WITHOUT_SURPLUS_MAXIMUM, buckets_in_question, questions
from shared.key_hashes import hash_of, sums_of, table_hashes
from shared.source_keys import Key
from tests.fixtures.small_contract import DIM_MAKER, DIM_SHELF

BUCKETS = 64


def hashes(keys: Iterable[int]) -> TableHashes:
    counts, sums = [0] * BUCKETS, [0] * BUCKETS
    for bucket, count, total in sums_of(((key,) for key in keys), BUCKETS):
        counts[bucket], sums[bucket] = count, total
    return TableHashes(table="maker", counts=tuple(counts), sums=tuple(sums))


def in_question(source: Iterable[int], star: Iterable[int], run: int = 1) -> dict[int, int | None]:
    return buckets_in_question(hashes(source), sums_of(((key,) for key in star), BUCKETS), run)


def bucket(key: int) -> int:
    return (hash_of((key,)) >> SUMMED_BITS) % BUCKETS


def test_equal_keys_leave_no_question() -> None:
    assert in_question(range(1_000), range(1_000)) == {}


def test_one_key_too_many_is_named_by_its_hash() -> None:
    assert in_question(range(1, 1_000), range(1_000)) == {bucket(0): hash_of((0,)) % 2**SUMMED_BITS}


def test_several_keys_too_many_put_the_bucket_in_question() -> None:
    same = [key for key in range(1_000) if bucket(key) == bucket(0)]
    assert in_question(set(range(1_000)) - set(same[:2]), range(1_000)) == {bucket(0): None}


def test_one_that_is_missing_may_hide_one_too_many() -> None:
    same = [key for key in range(2_000) if bucket(key) == bucket(0)]
    assert in_question(set(range(2_000)) - {same[0]}, set(range(2_000)) - {same[1]}) == {bucket(0): None}


def test_of_buckets_without_a_surplus_only_some_are_asked_about_others_each_time() -> None:
    """A batch that is stuck would otherwise have every key of a large table looked up by each comparison."""
    held = WITHOUT_SURPLUS_MAXIMUM // 10
    theirs = TableHashes(table="maker", counts=(held + 1,) * BUCKETS, sums=(1,) * BUCKETS)
    mine = [(number, held, 0) for number in range(BUCKETS)]
    asked = [set(buckets_in_question(theirs, mine, run)) for run in range(BUCKETS)]
    assert {len(buckets) for buckets in asked} == {10}
    assert set.union(*asked) == set(range(BUCKETS))


def test_a_bucket_above_the_limit_is_asked_about_alone() -> None:
    theirs = TableHashes(table="maker", counts=(0,), sums=(0,))
    assert buckets_in_question(theirs, [(0, 2 * WITHOUT_SURPLUS_MAXIMUM, 5)], 1) == {0: None}
    fewer = TableHashes(table="maker", counts=(3 * WITHOUT_SURPLUS_MAXIMUM,), sums=(9,))
    assert buckets_in_question(fewer, [(0, 2 * WITHOUT_SURPLUS_MAXIMUM, 5)], 1) == {0: None}


async def cut(table: RemodelledTable, keys: list[Key]) -> list[tuple[Key, ...]]:
    async def each() -> AsyncIterator[Key]:
        for key in keys:
            yield key

    subject = uuid4()
    asked = [one async for one in questions(table, 7, subject, each())]
    again = [one async for one in questions(table, 7, subject, each())]
    assert [one.id for one in asked] == [one.id for one in again]
    assert len({one.id for one in asked}) == len(asked)
    return [one.keys for one in asked]


async def test_keys_are_cut_into_questions_by_their_bytes() -> None:
    assert await cut(DIM_MAKER, []) == []
    numbers: list[Key] = [(number,) for number in range(100_000)]
    parts = await cut(DIM_MAKER, numbers)
    assert [key for part in parts for key in part] == numbers
    labels: list[Key] = [(number, "\u0001é" * 700) for number in range(300)]
    for part in [*parts, *await cut(DIM_SHELF, labels)]:
        assert len(json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode()) - 2 <= QUESTION_BYTES_MAXIMUM


def test_a_table_has_buckets_by_its_size() -> None:
    sizes = [0, 1, 128, 129, 1_000, 100_000]
    assert [len(table_hashes("maker", sums_of((key,) for key in range(size))).counts) for size in sizes] == [
        1,
        1,
        1,
        2,
        8,
        1024,
    ]
    folded = table_hashes("maker", sums_of((key,) for key in range(1_000)))
    assert list(enumerate(zip(folded.counts, folded.sums, strict=True))) == sorted(
        (number, (count, total)) for number, count, total in sums_of(((key,) for key in range(1_000)), 8)
    )
