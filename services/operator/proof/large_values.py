"""The proof's SQL for large values: one that can't travel is never rendered, long ones are hashed. Pure text."""

from __future__ import annotations

from contracts.contract import Contract
from contracts.origins import FromLookup, FromSource, ParsedDate
from contracts.tables import Column, RemodelledTable
from shared.codecs import codec_of
from shared.codecs.codec import VALUE_BYTES_MAXIMUM
from shared.sql import quoted

LONG_VALUE = 1_000  # characters; thousands of rows are in memory at once


def unless_too_large(text: str, contract: Contract, table: RemodelledTable, column: Column, base: str) -> str:
    """On the source: the expected `text` of a column; for a value that can't travel, a text that no row has.

    The base table is called `base`, and its partners by their names.
    """
    match column.origin:
        case FromSource(name) | ParsedDate(name):
            origin, value = contract.source_table(table.source).column(name), quoted(base, name)
        case FromLookup(lookup, name):
            origin, value = contract.source_table(lookup).column(name), quoted(lookup, name)
        case _:
            return text
    if column.name in table.key or not (codec := codec_of(origin.type)).is_wide:
        return text
    return f"CASE WHEN {codec.byte_count(value)} > {VALUE_BYTES_MAXIMUM} THEN 'too large' ELSE {text} END"


def shortened(values: str) -> str:
    """An array of texts in which each long one is replaced by its beginning and its hash."""
    digest = "encode(sha256(convert_to(v, 'UTF8')), 'hex')"
    value = f"CASE WHEN length(v) > {LONG_VALUE} THEN left(v, 100) || '… sha256 ' || {digest} ELSE v END"
    return f"ARRAY(SELECT {value} FROM unnest({values}) WITH ORDINALITY AS u (v, n) ORDER BY n)"
