"""Look up rows of a source table by their keys."""

from __future__ import annotations

import json
from collections.abc import Sequence

import asyncpg

from contracts.contract import Contract
from contracts.tables import SourceTable
from shared.source_keys import KEYS_IN_LIST, Key, misspelled_column, select_found_keys


async def found_keys(source: asyncpg.Connection, contract: Contract, table: SourceTable, keys: Sequence[Key]) -> set[Key]:
    """Those of `keys` that a row of `table` has, in the transaction of `source`. A text equals only itself.

    Keys may be those of an earlier contract, which had other columns: no row has these.
    """
    found = set[Key]()
    possible = [key for key in keys if len(key) == len(table.key) and misspelled_column(table, key) is None]
    for start in range(0, len(possible), KEYS_IN_LIST):
        found |= await _found_in_list(source, contract, table, possible[start : start + KEYS_IN_LIST])
    return found.intersection(possible)  # a type may find a key by another spelling


async def _found_in_list(source: asyncpg.Connection, contract: Contract, table: SourceTable, keys: Sequence[Key]) -> set[Key]:
    """No row has a key that the column's type or the encoding of the source can't spell."""
    try:
        async with source.transaction():  # a savepoint: after an error the snapshot would be lost
            rows = await source.fetch(select_found_keys(contract, table, keys))
    except (asyncpg.DataError, asyncpg.UntranslatableCharacterError):
        if len(keys) == 1:
            return set()
        middle = len(keys) // 2
        return await _found_in_list(source, contract, table, keys[:middle]) | await _found_in_list(
            source, contract, table, keys[middle:]
        )
    return {tuple(json.loads(row[0])) for row in rows}
