"""What in a warehouse keeps the star from being created there: privileges, types that it lacks, and tables of others."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from contracts.contract import Contract
from contracts.warehouse import APPLIED_CONTRACT, RUN, TECHNICAL_COLUMNS
from shared.star_schema.schema import is_of_another_star, owner_mark

_PRIVILEGES = """
SELECT
    count(n.oid) = 2 OR has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
    array_agg(name) FILTER (WHERE NOT has_schema_privilege(n.oid, 'CREATE')) AS closed_schemas,
    has_database_privilege(current_database(), 'TEMPORARY') AS may_create_temporary_tables
FROM unnest($1::text[]) AS name LEFT JOIN pg_namespace AS n ON n.nspname = name
"""
_LACKED = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regtype(name) IS NULL"
_TABLES = """
SELECT c.relname AS name, a.attnum IS NOT NULL AS has_run, col_description(c.oid, a.attnum) AS mark
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[])
ORDER BY c.relname
"""
# A table of Starlift's: it has every technical column.
_RETIRED = """
SELECT c.relname AS name, col_description(c.oid, r.attnum) AS mark
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS r ON r.attrelid = c.oid AND r.attname = $4
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname <> ALL ($2::text[])
    AND ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = c.oid AND NOT a.attisdropped) @> $3::text[]
ORDER BY c.relname
"""


async def missing_privileges(warehouse: asyncpg.Connection, contract: Contract) -> list[str]:
    """What the role may not do, a sentence each."""
    may = dict(await warehouse.fetchrow(_PRIVILEGES, [contract.warehouse_schema, contract.ledger_schema]) or {})
    lacked = {
        "schemas; GRANT CREATE ON DATABASE …": may["may_create_schemas"],
        **{f"tables; GRANT CREATE ON SCHEMA {name}": False for name in may["closed_schemas"] or ()},
        "temporary tables; GRANT TEMPORARY ON DATABASE …": may["may_create_temporary_tables"],
    }
    remedy = "to it (`starlift grants warehouse`)"
    return [f"the warehouse role may not create {what} {remedy}" for what, is_allowed in lacked.items() if is_allowed is False]


async def names_taken(warehouse: asyncpg.Connection, contract: Contract, applied: Mapping[str, str]) -> list[str]:
    """Why the star can't have its names, a sentence each; `applied` are the contracts that the warehouse follows."""
    found = [
        f"schema '{contract.ledger_schema}' of the warehouse holds the ledger of another star, that of contract '{other}'; "
        f"give contract '{contract.name}' a `ledger_schema` of its own or, if it is the same contract renamed, update "
        f"{contract.own(APPLIED_CONTRACT)}"
        for other in applied
        if other != contract.name
    ]
    names = [table.name for table in contract.stored_tables]
    tables = await warehouse.fetch(_TABLES, contract.warehouse_schema, names, RUN)
    if strange := [row["name"] for row in tables if not row["has_run"]]:
        found.append(
            f"schema '{contract.warehouse_schema}' of the warehouse has tables that Starlift did not create "
            f"({', '.join(strange)}: no column '{RUN}'); move them away, or give Starlift an empty database"
        )
    mark = owner_mark(contract)
    if not found and (others := [row["name"] for row in tables if is_of_another_star(row["mark"], mark)]):
        found.append(
            f"schema '{contract.warehouse_schema}' of the warehouse has tables of another star ({', '.join(others)}); give "
            f"contract '{contract.name}' a `warehouse_schema` of its own or, if it is the same star, its former `ledger_schema`"
        )
    return found


async def missing_types(warehouse: asyncpg.Connection, contract: Contract) -> list[str]:
    """Why columns of the star can't have the types that they take verbatim, in at most one sentence."""
    used = {
        column.type.name: f"{table.name}.{column.name}"
        for table in contract.warehouse_tables
        for column in table.columns
        if column.type.is_verbatim
    }
    try:
        async with warehouse.transaction():  # a savepoint: more is to be asked after an error
            lacked = {row["name"] for row in await warehouse.fetch(_LACKED, list(used))}
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError) as error:  # words that are not the name of a type, or bad bounds
        return [f"the warehouse can't read a type of contract '{contract.name}': {error.args[0]}; correct the contract"]
    named = ", ".join(f"{name} ({used[name]})" for name in used if name in lacked)
    if not named:
        return []
    sentence = f"the warehouse lacks types that contract '{contract.name}' takes verbatim: {named}"
    return [f"{sentence}; create them there, or declare the columns TEXT"]


async def retired_tables(warehouse: asyncpg.Connection, contract: Contract) -> list[str]:
    """The tables of this star, by what it has marked, that the contract has no more."""
    names, mark = [table.name for table in contract.stored_tables], owner_mark(contract)
    found = await warehouse.fetch(_RETIRED, contract.warehouse_schema, names, list(TECHNICAL_COLUMNS), RUN)
    return [row["name"] for row in found if not is_of_another_star(row["mark"], mark)]
