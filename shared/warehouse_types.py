"""Which types of the contract the warehouse lacks: an extension's, or one of the source's own."""

from __future__ import annotations

import asyncpg

from contracts.contract import Contract
from shared.errors import PermanentError

_LACKED = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regtype(name) IS NULL"


async def require_types(warehouse: asyncpg.Connection, contract: Contract) -> None:
    """Check that the warehouse has each type that a column of the star takes verbatim. Raises: PermanentError."""
    used = {
        column.type.name: f"{table.name}.{column.name}"
        for table in contract.warehouse_tables
        for column in table.columns
        if column.type.is_verbatim
    }
    try:
        lacked = {row["name"] for row in await warehouse.fetch(_LACKED, list(used))}
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError) as error:  # words that are not the name of a type, or bad bounds
        raise PermanentError(
            f"the warehouse can't read a type of contract '{contract.name}': {error.args[0]}; correct the contract"
        ) from error
    if lacked:
        named = ", ".join(f"{name} ({used[name]})" for name in used if name in lacked)
        raise PermanentError(
            f"the warehouse lacks types that contract '{contract.name}' takes verbatim: {named}; create them there, or declare "
            "the columns TEXT"
        )
