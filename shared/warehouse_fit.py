"""What in a warehouse may keep the star from being created there: types that it lacks, and tables that are not Starlift's."""

from __future__ import annotations

import asyncpg

from contracts.contract import Contract
from contracts.warehouse import RUN
from shared.errors import PermanentError

_LACKED = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regtype(name) IS NULL"
_TABLES_OF_OTHERS = """
SELECT c.relname AS name
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[])
    AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped)
ORDER BY c.relname
"""


async def require_own_tables(warehouse: asyncpg.Connection, contract: Contract) -> None:
    """Check that every table with a name of the star has the column that Starlift's have. Raises: PermanentError."""
    names = [table.name for table in contract.warehouse_tables]
    found = [row["name"] for row in await warehouse.fetch(_TABLES_OF_OTHERS, contract.warehouse_schema, names, RUN)]
    if found:
        raise PermanentError(
            f"schema '{contract.warehouse_schema}' of the warehouse has tables that Starlift did not create "
            f"({', '.join(found)}: no column '{RUN}'); move them away, or give Starlift an empty database"
        )


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
