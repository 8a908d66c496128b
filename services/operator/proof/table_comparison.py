"""One table of the star against the source: hashes of buckets first, then the rows of those that differ."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import cast

import asyncpg

from contracts.tables import Calendar, RemodelledTable, WarehouseTable
from services.operator.proof.actual import actual_rows, wrong_dates
from services.operator.proof.canonical import digests, rows_in_buckets
from services.operator.proof.causes import Cause
from services.operator.proof.comparison import Difference, Kind, TableFindings, compare
from services.operator.proof.expected import expected_dates, expected_rows
from services.operator.proof.loaded import once_at_source
from services.operator.proof.look import Look
from services.operator.star_keys import by_column


async def compare_table(look: Look, table: WarehouseTable, buckets: int) -> TableFindings:
    """Compare the rows of the first `buckets` buckets of a table; of the calendar, which is small, every row.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    if isinstance(table, Calendar):
        return await _compare_calendar(look, table)
    return await TableComparison(look, table).run(buckets)


@dataclass(frozen=True, slots=True)
class TableComparison:
    """A dimension or a fact, seen in one look at both databases."""

    look: Look
    table: RemodelledTable

    async def run(self, buckets: int) -> TableFindings:
        """Compare hashes of buckets, then row by row those that differ."""
        expected, actual = self.queries()
        fetched = await asyncio.gather(
            self.look.source.fetch(digests(expected, self.table), buckets),
            self.look.warehouse.fetch(digests(actual, self.table), buckets),
            return_exceptions=True,  # if one fails the other is waited for: a connection that is left busy would raise that
        )
        for answer in fetched:
            if isinstance(answer, BaseException):
                raise answer
        left, right = (set(cast("list[asyncpg.Record]", answer)) for answer in fetched)
        row_count = sum(record["row_count"] for record in left & right)
        findings = TableFindings(self.table.name, expected=row_count, actual=row_count, digest=_digest(left))
        if differing := sorted({record["bucket"] for record in left ^ right}):
            sides = rows_in_buckets(expected, self.table), rows_in_buckets(actual, self.table)
            await self.walk(findings, sides, differing)
        return findings

    def queries(self) -> tuple[str, str]:
        """The table's two sides: on the source, and on the warehouse."""
        contract = self.look.contract
        return expected_rows(contract, self.table, self.look.unseen(self.table)), actual_rows(contract, self.table)

    async def walk(self, findings: TableFindings, sides: tuple[str, str], *arguments: object) -> None:
        """Compare row by row what the statements of both sides return, and add to `findings`."""
        look, table = self.look, self.table
        await compare(
            findings,
            look.source.rows(sides[0], table, look.unseen(table).causes, *arguments),
            look.warehouse.rows(sides[1], table, (), *arguments),
            tuple(table.star_types),
            look.refused.get(table.name, {}),
            partial(once_at_source, look.store, look.warehouse.connection, table, look.comparisons.get(table.name)),
            look.deleted_cause(table),
        )


async def _compare_calendar(look: Look, calendar: Calendar) -> TableFindings:
    """Compare the dates that facts refer to, and describe, with those of the calendar.

    Dates of older versions stay in the calendar, so none is extra.
    """
    dates = await _expected_dates(look, calendar)
    findings = TableFindings(calendar.name, expected=len(dates), actual=len(dates))
    for row in await look.warehouse.fetch(wrong_dates(look.contract, calendar), list(dates)):
        findings.actual -= row["is_missing"]
        if row["is_missing"] and (cause := dates[row["date"]]) is not None:
            findings.waiting[cause] += 1
        else:
            findings.add_difference(Difference(Kind.MISSING if row["is_missing"] else Kind.DIFFERENT, (row["date"],)))
    return findings


async def _expected_dates(look: Look, calendar: Calendar) -> dict[str, Cause | None]:
    """Each date that a fact refers to, with a cause if all rows that refer to it wait; rows in quarantine don't count."""
    dates = dict[str, Cause | None]()
    for fact in look.contract.facts:
        unseen = look.unseen(fact)
        statement = expected_dates(look.contract, calendar, fact, unseen)
        if statement is not None:
            causes, refused = unseen.causes, by_column(fact, look.refused.get(fact.name, {}))
            for row in await look.source.fetch(statement, *refused):
                if _is_date(date := row["date"]):
                    cause = None if row["waits"] is None else causes[row["waits"]]
                    dates[date] = dates.get(date, cause) and cause
    return dates


def _digest(buckets: Iterable[asyncpg.Record]) -> str:
    """One hash of a table's buckets, short enough to be read out."""
    lines = sorted(f"{record['bucket']}:{record['row_count']}:{record['digest']}" for record in buckets)
    return sha256("\n".join(lines).encode()).hexdigest()[:16]


def _is_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
