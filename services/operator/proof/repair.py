"""Asking ingestion for exactly the rows that differ, and for a comparison of keys where the warehouse has too many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import itemgetter

from contracts.messages import RowsOf
from contracts.tables import Calendar
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.proof.delivered import open_tables
from services.operator.proof.expected import rows_with_date
from services.operator.proof.row_comparison import Mismatch
from services.operator.proof.verdict import Verdict
from services.operator.system import System
from shared.source_keys import Key

ROWS_MAXIMUM = 5_000  # in one command, far below what a message may hold
REPAIR_LIMIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class RepairRun:
    """What one run is asked for."""

    reread: tuple[RowsOf, ...]  # rows of source tables
    compare_keys: bool


async def repair(system: System, verdict: Verdict) -> list[int]:
    """Have every named difference read again and loaded; return the runs that did it.

    What is missing is loaded, what is extra is marked as deleted. Raises: NotLoadedError, and the errors of queues, objects and
    databases.
    """
    runs = []
    for wanted in await plan_repair(system, verdict):
        request = await request_run(system, reread=wanted.reread, compare_keys=wanted.compare_keys)
        runs.append((await wait_until_loaded(system, request, limit=REPAIR_LIMIT)).run)
    return runs


async def plan_repair(system: System, verdict: Verdict) -> list[RepairRun]:
    """The runs that would correct what was found."""
    has_extra = any(one.kind is Mismatch.EXTRA for table in verdict.tables for one in table.differences)
    reread = list(_in_commands(await _rows_to_read(system, verdict))) or ([()] if has_extra else [])
    return [RepairRun(rows, compare_keys=has_extra and not index) for index, rows in enumerate(reread)]


async def _rows_to_read(system: System, verdict: Verdict) -> dict[str, set[Key]]:
    """By source table, the keys of the rows that the differing star rows are made of."""
    wanted: dict[str, set[Key]] = {}
    for found in verdict.tables:
        table = system.contract.warehouse_table(found.table)
        keys = [difference.key for difference in found.differences if difference.kind is not Mismatch.EXTRA]
        if isinstance(table, Calendar):
            for source, dated in (await _rows_of_days(system, table, keys)).items():
                wanted.setdefault(source, set()).update(dated)
        else:
            wanted.setdefault(table.source, set()).update(keys)
    return wanted


async def _rows_of_days(system: System, calendar: Calendar, days: list[Key]) -> Mapping[str, set[Key]]:
    """For each day of the calendar a row that refers to it: the day comes with it."""
    found: dict[str, set[Key]] = {}
    if not days:
        return found
    async with open_tables(system) as (connection, contract):
        for fact, column in contract.references_to(calendar.name):
            if fact not in contract.facts:  # another source's, which a proof of it repairs
                continue
            rows = await connection.fetch(rows_with_date(contract, fact, column), [str(day) for (day,) in days])
            found.setdefault(fact.source, set()).update(tuple(row) for row in rows)
    return found


def _in_commands(wanted: Mapping[str, set[Key]]) -> Iterator[tuple[RowsOf, ...]]:
    """The rows to read, cut into commands of ROWS_MAXIMUM rows."""
    rows = [(table, key) for table, keys in sorted(wanted.items()) for key in sorted(keys)]
    for start in range(0, len(rows), ROWS_MAXIMUM):
        part = groupby(rows[start : start + ROWS_MAXIMUM], itemgetter(0))
        yield tuple(RowsOf(table=table, keys=tuple(key for _, key in group)) for table, group in part)
