"""Making every reference of a fact lead to a row: dates of the calendar, inferred members of dimensions."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from contracts.calendar import CALENDAR_PARTS
from contracts.contract import Contract
from contracts.origins import CalendarPart
from contracts.tables import Calendar, Dimension, WarehouseTable
from services.loading.merge import insert_inferred_members, merge_date, select_referred_dates


async def insert_referred(
    connection: asyncpg.Connection,
    contract: Contract,
    table: WarehouseTable,
    facts: tuple[WarehouseTable, ...],
    *,
    staged_by: UUID | None = None,
) -> list[str]:
    """Insert the missing rows of `table` that rows of `facts` refer to: the rows staged by a batch, or those of the star.

    Returns the keys of new inferred members, as tombstones have them; not those of rows of the star, which may be millions.
    """
    are_staged = staged_by is not None
    if isinstance(table, Calendar):
        if referred := select_referred_dates(contract, table, facts, are_staged=are_staged):
            parts = [CALENDAR_PARTS[column.origin.part] for column in table.columns if isinstance(column.origin, CalendarPart)]
            dates = [row["date"] for row in await connection.fetch(referred)]
            await connection.executemany(merge_date(contract, table), [[str(part(date)) for part in parts] for date in dates])
        return []
    if isinstance(table, Dimension) and (insert := insert_inferred_members(contract, table, facts, are_staged=are_staged)):
        if are_staged:
            return [row["key"] for row in await connection.fetch(insert, staged_by)]
        await connection.execute(insert)
    return []
