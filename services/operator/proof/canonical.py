"""The canonical form in which both sides of the proof are compared. Pure SQL text.

Each side of a table is one query of (k0, k1, …: the key, values: text[], cause: integer, stamp: text). The statements here
hash the rows of such a query by bucket, or list them in the order of the key; only the inner query differs between the sides.
"""

from __future__ import annotations

from contracts.tables import WarehouseTable
from services.operator.star_keys import key_arrays, key_names

BUCKETS = 4096  # a power of two: of ten million rows, 2,500 are fetched for one that differs
ORPHAN = "gone"  # in the stamp of a row: a partner that the source lacks
LONG_VALUE = 1_000  # characters; thousands of rows are in memory at once


def canonical_query(*, keys: list[str], values: list[str], cause: str, stamp: str, relation: str) -> str:
    """One side of a table: `values` are SQL texts in the order of its columns.

    `cause` is the place of the row's cause, NULL if it waits for nothing; `stamp` changes when the row is written again.
    """
    named = ", ".join(f"{key} AS k{position}" for position, key in enumerate(keys))
    return f"SELECT {named}, ARRAY[{', '.join(values)}] AS values, {cause} AS cause, {stamp} AS stamp FROM {relation}"


def digests(query: str, table: WarehouseTable) -> str:
    """The number of rows in each bucket below $1 and the sum of their hashes, which does not depend on their order.

    SHA-256 over UTF-8, because it is the same in every version and encoding of PostgreSQL, and in FIPS mode, where MD5 is not.
    """
    digest = "('x' || left(encode(sha256(convert_to(values::text, 'UTF8')), 'hex'), 16))::bit(64)::bigint"
    return (
        f"SELECT bucket, count(*) AS row_count, sum({digest})::text AS digest "
        f"FROM (SELECT values, {_bucket(table)} AS bucket FROM ({query}) AS q) AS hashed WHERE bucket < $1 GROUP BY bucket"
    )


def rows_in_buckets(query: str, table: WarehouseTable) -> str:
    """The rows of the buckets $1 (integer[]), in the order of the key."""
    return _rows(query, table, f"{_bucket(table)} = ANY ($1::integer[])")


def rows_of_keys(query: str, table: WarehouseTable) -> str:
    """The rows of the keys that are given (`by_column`), in the order of the key."""
    given = f"unnest({', '.join(key_arrays(table))})"
    return _rows(query, table, f"({', '.join(key_names(table))}) IN (SELECT * FROM {given})")


def rows_unlike(dimension: str, versions: str, table: WarehouseTable) -> str:
    """The rows of buckets below $1 in which two sides of one table, both in the warehouse, differ; the values of each.

    Those of a side that lacks the row are NULL. Inferred members have no version.
    """
    names = ", ".join(key_names(table))
    return (
        f"SELECT {names}, d.values AS expected, v.values AS actual "
        f"FROM (SELECT * FROM ({dimension}) AS d WHERE stamp <> '0') AS d "
        f"FULL JOIN ({versions}) AS v USING ({names}) WHERE d.values IS DISTINCT FROM v.values AND {_bucket(table)} < $1"
    )


def _rows(query: str, table: WarehouseTable, condition: str) -> str:
    """The rows of a side; each long value is replaced by its beginning and its hash.

    In the order of the key: the bytes of UTF-8 are in the order of code points, in which Python compares texts; other
    encodings' are not.
    """
    digest = "encode(sha256(convert_to(v, 'UTF8')), 'hex')"
    value = f"CASE WHEN length(v) > {LONG_VALUE} THEN left(v, 100) || '… sha256 ' || {digest} ELSE v END"
    order = ", ".join(
        key if table.column(name).type.is_whole_number else f"convert_to({key}, 'UTF8')"
        for key, name in zip(key_names(table), table.key, strict=True)
    )
    return (
        f"SELECT {', '.join(key_names(table))}, "
        f"ARRAY(SELECT {value} FROM unnest(values) WITH ORDINALITY AS u (v, n) ORDER BY n) AS values, cause, stamp "
        f"FROM ({query}) AS q WHERE {condition} ORDER BY {order}"
    )


def _bucket(table: WarehouseTable) -> str:
    """The bucket that a row is in, by its key alone."""
    names = key_names(table)
    if len(names) == 1 and table.column(table.key[0]).type.is_whole_number:
        # Every part of the number counts: keys may all be multiples of a power of two, and would share a bucket.
        parts = " # ".join(f"({names[0]}::bigint >> {shift})" for shift in (0, 12, 24, 36, 48))
        return f"(({parts}) & {BUCKETS - 1})::integer"
    key = f"ARRAY[{', '.join(f'{name}::text' for name in names)}]::text"
    return f"(('x' || left(encode(sha256(convert_to({key}, 'UTF8')), 'hex'), 8))::bit(32)::bigint & {BUCKETS - 1})::integer"
