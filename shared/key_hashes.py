"""Hashes of keys by bucket, in SQL and in Python, and the physical form of what is said about keys."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TypeVar

from pydantic import ValidationError

from contracts.key_hashes import (
    BUCKET_BITS,
    BUCKETS_MAXIMUM,
    KEYS_PER_BUCKET,
    SUMMED_BITS,
    KeyHashes,
    RejectedKeys,
    TableHashes,
)
from shared.errors import PermanentError
from shared.source_keys import Key

_SUMMED = 2**SUMMED_BITS - 1

Keys = TypeVar("Keys", KeyHashes, TableHashes, RejectedKeys)


def hashed(texts: Sequence[str]) -> str:
    """A bigint of a key whose columns are the SQL texts `texts`: the bucket's bits, then those that are summed up."""
    text = texts[0] if len(texts) == 1 else " || ".join(f"length({one})::text || ':' || {one}" for one in texts)
    return f"('x' || left(encode(sha256(convert_to({text}, 'UTF8')), 'hex'), 16))::bit(64)::bigint"


def select_sums(hashes: str, buckets: int = BUCKETS_MAXIMUM) -> str:
    """The count and sum of each bucket that has a key, for a query of one column, `hash`."""
    # OFFSET 0 keeps the planner from computing the hash twice.
    return (
        f"SELECT {bucket_of('hash', buckets)} AS bucket, count(*) AS count, sum({summed('hash')})::text AS sum "
        f"FROM ({hashes} OFFSET 0) AS h GROUP BY 1"
    )


def bucket_of(hash_value: str, buckets: int) -> str:
    """The SQL of the bucket that a hash is in."""
    return f"(({hash_value} >> {SUMMED_BITS}) & {buckets - 1})::integer"


def summed(hash_value: str) -> str:
    """The SQL of the part of a hash that is summed up."""
    return f"({hash_value} & {_SUMMED})"


def hash_of(key: Key) -> int:
    """What `hashed` computes, for a key of whole numbers and texts; between 0 and 2^64."""
    texts = [str(column) for column in key]
    text = texts[0] if len(texts) == 1 else "".join(f"{len(one)}:{one}" for one in texts)
    return int.from_bytes(sha256(text.encode()).digest()[: (BUCKET_BITS + SUMMED_BITS) // 8])


def sums_of(keys: Iterable[Key], buckets: int = BUCKETS_MAXIMUM) -> list[tuple[int, int, int]]:
    """What `select_sums` returns: the bucket, count and sum of each bucket that has a key."""
    counts, sums = Counter[int](), Counter[int]()
    for key in keys:
        bucket = (hash_of(key) >> SUMMED_BITS) & (buckets - 1)
        counts[bucket] += 1
        sums[bucket] += hash_of(key) & _SUMMED
    return [(bucket, count, sums[bucket]) for bucket, count in counts.items()]


def table_hashes(
    table: str, found: Iterable[tuple[int, int, int]], *, star_table: str | None = None, believe_empty: bool = False
) -> TableHashes:
    """The hashes of a table from the sums of its BUCKETS_MAXIMUM buckets, folded into as many as its size deserves."""
    rows = list(found)
    key_count = sum(count for _, count, _ in rows)
    buckets = min(BUCKETS_MAXIMUM, 1 << (max(0, key_count - 1) // KEYS_PER_BUCKET).bit_length())
    counts, sums = [0] * buckets, [0] * buckets
    for bucket, count, total in rows:
        counts[bucket & (buckets - 1)] += count
        sums[bucket & (buckets - 1)] += total
    return TableHashes(table=table, star_table=star_table, counts=tuple(counts), sums=tuple(sums), believe_empty=believe_empty)


def packed(keys: KeyHashes | TableHashes | RejectedKeys) -> bytes:
    """Gzipped JSON; the same keys make the same bytes. What is None is left out: older builds don't know all of it."""
    return gzip.compress(keys.model_dump_json(exclude_none=True).encode(), compresslevel=6, mtime=0)


def unpacked(model: type[Keys], body: bytes) -> Keys:
    """What was packed. Raises: PermanentError."""
    try:
        return model.model_validate_json(gzip.decompress(body))
    except (OSError, EOFError, ValidationError) as error:
        raise PermanentError(
            f"what a batch says about keys can't be read ({type(error).__name__}); run `starlift ingest --full`"
        ) from error
