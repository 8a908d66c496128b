"""One table of the star against the source: hashes of buckets first, then the rows of those that differ."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import asyncpg

from contracts.contract import Contract
from contracts.tables import Calendar, RemodelledTable, WarehouseTable
from services.operator.proof.causes import Cause
from services.operator.proof.comparison import Difference, Kind, TableVerdict, compare
from services.operator.proof.look import Look, both
from services.operator.proof.statements import actual_rows, by_column, digests, expected_dates, expected_rows, rows, wrong_dates


async def compare_table(contract: Contract, look: Look, table: WarehouseTable, buckets: int) -> TableVerdict:
    """Compare the first `buckets` buckets of a table; a calendar always whole.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    if isinstance(table, Calendar):
        return await _compare_calendar(contract, look, table)
    return await TableComparison(contract, look, table).run(buckets)


@dataclass(frozen=True, slots=True)
class TableComparison:
    """A table that is remodelled from a source table, seen in one look at both databases."""

    contract: Contract
    look: Look
    table: RemodelledTable

    async def run(self, buckets: int) -> TableVerdict:
        """Compare the rows of the first `buckets` buckets. Raises: DependencyDownError, PermanentError, TransientError."""
        expected, actual = self.queries()
        left, right = await both(
            self.look.source.fetch(digests(expected, self.table), buckets),
            self.look.warehouse.fetch(digests(actual, self.table), buckets),
        )
        equal = set(left) & set(right)
        differing = sorted({record["bucket"] for record in (set(left) ^ set(right))})
        row_count = sum(record["row_count"] for record in equal)
        verdict = TableVerdict(self.table.name, expected=row_count, actual=row_count, digest=_digest(left))
        if not differing:
            return verdict
        return await self.walk(verdict, (rows(expected, self.table), rows(actual, self.table)), differing)

    def queries(self) -> tuple[str, str]:
        """On the source, and on the warehouse."""
        return (
            expected_rows(self.contract, self.table, self.look.unseen(self.table)),
            actual_rows(self.contract, self.table),
        )

    async def walk(self, verdict: TableVerdict, sides: tuple[str, str], *arguments: object) -> TableVerdict:
        """Row by row."""
        look, table = self.look, self.table
        causes = look.causes(table)
        return await compare(
            verdict,
            look.source.rows(sides[0], table, causes, *arguments),
            look.warehouse.rows(sides[1], table, causes, *arguments),
            tuple(table.star_types),
            look.refused.get(table.name, {}),
            partial(look.comparisons.known, table),
            look.deleted(table),
        )


async def _compare_calendar(contract: Contract, look: Look, calendar: Calendar) -> TableVerdict:
    """Dates of older versions stay in the calendar, so none is extra."""
    dates = await _expected_dates(contract, look, calendar)
    verdict = TableVerdict(calendar.name, expected=len(dates), actual=len(dates))
    for row in await look.warehouse.fetch(wrong_dates(contract, calendar), list(dates)):
        verdict.actual -= row["is_missing"]
        if row["is_missing"] and (cause := dates[row["date"]]) is not None:
            verdict.waiting[cause] += 1
        else:
            verdict.differs(Difference(Kind.MISSING if row["is_missing"] else Kind.DIFFERENT, (row["date"],)))
    return verdict


async def _expected_dates(contract: Contract, look: Look, calendar: Calendar) -> dict[str, Cause | None]:
    """Each date that a fact refers to, with a cause if all rows that refer to it wait; rows in quarantine don't count."""
    dates: dict[str, Cause | None] = {}
    for fact in contract.facts:
        statement = expected_dates(contract, calendar, fact, look.unseen(fact))
        if statement is not None:
            causes, refused = look.causes(fact), by_column(fact, look.refused.get(fact.name, {}))
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
