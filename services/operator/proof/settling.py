"""The second look: rows that were in flight, now that a later run has brought them, or has not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from contracts.tables import Contract, TableKind
from services.operator.proof.comparison import Awaited, Difference, Key, Kind, Row, TableVerdict, differing, is_excused
from services.operator.proof.look import Look
from services.operator.proof.statements import by_column, rows_of
from services.operator.proof.table_comparison import TableComparison
from services.operator.proof.verdict import Verdict

SETTLE_KEYS = 1_000  # in one statement


async def compare_again(contract: Contract, first: Look, look: Look, verdict: Verdict) -> Verdict:
    """The verdict of the `first` look after another one. Raises: DependencyDownError, PermanentError, TransientError."""
    for found in verdict.tables:
        comparison = TableComparison(contract, look, contract.warehouse_table(found.table))
        if comparison.table.kind is TableKind.CALENDAR and found.in_flight:
            again = await comparison.calendar()
            found.in_flight, found.differences = again.in_flight, again.differences
        elif found.awaited or found.deleted:
            settling = _Settling(first, comparison, found)
            await settling.deleted()
            await settling.awaited()
    return replace(verdict, settled_at=look.taken_at)


@dataclass(frozen=True, slots=True)
class _Settling:
    """One table's rows in flight, and what was found of it."""

    first: Look
    comparison: TableComparison
    found: TableVerdict

    async def deleted(self) -> None:
        """A row that keys were compared for since, and that is still there, differs."""
        found, table = self.found, self.comparison.table
        deleted, found.deleted = found.deleted, set()
        found.in_flight -= len(deleted)
        expected, actual = self.comparison.queries()
        for keys in _chunks(list(deleted), SETTLE_KEYS):
            sides = rows_of(expected, table), rows_of(actual, table)
            again = await self.comparison.walk(TableVerdict(table.name), sides, *by_column(table, keys))
            found.in_flight += again.in_flight
            found.quarantined += again.quarantined
            found.deleted |= again.deleted
            for difference in again.differences:
                found.differs(difference)

    async def awaited(self) -> None:
        """A row that the warehouse has not got differs, unless a run brought what it was and it was written again since."""
        found, table, look = self.found, self.comparison.table, self.comparison.look
        awaited, found.awaited = found.awaited, {}
        found.in_flight -= len(awaited)
        expected, actual = self.comparison.queries()
        for keys in _chunks(list(awaited), SETTLE_KEYS):
            given = by_column(table, keys)
            wanted = {row.key: row async for row in look.source.rows(rows_of(expected, table), len(table.key), *given)}
            held = {row.key: row async for row in look.warehouse.rows(rows_of(actual, table), len(table.key), *given)}
            found.actual += sum(awaited[key].is_missing for key in held)
            for key in set(keys) - wanted.keys():  # deleted at the source meanwhile
                found.expected -= 1
                if key in held:
                    found.is_deleted(key)
            for key, row in wanted.items():
                if key in held and held[key].values == row.values:
                    continue
                is_held = is_excused(row, look.refused.get(table.name, {}))
                if self._is_in_flight_again(row, awaited[key], held.get(key)) and not (row.is_orphan and is_held):
                    found.is_awaited(row, is_missing=key not in held)
                elif is_held:
                    found.quarantined += 1
                elif key not in held:
                    found.differs(Difference(Kind.MISSING, key))
                else:
                    columns = differing(row.values, held[key].values, tuple(table.star_types))
                    found.differs(Difference(Kind.DIFFERENT, key, columns))

    def _is_in_flight_again(self, row: Row, before: Awaited, held: Row | None) -> bool:
        """Whether another run has still to come for it: the row was written again, or has lost its partner.

        Written again, if a run since the first look has read it, has loaded or refused it: else none does, however often it is
        written. Without its partner, if keys were not compared since: that is when it is read again.
        """
        look, table = self.comparison.look, self.comparison.table
        if row.is_orphan and (look.comparisons.run(table) or 0) <= self.first.begun:
            return True
        refusal = look.refused.get(table.name, {}).get(row.key)
        runs = [int(held.version) if held else 0, refusal.run if refusal else 0]
        has_come = any(self.first.through < run <= look.newest for run in runs)
        return has_come and row.in_flight and row.version != before.version


def _chunks(keys: list[Key], size: int) -> Iterator[list[Key]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
