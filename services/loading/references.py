"""Making every reference of a fact lead to a row: dates of the calendar, inferred members of dimensions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from contracts.calendar import CALENDAR_PARTS
from contracts.contract import Contract
from contracts.origins import CalendarPart
from contracts.tables import Calendar, Dimension, WarehouseTable
from services.loading.merge import insert_inferred_members, merge_date, select_referred_dates
from services.loading.staging import Staged
from shared.sql import quoted
from shared.star_schema.schema import relation

if TYPE_CHECKING:
    import pandas as pd

_EPOCH = dt.date(1970, 1, 1)


async def insert_referred(
    rows: Staged,
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
            await _merge_dates(rows.connection, contract, table, (row["date"] for row in await rows.fetch(referred)))
        return []
    if isinstance(table, Dimension) and (insert := insert_inferred_members(contract, table, facts, are_staged=are_staged)):
        if are_staged:
            return [row["key"] for row in await rows.fetch(insert, staged_by)]
        await rows.execute(insert)
    return []


async def insert_dates(connection: asyncpg.Connection, contract: Contract, rows: Mapping[str, pd.DataFrame]) -> None:
    """Insert the dates that rows of a batch, by table, refer to and that calendars lack.

    Found here they cost a tenth of what the server needs to find those of a whole first load in its tables.
    """
    for calendar in contract.warehouse_tables:
        if not isinstance(calendar, Calendar):
            continue
        referring = (
            rows[fact.name][column.name]
            for fact in contract.facts
            for column in fact.columns
            if fact.name in rows and column.references == calendar.name
        )
        days = {int(day) for column in referring for day in column.dropna().unique()}
        there = await connection.fetch(f"SELECT {quoted(calendar.key[0])} FROM {relation(contract, calendar)}")
        missing = {_EPOCH + dt.timedelta(days=day) for day in days}.difference(date for (date,) in there)
        await _merge_dates(connection, contract, calendar, sorted(missing))


async def _merge_dates(
    connection: asyncpg.Connection, contract: Contract, calendar: Calendar, dates: Iterable[dt.date]
) -> None:
    """In one order for all loaders: none waits for another in a circle."""
    parts = [CALENDAR_PARTS[column.origin.part] for column in calendar.columns if isinstance(column.origin, CalendarPart)]
    await connection.executemany(merge_date(contract, calendar), [[str(part(date)) for part in parts] for date in dates])
