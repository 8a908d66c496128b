"""Starlift's own tables in a warehouse, which an earlier version may have created."""

from __future__ import annotations

import asyncpg

from contracts.contract import Contract
from contracts.warehouse import (
    ADD_SINCE,
    COMPARISON,
    CREATE_OWN_TABLES,
    HAS_SINCE,
    KEY_LISTS,
    OWN_TABLES,
    TAKE_OVER_KEY_LISTS,
)
from shared.star_schema.evolution import Change
from shared.star_schema.schema import create_schema

_ARE_MISSING = "SELECT bool_or(to_regclass(name) IS NULL) FROM unnest($1::text[]) AS name"


async def own_changes(warehouse: asyncpg.Connection, contract: Contract) -> list[Change]:
    """The changes that they need; carry out only the first."""
    if await warehouse.fetchval(_ARE_MISSING, [contract.own(name) for name in OWN_TABLES]):
        statements = (create_schema(contract.ledger_schema), contract.own(CREATE_OWN_TABLES))
        return [Change(f"schema '{contract.ledger_schema}'", statements)]
    found = []
    if not await warehouse.fetchval(HAS_SINCE, contract.own(COMPARISON)):
        found.append(Change(f"the table of key comparisons, {contract.own(COMPARISON)}", tuple(map(contract.own, ADD_SINCE))))
    if await warehouse.fetchval("SELECT to_regclass($1) IS NOT NULL", contract.own(KEY_LISTS)):
        subject = f"{contract.own(KEY_LISTS)}, which key comparisons by hashes replace"
        found.append(Change(subject, tuple(map(contract.own, TAKE_OVER_KEY_LISTS))))
    return found
