"""One table of the star against the source: hashes of buckets first, then the rows of those that differ.

Once a later run is loaded, the rows that waited are compared again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import cast

import asyncpg

from contracts.tables import Calendar, Dimension, RemodelledTable, Versions, WarehouseTable
from services.operator.proof.actual import actual_rows, newest_versions, wrong_dates
from services.operator.proof.canonical import digests, rows_in_buckets, rows_of_keys, rows_unlike
from services.operator.proof.expected import expected_dates, expected_rows
from services.operator.proof.loaded import brought_by_batches, inferred_by_batches
from services.operator.proof.look import Look
from services.operator.proof.row_comparison import (
    NAMED_MAXIMUM,
    Both,
    Cause,
    Difference,
    Mismatch,
    Row,
    TableFindings,
    Wait,
    WaitingRow,
    compare,
    difference_of,
)
from services.operator.star_keys import by_column
from shared.source_keys import Key

SETTLE_KEYS = 1_000  # in one statement


async def compare_table(look: Look, table: WarehouseTable, buckets: int) -> TableFindings:
    """Compare the rows of the first `buckets` buckets of a table; of the calendar, which is small, every row.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    if isinstance(table, Calendar):
        return await _compare_calendar(look, table)
    return await _TableComparison(look, table).compare(buckets)


async def compare_again(first: Look, look: Look, findings: Sequence[TableFindings], buckets: int) -> list[TableFindings]:
    """What a second `look` finds; between the two, a run that began after the `first` was loaded.

    A table whose waiting rows are not all remembered is compared again in full, as is the calendar, which remembers none.
    Raises: DependencyDownError, PermanentError, TransientError.
    """
    again = []
    for found in findings:
        table = look.contract.warehouse_table(found.table)
        if not found.waiting:
            again.append(found)
        elif isinstance(table, Calendar) or found.waiting.total() > len(found.waiting_rows) + len(found.deleted):
            again.append(await compare_table(look, table, buckets))
        else:
            found.waiting.clear()
            await _TableComparison(look, table).settle_deleted(found, first)
            await _TableComparison(look, table).settle_waiting(found, first)
            again.append(found)
    return again


