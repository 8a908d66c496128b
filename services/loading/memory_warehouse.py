"""A warehouse in memory that keeps the promises of the port, for tests of what loads into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pandas as pd

from contracts.calendar import CALENDAR_PARTS
from contracts.column_types import ColumnType, Kind
from contracts.contract import Contract
from contracts.key_hashes import SUMMED_BITS, TableHashes
from contracts.origins import CalendarPart
from contracts.tables import UNKNOWN, Column, Fact, RemodelledTable, WarehouseTable
from services.loading.questions import Ask, Question, buckets_in_question, questions
from services.loading.warehouse import Batch, StarRow
from shared.errors import PermanentError
from shared.key_hashes import hash_of, sums_of
from shared.source_keys import Key

Values = dict[str, Any]

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_INFERRED: dict[Kind, object] = {
    **dict.fromkeys((Kind.INTEGER, Kind.BIGINT), 0),
    Kind.NUMERIC: Decimal(0),
    **dict.fromkeys((Kind.TEXT, Kind.ENUM), UNKNOWN),
    Kind.BOOLEAN: False,
    Kind.DATE: date.min,
    Kind.TIME: time.min,
    Kind.TIMESTAMP: datetime.min,  # noqa: DTZ901 (a timestamp without time zone)
    Kind.TIMESTAMPTZ: datetime.min.replace(tzinfo=UTC),
}


@dataclass
class _Row:
    columns: Values
    run: int


@dataclass
class _Comparison:
    table: RemodelledTable
    run: int
    batch_id: UUID
    hashes: TableHashes
    has_begun: bool = False


class MemoryWarehouse:
    """A star in memory; see Warehouse. A test may read `ledger`, `finished_runs` and `questions`."""

    def __init__(self, contract: Contract) -> None:
        self.ledger: dict[UUID, Batch] = {}
        self.finished_runs: list[tuple[str, int]] = []
        self.questions: dict[UUID, Question] = {}  # that are not answered
        self._contract = contract
        self._rows: dict[str, dict[Key, _Row]] = {table.name: {} for table in contract.warehouse_tables}
        self._tombstones: dict[str, dict[Key, tuple[int, datetime]]] = {table.name: {} for table in contract.warehouse_tables}
        self._comparisons: dict[str, _Comparison] = {}

    async def ensure_schema(self) -> None:
        """See Warehouse."""

    async def has(self, batch_id: UUID) -> bool:
        """See Warehouse."""
        return batch_id in self.ledger

    async def load(self, batch: Batch, ask: Ask) -> int | None:
        """See Warehouse."""
        data = batch.event.data
        for other in self.ledger.values():
            if (source := other.event.data.source_name) != data.source_name:
                raise PermanentError(f"the warehouse contains the rows of source '{source}'")
        if data.batch_id in self.ledger:
            return None
        # What may fail, or lets others run, comes first: after it nothing can leave half a batch.
        staged = {name: list(_values(self._contract.warehouse_table(name), frame)) for name, frame in batch.rows.items()}
        await self._ask_about_late(batch, staged, ask)
        for name, rows in staged.items():
            self._merge(self._contract.warehouse_table(name), rows, data.run)
        self.ledger[data.batch_id] = batch
        for hashes in batch.hashes.tables if batch.hashes else ():
            for table in self._contract.remodelled_from(hashes.table):
                if table.name not in self._comparisons or self._comparisons[table.name].run < data.run:
                    self._comparisons[table.name] = _Comparison(table, data.run, data.batch_id, hashes)
        if batch.answers is not None:
            self.questions.pop(batch.answers, None)
        return sum(
            self._bury(table, keys.keys, data.run, data.snapshot.taken_at)
            for keys in batch.gone
            for table in self._contract.remodelled_from(keys.table)
        )

    async def compare_keys(self, ask: Ask) -> int:
        """See Warehouse. It has no clock: every earlier batch that is missing is waited for."""
        asked = 0
        for comparison in self._comparisons.values():
            if comparison.has_begun or not self._is_ready(comparison.run):
                continue
            comparison.has_begun = True
            table, theirs = comparison.table, comparison.hashes
            stand_ins = self._stand_ins(table)
            alive = self._alive(table).items()
            held = [key for key, run in alive if run < comparison.run and not (run == 0 and key[0] in stand_ins)]
            buckets = buckets_in_question(theirs, sums_of(held, len(theirs.counts)), comparison.run)
            keys = list(_asked(held, buckets, len(theirs.counts)))
            subject, believe_empty = comparison.batch_id, theirs.believe_empty
            asked += await self._ask(table, comparison.run, subject, keys, ask, believe_empty=believe_empty)
        return asked

    async def finish_run(self, source_name: str, run: int) -> None:
        """See Warehouse. Notes the run."""
        self.finished_runs.append((source_name, run))

    async def rows(self, table: WarehouseTable) -> list[StarRow]:
        """See Warehouse."""
        version = table.version if isinstance(table, Fact) else ()
        newest_first = sorted(
            self._rows[table.name].values(), key=lambda row: (row.run, *(row.columns[name] for name in version)), reverse=True
        )
        found, seen, alive = [], set[Key](), self._alive(table)
        for row in newest_first:
            key = _key(table, row.columns)
            _, found_at = self._tombstones[table.name].get(key, (0, None))
            found.append(StarRow(row.columns, row.run, None if key in seen or key in alive else found_at))
            seen.add(key)
        return found

    def _merge(self, table: WarehouseTable, rows: Iterable[Values], run: int) -> None:
        stored = self._rows[table.name]
        for values in rows:
            identity = tuple(values[name] for name in table.identity)
            if identity not in stored or stored[identity].run <= run:
                stored[identity] = _Row(values, run)
            for column in table.columns:
                if column.references is not None and values[column.name] is not None:
                    self._infer(self._contract.warehouse_table(column.references), values[column.name])

    def _infer(self, dimension: WarehouseTable, value: object) -> None:
        """Insert the date, or the inferred member, that a fact refers to, unless the dimension has it."""
        stored = self._rows[dimension.name]
        if (value,) in stored:
            return
        values: Values = {dimension.key[0]: value}
        for column in dimension.columns:
            if column.name == dimension.key[0]:
                continue
            if isinstance(column.origin, CalendarPart) and isinstance(value, date):
                values[column.name] = CALENDAR_PARTS[column.origin.part](value)
            else:
                values[column.name] = None if column.nullable else _inferred(column)
        stored[value,] = _Row(values, 0)

    async def _ask(
        self, table: RemodelledTable, run: int, subject: UUID, keys: Iterable[Key], ask: Ask, *, believe_empty: bool = False
    ) -> int:
        asked = 0
        async for question in questions(table, run, subject, _each(keys), believe_empty=believe_empty):
            self.questions[question.id] = question
            await ask(question)
            asked += len(question.keys)
        return asked

    async def _ask_about_late(self, batch: Batch, staged: Mapping[str, list[Values]], ask: Ask) -> None:
        data = batch.event.data
        for table in self._contract.remodelled_tables:
            comparison, rows = self._comparisons.get(table.name), staged.get(table.name, [])
            if comparison is not None and comparison.has_begun and comparison.run > data.run:
                highest, tombstones = self._highest(table), self._tombstones[table.name]
                newest = {key: max(data.run, highest.get(key, 0)) for key in (_key(table, row) for row in rows)}
                late = [key for key, run in newest.items() if tombstones.get(key, (0, None))[0] < run < comparison.run]
                await self._ask(table, data.run, data.batch_id, late, ask)

    def _is_ready(self, run: int) -> bool:
        batches = [batch.event.data for batch in self.ledger.values() if batch.event.data.run <= run]
        last = {data.run: data.index for data in batches if data.is_last}
        return all(len({one.index for one in batches if one.run == data.run}) == last.get(data.run, -1) + 1 for data in batches)

    def _highest(self, table: WarehouseTable) -> dict[Key, int]:
        highest: dict[Key, int] = {}
        for row in self._rows[table.name].values():
            key = _key(table, row.columns)
            highest[key] = max(highest.get(key, 0), row.run)
        return highest

    def _alive(self, table: WarehouseTable) -> dict[Key, int]:
        """The highest run of each row that is alive."""
        stand_ins, tombstones = self._stand_ins(table), self._tombstones[table.name]
        return {
            key: run
            for key, run in self._highest(table).items()
            if tombstones.get(key, (0, None))[0] <= run or (run == 0 and key[0] in stand_ins)
        }

    def _stand_ins(self, table: WarehouseTable) -> set[object]:
        """The keys of inferred members that facts refer to, and of real rows."""
        return {
            _text(row.columns[column.name])
            for fact, column in self._contract.references_to(table.name)
            for row in self._rows[fact.name].values()
        }

    def _bury(self, table: WarehouseTable, keys: Iterable[Key], run: int, found_at: datetime) -> int:
        """Insert tombstones; how many rows died."""
        before, tombstones = self._alive(table), self._tombstones[table.name]
        for key in keys:
            if run > tombstones.get(key, (0, None))[0]:
                tombstones[key] = (run, found_at)
        return len(before.keys() - self._alive(table))


async def _each(keys: Iterable[Key]) -> AsyncIterator[Key]:
    for key in keys:
        yield key


def _asked(keys: Iterable[Key], buckets: Mapping[int, int | None], count: int) -> Iterator[Key]:
    """The keys in question, chosen as `select_keys` of services/loading/comparison.py does it."""
    by_bucket: dict[int, list[Key]] = {}
    for key in keys:
        by_bucket.setdefault((hash_of(key) >> SUMMED_BITS) & (count - 1), []).append(key)
    for bucket, part in buckets.items():
        held = by_bucket.get(bucket, [])
        yield from [key for key in held if hash_of(key) % 2**SUMMED_BITS == part] or held


def _values(table: WarehouseTable, frame: pd.DataFrame) -> Iterator[Values]:
    """The rows of a frame, each value as asyncpg reads it from the warehouse."""
    for row in frame.itertuples(index=False):
        yield {
            column.name: None if pd.isna(value := getattr(row, column.name)) else _loaded(value, column.type)
            for column in table.columns
        }


def _loaded(value: Any, kind: ColumnType) -> object:
    match kind.kind:
        case Kind.INTEGER | Kind.BIGINT:
            return int(value)
        case Kind.NUMERIC:
            return Decimal(int(value)).scaleb(-kind.scale)
        case Kind.DATE:
            return date(1970, 1, 1) + timedelta(days=int(value))
        case Kind.TIME:
            return (_EPOCH + int(value) * _MICROSECOND).time()
        case Kind.TIMESTAMP:
            return (_EPOCH + int(value) * _MICROSECOND).replace(tzinfo=None)
        case Kind.TIMESTAMPTZ:
            return _EPOCH + int(value) * _MICROSECOND
        case Kind.BOOLEAN:
            return bool(value)
        case _:
            return str(value)


def _inferred(column: Column) -> object:
    value = _INFERRED[column.type.kind]
    return value[: column.type.length] if column.type.length and isinstance(value, str) else value


def _key(table: WarehouseTable, values: Values) -> Key:
    """The key in the form in which questions have it."""
    return tuple(_text(values[name]) for name in table.key)


def _text(value: object) -> object:
    return value if isinstance(value, int) else str(value)
