"""How a text is compared with the key that it refers to: as PostgreSQL's foreign keys do, whatever the two types are.

A foreign key compares by the equality of the key's type. That of character(n) ignores blanks at the end, and the key itself
travels without them; so references to such a key also travel without them, and equal texts are equal. (PostgreSQL's `=` depends
on both types: it ignores the blanks between character(5) and varchar, and compares them between character(5) and text.)

A contract calls all of these TEXT, so the statement itself looks up the type of the key, once.
"""

from __future__ import annotations

from collections.abc import Iterator

from contracts.contract import Contract
from contracts.origins import FromLookup, FromSource
from contracts.tables import Calendar, SourceTable
from shared.sql import quoted


def compared_text(contract: Contract, table: str, column: str, value: str) -> str:
    """A text column of the source table `table`, given as the SQL `value`, in the form in which it is compared."""
    padded = _meets_padded(contract, table, column)
    return f"CASE WHEN {padded} THEN {value}::text::bpchar::text ELSE {value}::text END" if padded else f"{value}::text"


def partner_conditions(contract: Contract, table: str, column: str, value: str, key: str) -> tuple[str, str]:
    """Two conditions, each for a subquery of its own: the SQL `key` of a lookup's partner equals such a text if one is true.

    A subquery that compared the key with compared_text() would run again for each row: PostgreSQL does not hash keys that are
    compared with another subquery's result, and finds no character(n) in an index by its text.
    """
    padded = _meets_padded(contract, table, column)
    return f"NOT ({padded}) AND {key}::text = {value}::text", f"({padded}) AND {key}::bpchar = {value}::text::bpchar"


def _meets_padded(contract: Contract, table: str, column: str) -> str:
    return " OR ".join(_is_padded(contract, key) for key in keys_met(contract, table, column))


def keys_met(contract: Contract, table: str, column: str) -> tuple[SourceTable, ...]:
    """The source tables whose key, a text, a column is compared with: by a lookup, or by a reference of the star."""
    met = [lookup.table for lookup in contract.lookups_of(table) if lookup.on == column]
    met += _referred_to(contract, table, column)
    tables = (contract.source_table(name) for name in dict.fromkeys(met))
    return tuple(key for key in tables if key.column(key.key[0]).type.is_text)


def _referred_to(contract: Contract, table: str, column: str) -> Iterator[str]:
    for star, referring in contract.references:
        match referring.origin:
            case FromSource(name):
                origin = star.source, name
            case FromLookup(lookup, name):
                origin = lookup, name
            case _:
                continue
        if referring.references is not None and origin == (table, column):
            dimension = contract.warehouse_table(referring.references)
            if not isinstance(dimension, Calendar):
                yield dimension.source


def _is_padded(contract: Contract, key: SourceTable) -> str:
    """Whether the key is character(n), or a domain over it: max() of any other type of text is another type."""
    column, relation = quoted("k", key.key[0]), quoted(contract.source_schema, key.name)
    return f"(SELECT pg_typeof(max({column})) = 'bpchar'::regtype FROM {relation} AS k WHERE false)"
