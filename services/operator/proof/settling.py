"""The second look: rows that were in flight, now that a later run has brought them, or has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.tables import Calendar
from services.operator.proof.canonical import rows_of_keys
from services.operator.proof.causes import Cause, Wait
from services.operator.proof.comparison import Awaited, Row, TableFindings, difference_of
from services.operator.proof.look import Look
from services.operator.proof.table_comparison import TableComparison, compare_table
from services.operator.star_keys import by_column

SETTLE_KEYS = 1_000  # in one statement


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
        elif isinstance(table, Calendar) or found.waiting.total() > len(found.awaited) + len(found.deleted):
            again.append(await compare_table(look, table, buckets))
        else:
            found.waiting.clear()
            settling = _Settling(first, TableComparison(look, table), found)
            await settling.settle_deleted()
            await settling.settle_awaited()
            again.append(found)
    return again


@dataclass(frozen=True, slots=True)
class _Settling:
    """The rows of one table that waited, and what was found in it."""

    first: Look
    comparison: TableComparison
    found: TableFindings

    async def settle_deleted(self) -> None:
        """A row that keys were compared for since, and that is still there, differs."""
        found, table = self.found, self.comparison.table
        deleted, found.deleted = list(found.deleted), set()
        expected, actual = self.comparison.queries()
        for start in range(0, len(deleted), SETTLE_KEYS):
            keys = by_column(table, deleted[start : start + SETTLE_KEYS])
            again = TableFindings(table.name)  # of its own: these rows are in the sums already
            await self.comparison.walk(again, (rows_of_keys(expected, table), rows_of_keys(actual, table)), *keys)
            found.waiting += again.waiting
            found.quarantined += again.quarantined
            for difference in again.differences:
                found.add_difference(difference)

    async def settle_awaited(self) -> None:
        """A row that the warehouse still lacks differs, unless a run brought what it was and it was written again since."""
        found, table, look = self.found, self.comparison.table, self.comparison.look
        awaited, found.awaited = found.awaited, {}
        expected, actual = (rows_of_keys(query, table) for query in self.comparison.queries())
        causes, refused = look.unseen(table).causes, look.refused.get(table.name, {})
        remembered = list(awaited)
        for start in range(0, len(remembered), SETTLE_KEYS):
            keys = remembered[start : start + SETTLE_KEYS]
            given = by_column(table, keys)
            wanted = {row.key: row async for row in look.source.rows(expected, table, causes, *given)}
            held = {row.key: row async for row in look.warehouse.rows(actual, table, (), *given)}
            found.actual += sum(awaited[key].is_missing for key in held)
            for key in set(keys) - wanted.keys():  # deleted at the source meanwhile
                found.expected -= 1
                if key in held:
                    found.add_deleted(key, look.deleted_cause(table))
            for key, row in wanted.items():
                if key in held and held[key].values == row.values:
                    continue
                difference = difference_of(row, held.get(key), tuple(table.star_types))
                found.add_mismatch(difference, row, self._cause_now(row, awaited[key], held.get(key)), refused)

    def _cause_now(self, row: Row, before: Awaited, held: Row | None) -> Cause | None:
        """What the row still waits for after a run that began after the first look was loaded; usually nothing.

        It waits for a comparison of keys if its partner is gone and none was made since, and for a batch if a run that is not
        loaded read it last. It waits for another run if it was written again and its former version was loaded or refused
        since; without that, it differs however often it is written.
        """
        look, table = self.comparison.look, self.comparison.table
        compared = look.comparisons.get(table.name)
        if row.is_orphan and (compared is None or compared.run <= self.first.begun):
            return look.deleted_cause(table)
        if row.cause is None or row.cause.wait is Wait.BATCH:
            return row.cause
        refusal = look.refused.get(table.name, {}).get(row.key)
        runs = [int(held.version) if held else 0, refusal.run if refusal else 0]
        has_come = any(self.first.through < run <= look.newest for run in runs)
        return Cause(Wait.RUN) if row.cause.wait is Wait.RUN and has_come and row.version != before.version else None
