"""Keys of source rows: numbers as they are, everything else as text. In SQL, `t` is the source table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from contracts.contract import Contract
from contracts.tables import SourceTable
from shared.codecs import codec_of
from shared.equality import compared_text
from shared.sql import literal, quoted

if TYPE_CHECKING:
    import pandas as pd  # half a second for every command

Key = tuple[Any, ...]  # for each column a whole number, or the text that PostgreSQL makes of anything else

KEYS_IN_LIST = 10_000  # of one statement: one that spells a million keys is refused


def keys_of(table: SourceTable, rows: pd.DataFrame) -> list[Key]:
    """The keys of an extract's rows: numbers as they are, everything else as text."""
    if table.key_text is not None:
        return [tuple(json.loads(text)) for text in rows[table.key_text].tolist()]
    return list(zip(*(rows[name].tolist() for name in table.key), strict=True))


def misspelled_column(table: SourceTable, key: Key) -> str | None:
    """The first column of the key that has no such value, as PostgreSQL spells it; None if a row may have the key."""
    return next(
        (name for name, value in zip(table.key, key, strict=True) if not codec_of(table.column(name).type).may_be_key(value)),
        None,
    )


def rows_of(contract: Contract, table: SourceTable) -> str:
    """What stands for a source table in FROM: its name, or, where rows have no key, a subselect that gives each its id.

    The id is a hash of the row's columns, as text, and of its rank among equal rows. These are interchangeable, so it does not
    matter which of them gets which rank; and two rows that differ only in the spelling of a value are two rows.
    """
    name = quoted(*contract.relation_of(table))
    if table.row_id is None:
        return name
    columns = [quoted("t", column.name) for column in table.stored_columns]  # none, if the star only counts the rows
    row_hash = f"sha256(convert_to(ROW({', '.join(columns)})::text, 'UTF8')) AS {quoted(table.row_id)}"
    row = quoted("t", table.row_id)
    ranked = f"{row} || convert_to((row_number() OVER (PARTITION BY {row}))::text, 'UTF8')"
    row_id = f"left(encode(sha256({ranked}), 'hex'), 32)::uuid AS {quoted(table.row_id)}"
    return f"(SELECT {', '.join([*columns, row_id])} FROM (SELECT {', '.join([*columns, row_hash])} FROM {name} AS t) AS t)"


def select_bad_key(contract: Contract, table: SourceTable) -> str:
    """One row for the first key that several rows have, or that is NULL (`is_null`): a declared key that is none."""
    nulls = " OR ".join(f"{quoted('t', name)} IS NULL" for name in table.key)
    rows = f"FROM {rows_of(contract, table)} AS t GROUP BY {key_columns(table)}"
    return f"SELECT {nulls} AS is_null {rows} HAVING count(*) > 1 OR {nulls} LIMIT 1"


def select_found_keys(contract: Contract, table: SourceTable, keys: Iterable[Key]) -> str:
    """Those of `keys` that a row of `table` has, as JSON arrays.

    The columns are compared as they are, with literals that take their types: by any text of a column no index finds a row.
    """
    rows = rows_of(contract, table)
    return f"SELECT {key_as_json(contract, table)} FROM {rows} AS t WHERE {has_key(contract, table, keys)}"


def has_key(contract: Contract, table: SourceTable, keys: Iterable[Key]) -> str:
    """Whether a row has one of `keys`."""
    return has_values(contract, table, (tuple(map(key_literal, key)) for key in keys))


def has_values(contract: Contract, table: SourceTable, rows: Iterable[Sequence[str]]) -> str:
    """Whether the columns of a row's key have one of the rows of SQL values.

    PostgreSQL nests `(a, b) IN (…)` as deep as it has rows, and refuses some thousands; a chain of ORs it plans in a time that
    grows with the square of its length. It joins VALUES instead: a first row, which is NULL and no key, gives literals their
    types.
    """
    if len(table.key) == 1:
        return f"{key_columns(table)} IN ({', '.join(value for (value,) in rows)})"
    typed = [f"(SELECT {quoted('k', name)} FROM {rows_of(contract, table)} AS k WHERE false)" for name in table.key]
    values = ", ".join(f"({', '.join(row)})" for row in (typed, *rows))
    return f"({key_columns(table)}) IN (VALUES {values})"


def key_as_json(contract: Contract, table: SourceTable) -> str:
    """The key of a row as a JSON array: numbers, and the text of everything else."""
    columns = (table.column(name) for name in table.key)
    values = (
        quoted("t", one.name)
        if one.type.is_whole_number
        else compared_text(contract, table.name, one.name, quoted("t", one.name))
        for one in columns
    )
    return f"json_build_array({', '.join(values)})"


def key_columns(table: SourceTable) -> str:
    """The columns of the key."""
    return ", ".join(quoted("t", name) for name in table.key)


def key_literals(keys: Iterable[Key]) -> str:
    """Keys as rows of literals."""
    return ", ".join(f"({', '.join(map(key_literal, key))})" for key in keys)


def key_literal(value: int | str) -> str:
    """A value of a key as a literal; that of a text has no type yet."""
    return str(value) if isinstance(value, int) else literal(value)
