"""Asking ingestion for exactly the rows that differ, and for a comparison of keys where the warehouse has too many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import itemgetter

from contracts.contract import Contract
from contracts.messages import RowsOf
from contracts.tables import Calendar
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.proof.comparison import Key, Kind
from services.operator.proof.statements import rows_with_date
from services.operator.proof.verdict import Verdict
from services.operator.system import System
from shared.postgres import Database

ROWS_MAXIMUM = 5_000  # in one command, far below what a message may hold
REPAIR_LIMIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Wish:
    """What one run is asked for."""

    reread: tuple[RowsOf, ...]
    compare_keys: bool


async def repair(system: System, verdict: Verdict) -> list[int]:
    """Have every named difference read again and loaded; the runs that did it. What is missing comes, what is extra is marked.

    Raises: NotLoadedError, and the errors of queues, objects and databases.
    """
    runs = []
    for wish in await wishes(system.contract, system.source, verdict):
        request = await request_run(system, reread=wish.reread, compare_keys=wish.compare_keys)
        runs.append((await wait_until_loaded(system, request, limit=REPAIR_LIMIT)).run)
    return runs


async def wishes(contract: Contract, source: Database, verdict: Verdict) -> list[Wish]:
    """The runs that would mend what was found."""
    differences = [difference for table in verdict.tables for difference in table.differences]
    has_extra = any(difference.kind is Kind.EXTRA for difference in differences)
    reread = list(_commands(await _rows(contract, source, verdict))) or ([()] if has_extra else [])
    return [Wish(rows, compare_keys=has_extra and not index) for index, rows in enumerate(reread)]


async def _rows(contract: Contract, source: Database, verdict: Verdict) -> dict[str, set[Key]]:
    """By source table, the keys of the rows that the differing star rows are made of."""
    wanted: dict[str, set[Key]] = {}
    for found in verdict.tables:
        table = contract.warehouse_table(found.table)
        keys = [difference.key for difference in found.differences if difference.kind is not Kind.EXTRA]
        if isinstance(table, Calendar):
            for name, dated in (await _rows_of_days(contract, source, table, keys)).items():
                wanted.setdefault(name, set()).update(dated)
        else:
            wanted.setdefault(table.source, set()).update(keys)
    return wanted


async def _rows_of_days(contract: Contract, source: Database, calendar: Calendar, days: list[Key]) -> Mapping[str, set[Key]]:
    """For each day of the calendar a row that refers to it: the day comes with it."""
    found: dict[str, set[Key]] = {}
    async with source.transaction(readonly=True) as connection:
        for fact, column in contract.references if days else ():
            if column.references == calendar.name:
                rows = await connection.fetch(rows_with_date(contract, fact, column), [str(day) for (day,) in days])
                found.setdefault(fact.source, set()).update(tuple(row) for row in rows)
    return found


def _commands(wanted: Mapping[str, set[Key]]) -> Iterator[tuple[RowsOf, ...]]:
    """Cut into commands of ROWS_MAXIMUM rows."""
    rows = [(table, key) for table, keys in sorted(wanted.items()) for key in sorted(keys)]
    for start in range(0, len(rows), ROWS_MAXIMUM):
        part = groupby(rows[start : start + ROWS_MAXIMUM], itemgetter(0))
        yield tuple(RowsOf(table=table, keys=tuple(key for _, key in group)) for table, group in part)
