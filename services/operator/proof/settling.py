"""The second look: rows that were in flight, now that a later run has brought them, or has not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from contracts.contract import Contract
from contracts.tables import Calendar
from services.operator.proof.causes import Cause, Wait
from services.operator.proof.comparison import Awaited, Key, Row, TableVerdict, difference_of
from services.operator.proof.look import Look
from services.operator.proof.statements import by_column, rows_of
from services.operator.proof.table_comparison import TableComparison, compare_table
from services.operator.proof.verdict import Verdict

SETTLE_KEYS = 1_000  # in one statement


async def compare_again(contract: Contract, first: Look, look: Look, verdict: Verdict, buckets: int) -> Verdict:
    """The verdict after a second look; between the two, a run that began after the `first` was loaded.

    A table whose waiting rows are not all remembered, such as the calendar, is compared again in full.
    Raises: DependencyDownError, PermanentError, TransientError.
    """
    tables = []
    for found in verdict.tables:
        table = contract.warehouse_table(found.table)
        if isinstance(table, Calendar) or found.waiting.total() > len(found.awaited) + len(found.deleted):
            tables.append(await compare_table(contract, look, table, buckets) if found.waiting else found)
        else:
            await _Settling(first, TableComparison(contract, look, table), found).settle()
            tables.append(found)
    return replace(verdict, progress=look.progress, standing=look.standing, tables=tuple(tables), settled_at=look.taken_at)


@dataclass(frozen=True, slots=True)
class _Settling:
    """The rows of one table that waited, and what was found in it."""

    first: Look
    comparison: TableComparison
    found: TableVerdict

    async def settle(self) -> None:
        """Judge every row that waited again."""
        if self.found.waiting:
            self.found.waiting.clear()
            await self.deleted()
            await self.awaited()

    async def deleted(self) -> None:
        """A row that keys were compared for since, and that is still there, differs."""
        found, table = self.found, self.comparison.table
        deleted, found.deleted = found.deleted, set()
        expected, actual = self.comparison.queries()
        for keys in _chunks(list(deleted), SETTLE_KEYS):
            sides = rows_of(expected, table), rows_of(actual, table)
            again = await self.comparison.walk(TableVerdict(table.name), sides, *by_column(table, keys))
            found.waiting += again.waiting
            found.quarantined += again.quarantined
            for difference in again.differences:
                found.differs(difference)

    async def awaited(self) -> None:
        """A row that the warehouse has not got differs, unless a run brought what it was and it was written again since."""
        found, table, look = self.found, self.comparison.table, self.comparison.look
        awaited, found.awaited = found.awaited, {}
        expected, actual = self.comparison.queries()
        causes, refused = look.causes(table), look.refused.get(table.name, {})
        for keys in _chunks(list(awaited), SETTLE_KEYS):
            given = by_column(table, keys)
            wanted = {row.key: row async for row in look.source.rows(rows_of(expected, table), table, causes, *given)}
            held = {row.key: row async for row in look.warehouse.rows(rows_of(actual, table), table, causes, *given)}
            found.actual += sum(awaited[key].is_missing for key in held)
            for key in set(keys) - wanted.keys():  # deleted at the source meanwhile
                found.expected -= 1
                if key in held:
                    found.is_deleted(key, look.deleted(table))
            for key, row in wanted.items():
                if key in held and held[key].values == row.values:
                    continue
                difference = difference_of(row, held.get(key), tuple(table.star_types))
                found.judge(difference, row, self._cause_now(row, awaited[key], held.get(key)), refused)

    def _cause_now(self, row: Row, before: Awaited, held: Row | None) -> Cause | None:
        """What the row still waits for after a run that began after the first look was loaded; usually nothing.

        It waits for a comparison of keys if its partner is gone and none was made since, and for a batch if a run that is not
        loaded read it last. It waits for another run if it was written again and its former version was loaded or refused
        since; without that, it differs however often it is written.
        """
        look, table = self.comparison.look, self.comparison.table
        if row.is_orphan and (look.comparisons.run(table) or 0) <= self.first.begun:
            return look.deleted(table)
        if row.cause is None or row.cause.wait is Wait.BATCH:
            return row.cause
        refusal = look.refused.get(table.name, {}).get(row.key)
        runs = [int(held.version) if held else 0, refusal.run if refusal else 0]
        has_come = any(self.first.through < run <= look.newest for run in runs)
        return Cause(Wait.RUN) if row.cause.wait is Wait.RUN and has_come and row.version != before.version else None


def _chunks(keys: list[Key], size: int) -> Iterator[list[Key]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
