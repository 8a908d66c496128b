"""The foreign keys of a star: added while no load runs, and validated while others load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import asyncpg
import structlog

from contracts.contract import Contract
from shared.sql import quoted
from shared.star_schema.schema import foreign_keys

FACTS_AT_ONCE = 2  # whose foreign keys are validated

Transaction = Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]  # opens one in the warehouse

_FOUND = """
SELECT conname, convalidated, conrelid::regclass::text AS fact
FROM pg_constraint WHERE contype = 'f' AND connamespace = $1::text::regnamespace
"""

_log = structlog.stdlib.get_logger()


async def add_foreign_keys(connection: asyncpg.Connection, contract: Contract) -> None:
    """Add the missing ones; from now on the server checks each new row, but not yet the existing ones."""
    known = {row["conname"] for row in await connection.fetch(_FOUND, quoted(contract.warehouse_schema))}
    for name, statement in foreign_keys(contract):
        if name not in known:
            await connection.execute(f"{statement} NOT VALID")


async def validate_foreign_keys(transaction: Transaction, contract: Contract) -> bool:
    """Have the server check all rows; return whether each reference leads to a row. Valid keys are not checked again."""
    wanted, actions, turns = dict(foreign_keys(contract)), dict[str, list[str]](), asyncio.Semaphore(FACTS_AT_ONCE)
    async with transaction() as connection:
        found = {row["conname"]: row for row in await connection.fetch(_FOUND, quoted(contract.warehouse_schema))}
    if not wanted.keys() <= found.keys():
        return False
    for name in wanted:
        if not found[name]["convalidated"]:
            actions.setdefault(found[name]["fact"], []).append(f"VALIDATE CONSTRAINT {quoted(name)}")

    async def validate(fact: str) -> bool:
        async with turns, transaction() as connection:
            try:
                async with connection.transaction():
                    await connection.execute(f"ALTER TABLE {fact} {', '.join(actions[fact])}")
            except asyncpg.ForeignKeyViolationError as error:
                _log.info("reference_leads_nowhere", reason=error.args[0])
                return False
        return True

    return all(await asyncio.gather(*map(validate, actions)))
