"""Row counts of the star's tables, without waiting for a lock or a long scan."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

import asyncpg

from contracts.contract import Contract
from shared.sql import quoted

COUNTED_PAGES = 25_000  # 200 MB: a scan of more takes longer than a person waits
LOCK_LIMIT = timedelta(milliseconds=50)
_ESTIMATES = (files("services.operator") / "queries" / "table_estimates.sql").read_text()


@dataclass(frozen=True, slots=True)
class RowCount:
    """Rows of a table, deleted ones included; None if the table does not exist (`exists`), or is locked and has no estimate."""

    rows: int | None
    exists: bool = True
    is_estimate: bool = False


async def count_rows(connection: asyncpg.Connection, contract: Contract, limit: timedelta) -> dict[str, RowCount]:
    """Count the rows of every warehouse table within `limit`; a large or locked table gets the planner's estimate."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + limit.total_seconds()
    names = [table.name for table in contract.warehouse_tables]
    found = {row["name"]: row for row in await connection.fetch(_ESTIMATES, contract.warehouse_schema, names)}
    counts: dict[str, RowCount] = {}
    for name in names:
        if name not in found:
            counts[name] = RowCount(None, exists=False)
            continue
        counted = None
        if found[name]["pages"] <= COUNTED_PAGES and clock() < deadline:
            counted = await _count(connection, quoted(contract.warehouse_schema, name), limit / 2)
        estimate = found[name]["estimate"]  # -1 before the first ANALYZE
        counts[name] = RowCount(max(estimate, 0) or None, is_estimate=True) if counted is None else RowCount(counted)
    return counts


async def _count(connection: asyncpg.Connection, relation: str, limit: timedelta) -> int | None:
    """The exact count; None if the table is locked or the scan takes too long."""
    try:
        async with connection.transaction(readonly=True):
            await connection.execute(
                f"SET LOCAL lock_timeout = {_milliseconds(LOCK_LIMIT)}; SET LOCAL statement_timeout = {_milliseconds(limit)}"
            )
            return int(await connection.fetchval(f"SELECT count(*) FROM {relation}"))
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
        return None


def _milliseconds(span: timedelta) -> int:
    return int(span / timedelta(milliseconds=1))