@dataclass(frozen=True, slots=True)
class _TableComparison:
    """A dimension or a fact, seen in one look at both databases."""

    look: Look
    table: RemodelledTable

    async def compare(self, buckets: int) -> TableFindings:
        """Compare hashes of buckets, then row by row those that differ."""
        expected, actual = self._queries()
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
            await self._compare_rows(findings, rows_in_buckets, differing)
        if isinstance(self.table, Dimension) and self.table.versions is not None:
            await self._compare_versions(findings, self.table.versions, buckets)
        return findings

    async def _compare_versions(self, findings: TableFindings, versions: Versions, buckets: int) -> None:
        """The newest version of each key is the dimension's row: both are of one snapshot, so no row waits for anything."""
        known = {difference.key for difference in findings.differences}
        sides = actual_rows(self.look.contract, self.table), newest_versions(self.look.contract, versions)
        statement = f"{rows_unlike(*sides, self.table)} LIMIT {NAMED_MAXIMUM}"
        for *key, expected, actual in await self.look.warehouse.fetch(statement, buckets):
            if tuple(key) not in known:
                findings.add_difference(_difference_of_version(versions, tuple(key), expected, actual))

    async def settle_deleted(self, found: TableFindings, first: Look) -> None:
        """A row that is still there differs, if keys were compared since the `first` look and every question is answered.

        Not a row that a run has brought since that look: it came back, perhaps before that comparison, and is deleted again.
        """
        deleted, found.deleted = list(found.deleted), set()
        since = first.begun + 1 if self.look.has_answered(self.table, first.begun) else 0
        for start in range(0, len(deleted), SETTLE_KEYS):
            again = TableFindings(self.table.name)  # of its own: these rows are in the sums already
            keys = by_column(self.table, deleted[start : start + SETTLE_KEYS])
            await self._compare_rows(again, rows_of_keys, *keys, since=since)
            found.waiting += again.waiting
            found.quarantined += again.quarantined
            for difference in again.differences:
                found.add_difference(difference)

    async def settle_waiting(self, found: TableFindings, first: Look) -> None:
        """A row that the warehouse still lacks differs, unless a run brought what it was and it was written again since."""
        look, table = self.look, self.table
        refused = look.refused.get(table.name, {})
        waited, found.waiting_rows = found.waiting_rows, {}
        remembered = list(waited)
        for start in range(0, len(remembered), SETTLE_KEYS):
            keys = remembered[start : start + SETTLE_KEYS]
            expected, actual = self._rows(rows_of_keys, *by_column(table, keys))
            wanted = {row.key: row async for row in expected}
            held = {row.key: row async for row in actual}
            found.actual += sum(waited[key].is_missing for key in held)
            for key in set(keys) - wanted.keys():  # deleted at the source meanwhile
                found.expected -= 1
                if key in held:
                    found.add_deleted(key, look.deleted_cause(table))
            for key, row in wanted.items():
                if key in held and held[key].values == row.values:
                    continue
                difference = difference_of(row, held.get(key), tuple(table.star_types))
                found.add_mismatch(difference, row, self._cause_now(row, waited[key], held.get(key), first), refused)

    def _cause_now(self, row: Row, before: WaitingRow, held: Row | None, first: Look) -> Cause | None:
        """What the row still waits for after a run that began after the first look was loaded; usually nothing.

        It waits for a comparison of keys if its partner is gone and none was made since, and for a batch if a run that is not
        loaded read it last. It waits for another run if it was written again and its former version was loaded or refused
        since; without that, it differs however often it is written.
        """
        look, table = self.look, self.table
        if row.is_orphan and not look.has_answered(table, first.begun):
            return look.deleted_cause(table)
        if row.cause is None or row.cause.wait is Wait.BATCH:
            return row.cause
        refusal = look.refused.get(table.name, {}).get(row.key)
        runs = [int(held.stamp) if held else 0, refusal.run if refusal else 0]
        has_come = any(first.through < run <= look.newest for run in runs)
        return Cause(Wait.RUN) if row.cause.wait is Wait.RUN and has_come and row.stamp != before.stamp else None

    async def _compare_rows(
        self, findings: TableFindings, listed: Callable[[str, WarehouseTable], str], *arguments: object, since: int = 0
    ) -> None:
        """Compare row by row, and add to `findings`. Rows that the source lacks wait if a run from `since` on brought them."""
        look, table = self.look, self.table
        await compare(
            findings,
            *self._rows(listed, *arguments),
            tuple(table.star_types),
            look.refused.get(table.name, {}),
            partial(self._explained, since),
        )

    async def _explained(self, since: int, keys: Collection[Key]) -> dict[Key, Cause | None]:
        """What the rows that the source lacks wait for; None for inferred members.

        A row that is at the source and that the filter has come to reject waits for the run or the batch that reads it.
        """
        look, table = self.look, self.table
        of = (look.store, look.warehouse, look.contract, table)
        causes = dict[Key, Cause | None].fromkeys(await inferred_by_batches(*of, keys))
        brought = await brought_by_batches(*of, since, keys)
        causes |= dict.fromkeys(brought, look.deleted_cause(table))
        if table.where is not None and brought:
            by_age, everything = look.causes_by_age(table), replace(table, where=None)
            statement = rows_of_keys(expected_rows(look.contract, everything, by_age), table)
            async for row in look.source.rows(statement, table, by_age.causes, *by_column(table, brought)):
                causes[row.key] = row.cause or causes[row.key]
        return causes

    def _rows(
        self, listed: Callable[[str, WarehouseTable], str], *arguments: object
    ) -> tuple[AsyncIterator[Row], AsyncIterator[Row]]:
        """The rows of both sides that the statement `listed` (of canonical.py) selects by `arguments`."""
        (expected, actual), causes = self._queries(), self.look.causes_by_age(self.table).causes
        unproved = tuple(self.look.unproved_in(self.table).values())
        return (
            self.look.source.rows(listed(expected, self.table), self.table, causes, *arguments),
            self.look.warehouse.rows(listed(actual, self.table), self.table, unproved, *arguments),
        )

    def _queries(self) -> tuple[str, str]:
        """The table's two sides: on the source, and on the warehouse."""
        look, table = self.look, self.table
        return (
            expected_rows(look.contract, table, look.causes_by_age(table)),
            actual_rows(look.contract, table, look.unproved_in(table)),
        )


def _difference_of_version(
    versions: Versions, key: Key, expected: Sequence[str | None] | None, actual: Sequence[str | None] | None
) -> Difference:
    """How the newest version of a key differs from the dimension's row; one that is missing is read again by a repair."""
    if expected is None or actual is None:
        kind = Mismatch.EXTRA if expected is None else Mismatch.MISSING
        return Difference(
            kind, key, {versions.name: Both(*("no version" if one is None else "a version" for one in (expected, actual)))}
        )
    pairs = zip(versions.star_types, expected, actual, strict=True)
    return Difference(
        Mismatch.DIFFERENT, key, {f"{versions.name}.{name}": Both(*both) for name, *both in pairs if both[0] != both[1]}
    )


def _digest(buckets: Iterable[asyncpg.Record]) -> str:
    """One hash of a table's buckets, short enough to be read out."""
    lines = sorted(f"{record['bucket']}:{record['row_count']}:{record['digest']}" for record in buckets)
    return sha256("\n".join(lines).encode()).hexdigest()[:16]


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
            findings.add_difference(Difference(Mismatch.MISSING if row["is_missing"] else Mismatch.DIFFERENT, (row["date"],)))
    return findings


async def _expected_dates(look: Look, calendar: Calendar) -> dict[str, Cause | None]:
    """Each date that a fact refers to, with a cause if all rows that refer to it wait; rows in quarantine don't count."""
    dates = dict[str, Cause | None]()
    for fact in look.contract.facts:
        by_age = look.causes_by_age(fact)
        statement = expected_dates(look.contract, calendar, fact, by_age)
        if statement is not None:
            for row in await look.source.fetch(statement, *by_column(fact, look.refused.get(fact.name, {}))):
                if _is_date(date := row["date"]):
                    cause = None if row["cause"] is None else by_age.causes[row["cause"]]
                    dates[date] = dates.get(date, cause) and cause
    return dates


def _is_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
