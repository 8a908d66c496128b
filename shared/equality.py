"""How a text is compared with the key that it refers to: as PostgreSQL's foreign keys compare them, whatever the two types are.

A foreign key compares by the equality of the key's type. That of character(n) ignores blanks at the end, and the key itself
travels without them; so references to such a key also travel without them, and equal texts are equal. (PostgreSQL's `=` depends
on both types: it ignores the blanks between character(5) and varchar, and compares them between character(5) and text.)

A contract calls all of these TEXT, so the statement itself looks up the type of the key, once.
"""

from __future__ import annotations

from contracts.contract import Contract
from contracts.origins import FromLookup, FromSource
from contracts.tables import SourceTable
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


def keys_compared_with(contract: Contract, table: str, column: str) -> tuple[SourceTable, ...]:
    """The source tables whose key, a text, a column is compared with: by a lookup, or by a reference of the star."""
    compared = [lookup.table for lookup in contract.lookups_of(table) if lookup.on == column]
    for dimension in contract.remodelled_tables:
        for fact, referring in contract.references_to(dimension.name):
            match referring.origin:
                case FromSource(name) if (fact.source, name) == (table, column):
                    compared.append(dimension.source)
                case FromLookup(lookup, name) if (lookup, name) == (table, column):
                    compared.append(dimension.source)
                case _:
                    pass
    keys = (contract.source_table(name) for name in dict.fromkeys(compared))
    return tuple(key for key in keys if key.column(key.key[0]).type.is_text)


def _meets_padded(contract: Contract, table: str, column: str) -> str:
    """Whether one of these keys is character(n), or a domain over it: max() of any other type of text is another type."""
    return " OR ".join(
        f"(SELECT pg_typeof(max({quoted('k', key.key[0])})) = 'bpchar'::regtype "
        f"FROM {quoted(contract.source_schema, key.name)} AS k WHERE false)"
        for key in keys_compared_with(contract, table, column)
    )
