"""Which keys a comparison asks ingestion about, and how they are cut into questions. Pure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID, uuid5

from contracts.key_hashes import BUCKETS_MAXIMUM, SUMMED_BITS, TableHashes
from contracts.objects import BATCH_NAMESPACE
from shared.source_keys import Key

QUESTION_BYTES = 256 * 1024  # of the keys of one question as JSON: the command, with its attributes, stays far below SQS's MiB
# How many keys one comparison asks about in the buckets that hold no more keys than the source's. Those differ when rows are
# in quarantine, or in a batch that is never loaded: without a bound every comparison would ask about most of the star.
UNLIKELY_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Suspects:
    """The buckets whose keys are in question.

    `named` has, by bucket, the part of a hash by which the sums differ if the star has one key more than the source: if a key
    of the bucket has it, it is that one. None: all keys of the bucket.
    """

    named: Mapping[int, int | None]
    next_place: int  # where the next comparison continues in the buckets that have no more keys than the source's; 0: nowhere
    is_whole: bool  # every bucket that differs is named, so that no other comparison is needed


def suspects(theirs: TableHashes, ours: Mapping[int, tuple[int, int]], first: int) -> Suspects:
    """Compare the source's hashes with those of the star: the count and the sum of each bucket that has a key.

    A bucket that has more keys than the source's is asked about in any case. If the others that differ have too many keys, one
    comparison asks about a part of them, beginning with place `first`, and the next one continues from there; at the last place
    the rotation ends. The run's number modulo the number of parts could not choose the part: it may be the same for all runs
    that compare.
    """
    named: dict[int, int | None] = {}
    unlikely: list[tuple[int, int, int]] = []
    width = BUCKETS_MAXIMUM // len(theirs.counts)
    for bucket, (count, total) in ours.items():
        their_count, their_total = theirs.counts[bucket], theirs.sums[bucket]
        if (count, total) == (their_count, their_total):
            continue
        if count <= their_count:
            unlikely.append((_place(bucket, len(theirs.counts)), bucket, count))
            continue
        difference = total - their_total
        named[bucket] = difference if count == their_count + 1 and 0 <= difference < 2**SUMMED_BITS else None
    is_whole = sum(count for _, _, count in unlikely) <= UNLIKELY_KEYS
    asked = 0
    for place, bucket, count in sorted(unlikely):
        if place + width <= first and not is_whole:
            continue
        if asked and asked + count > UNLIKELY_KEYS:
            return Suspects(named, place, is_whole=False)
        asked += count
        named[bucket] = None
    return Suspects(named, 0, is_whole=is_whole)


def _place(bucket: int, buckets: int) -> int:
    """The first of the BUCKETS_MAXIMUM places that the keys of a bucket are in: its bits in reverse.

    Two runs may have cut the same keys into different numbers of buckets. A key's place is the same for both.
    """
    place: int = int(f"{bucket + buckets:b}"[:0:-1] or "0", 2) * (BUCKETS_MAXIMUM // buckets)
    return place


async def cut(keys: AsyncIterator[Key]) -> AsyncIterator[tuple[Key, ...]]:
    """The keys in parts of at most QUESTION_BYTES as JSON, of which one at a time is held."""
    part, size = list[Key](), 0
    async for key in keys:
        more = len(json.dumps(key)) + 1  # escaped: never fewer bytes than the same text in UTF-8
        if part and size + more > QUESTION_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(key)
        size += more
    if part:
        yield tuple(part)


def question_id(origin: int | UUID, table: str, keys: Sequence[Key]) -> UUID:
    """The id of a question that led from a comparison's run, or from a batch that came late.

    It depends on the keys: after a crash the star may hold others, and the answer to the first question must not pass for one
    to the second.
    """
    digest = sha256(json.dumps(keys).encode()).hexdigest()
    return uuid5(BATCH_NAMESPACE, f"look_up_keys/{table}/{origin}/{digest}")
