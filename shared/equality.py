"""How a text is compared with the key that it refers to: as PostgreSQL's foreign keys compare them, whatever the two types are.

A numeric that travels as a text has one text for equal values, without zeros at the end, where it is a key or refers to one.

A foreign key compares by the equality of the key's type. That of character(n) ignores blanks at the end, and the key itself
travels without them; so references to such a key also travel without them, and equal texts are equal. (PostgreSQL's `=` depends
on both types: it ignores the blanks between character(5) and varchar, and compares them between character(5) and text.)

A contract calls all of these TEXT, so the statement itself looks up the type of the key, once.
"""

from __future__ import annotations

from collections.abc import Iterator

from contracts.contract import Contract
from contracts.origins import FromLookup, FromSource
from contracts.tables import Join
from shared.codecs import codec_of
from shared.sql import quoted

KeyColumn = tuple[str, str]  # a source table, and a column of its key


def compared_text(contract: Contract, table: str, column: str, value: str) -> str:
    """A column of the source table `table`, given as the SQL `value`, as the text by which it is compared."""
    source = contract.source_table(table)
    kind = source.column(column).type
    if not kind.is_text:
        is_compared = column in source.key or keys_compared_with(contract, table, column)
        return codec_of(kind).key_text(value) if is_compared else f"{value}::text"
    padded = _meets_padded(contract, table, column)
    return f"CASE WHEN {padded} THEN {value}::text::bpchar::text ELSE {value}::text END" if padded else f"{value}::text"


def source_value(contract: Contract, table: str, name: str, alias: str) -> str:
    """A column of the row `alias` of a source table; a text, or a numeric that travels as one, in its compared form."""
    value = quoted(alias, name)
    kind = contract.source_table(table).column(name).type
    if kind.is_decimal and kind.is_verbatim:
        return f"({compared_text(contract, table, name, value)})::{kind.sql}"
    return f"({compared_text(contract, table, name, value)})" if kind.is_text else value


def is_partner(contract: Contract, join: Join, start: str, partner: str) -> str:
    """The condition of a join: the SQL row `partner` is the one that the row `start` refers to."""
    conditions = []
    for name, key in _compared(contract, join):
        value, key_value = quoted(start, name), quoted(partner, key)
        if contract.source_table(join.start).column(name).type.is_text:
            value, key_value = compared_text(contract, join.start, name, value), f"{key_value}::text"
        conditions.append(f"{key_value} = {value}")
    return " AND ".join(conditions)


def partner_conditions(contract: Contract, join: Join, start: str, partner: str) -> list[str]:
    """As is_partner(), for rows `start` outside of the subquery: conditions, each for a subquery of its own; one may be true.

    There are two for each text that is compared. A subquery that compared the key with compared_text() would run again for each
    row: PostgreSQL does not hash keys that are compared with another subquery's result, and finds no character(n) in an index
    by its text.
    """
    found = [""]
    for name, key in _compared(contract, join):
        value, key_value = quoted(start, name), quoted(partner, key)
        equal = [f"{key_value} = {value}"]
        if contract.source_table(join.start).column(name).type.is_text:
            padded = _meets_padded(contract, join.start, name)
            equal = [
                f"NOT ({padded}) AND {key_value}::text = {value}::text",
                f"({padded}) AND {key_value}::bpchar = {value}::text::bpchar",
            ]
        found = [f"{one} AND {other}" if one else other for one in found for other in equal]
    return found


def _compared(contract: Contract, join: Join) -> Iterator[tuple[str, str]]:
    """Each column of the join with the key's column that it is compared with."""
    return zip(join.on, contract.source_table(join.table).key, strict=True)


def keys_compared_with(contract: Contract, table: str, column: str) -> tuple[KeyColumn, ...]:
    """The key columns that a column is compared with by its text: by a lookup, or by a reference of the star."""
    compared = [
        (join.table, contract.source_table(join.table).key[place])
        for join in contract.joins
        if join.start == table
        for place, name in enumerate(join.on)
        if name == column
    ]
    for dimension in contract.remodelled_tables:
        for fact, referring in contract.references_to(dimension.name):
            match referring.origin:
                case FromSource(name):
                    referred_by = fact.source, name
                case FromLookup(lookup, name):
                    referred_by = fact.table_of(lookup), name
                case _:
                    continue
            if referred_by == (table, column):
                compared.append((dimension.source, contract.source_table(dimension.source).key[0]))
    return tuple(key for key in dict.fromkeys(compared) if contract.source_table(key[0]).column(key[1]).type.travels_as_text)


def _meets_padded(contract: Contract, table: str, column: str) -> str:
    """Whether one of these keys is character(n), or a domain over it: max() of any other type of text is another type."""
    return " OR ".join(
        f"(SELECT pg_typeof(max({quoted('k', name)})) = 'bpchar'::regtype "
        f"FROM {quoted(*contract.relation_of(contract.source_table(key)))} AS k WHERE false)"
        for key, name in keys_compared_with(contract, table, column)
    )
