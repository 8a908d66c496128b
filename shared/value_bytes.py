"""How large a value is, asked in SQL before its text is made: PostgreSQL can't make one above 1 GiB, and ends the statement."""

from __future__ import annotations

from contracts.column_types import ColumnType, Kind

MIB = 1024 * 1024
VALUE_BYTES_MAXIMUM = 32 * MIB  # of the text that a value travels as; a bytea is written in hexadecimal, two characters a byte
# Types that travel as text and whose every value is short.
_SHORT = frozenset({"uuid", "double precision", "real", "interval", "money", "inet", "cidr", "macaddr", "macaddr8", "oid"})


def is_wide(kind: ColumnType) -> bool:
    """Whether a value of the type may be large."""
    return kind.travels_as_text and kind.kind is not Kind.ENUM and kind.name not in _SHORT


def value_bytes(value: str, kind: ColumnType | None) -> str:
    """SQL for the bytes of the text that `value` travels as; None stands for a type that the contract does not know.

    PostgreSQL knows the length of a text or a bytea without reading the value. For any other type the text has to be made,
    unless the stored value is above the limit already: ROW() holds it uncompressed.
    """
    if kind is not None and kind.is_text:
        return f"octet_length({value}::text)"
    if kind is not None and kind.name == "bytea":
        return f"(2 * octet_length({value})::bigint + 2)"
    made_from = f"pg_column_size(ROW({value}))"
    return f"CASE WHEN {made_from} <= {VALUE_BYTES_MAXIMUM} THEN octet_length({value}::text) ELSE {made_from} END"
