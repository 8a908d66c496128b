"""Tables of the star as people name them, and keys of their rows as questions, quarantine and proof write them, as SQL. Pure.

In a key a whole number stays one; anything else is the text that PostgreSQL makes of it: no padding, no enum.
"""

from __future__ import annotations

from collections.abc import Collection

from contracts.contract import Contract
from contracts.tables import Column, ContractError, WarehouseTable
from services.operator.errors import UsageError
from shared.codecs import codec_of
from shared.source_keys import Key


def key_value(value: str, column: Column) -> str:
    """The SQL `value` of a key column in the form of a key."""
    return value if column.type.is_whole_number else codec_of(column.type).key_text(f"({value})")


def key_names(table: WarehouseTable) -> list[str]:
    """How queries call the columns of the key: k0, k1, and so on."""
    return [f"k{position}" for position in range(len(table.key))]


def key_arrays(table: WarehouseTable) -> list[str]:
    """The parameters $1, $2, … that `by_column` fills: arrays, because a statement that spells a million keys is refused."""
    types = (table.column(name).type for name in table.key)
    arrays = (kind.sql if kind.is_whole_number else "text" for kind in types)
    return [f"${place}::{kind}[]" for place, kind in enumerate(arrays, 1)]


def by_column(table: WarehouseTable, keys: Collection[Key]) -> list[list[object]]:
    """Keys as the arguments of `key_arrays`: one list for each column of the key."""
    return [[key[position] for key in keys] for position in range(len(table.key))]


def table_named(contract: Contract, name: str) -> WarehouseTable:
    """Return the warehouse table that a person named. Raises: UsageError."""
    try:
        return contract.warehouse_table(name)
    except ContractError as error:
        known = ", ".join(table.name for table in contract.warehouse_tables)
        raise UsageError(f"{error}; it has {known}") from error
