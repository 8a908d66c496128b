"""A warehouse in memory that keeps the promises of the port, for tests of what loads into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
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
from contracts.tables import UNKNOWN, Column, Dimension, RemodelledTable, WarehouseTable
from services.loading.questions import cut, question_id, suspects
from services.loading.warehouse import EARLIER_RUN_PATIENCE, Ask, Batch, Question, StarRow
from shared.clock import utc_now
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
    whole_run: int = -1  # as `_whole_run`

    def rank(self, version: str | None) -> tuple[Any, ...]:
        return (self.run,) if version is None else (self.whole_run, self.columns[version], self.run)


@dataclass
class _Comparison:
    """As starlift.key_comparison has it."""

    run: int
    source_name: str
    hashes: TableHashes
    previous: int | None
    has_begun: bool = False
    has_ended: bool = False


class MemoryWarehouse:
    """A star in memory; see Warehouse. A test may read `ledger` and `finished_runs`, and set the `clock` that loads read."""

    def __init__(self, contract: Contract) -> None:
        self.ledger: dict[UUID, Batch] = {}
        self.finished_runs: list[tuple[str, int]] = []
        self.clock: Callable[[], datetime] = utc_now
        self._contract = contract
        self._loaded_at: dict[UUID, datetime] = {}
        self._rows: dict[str, dict[Key, _Row]] = {table.name: {} for table in contract.warehouse_tables}
        self._tombstones: dict[str, dict[Key, tuple[int, datetime]]] = {table.name: {} for table in contract.warehouse_tables}
        self._comparisons: dict[str, _Comparison] = {}
        self._next_places = Counter[str]()

    async def ensure_schema(self) -> None:
        """See Warehouse."""

    async def has(self, batch_id: UUID) -> bool:
        """See Warehouse."""
        return batch_id in self.ledger

    async def load(self, batch: Batch, ask: Ask) -> int | None:
        """See Warehouse."""
        data = batch.event.data
        own = {table.name for table in self._contract.part(data.source_name).remodelled_tables}
        for other in self.ledger.values():
            if (source := other.event.data.source_name) != data.source_name and not own.isdisjoint(other.rows):
                raise PermanentError(f"the warehouse contains the rows of source '{source}'")
        if data.batch_id in self.ledger:
            return None
        # What may fail, or lets others run, comes first: after it nothing can leave half a batch.
        staged = {name: list(_values(self._contract.warehouse_table(name), frame)) for name, frame in batch.rows.items()}
        for table in self._contract.remodelled_tables:
            await self._ask_about_late_rows(table, staged.get(table.name, []), batch, ask)
        for name, rows in staged.items():
            self._merge(self._contract.warehouse_table(name), rows, data.run, batch.whole_runs.get(name, 0))
        self.ledger[data.batch_id], self._loaded_at[data.batch_id] = batch, self.clock()
        previous = batch.hashes.previous if batch.hashes is not None else None
        for hashes in batch.hashes.tables if batch.hashes is not None else ():
            for table in filter(hashes.is_of, self._contract.remodelled_tables):
                if (last := self._comparisons.get(table.name)) is None or last.run < data.run:
                    self._comparisons[table.name] = _Comparison(data.run, data.source_name, hashes, previous)
        return sum(self._insert_tombstones(table, batch.gone_from(table), batch) for table in self._contract.remodelled_tables)

    async def compare_keys(self, ask: Ask) -> int:
        """See Warehouse."""
        asked = 0
        for table in self._contract.remodelled_tables:
            comparison = self._comparisons.get(table.name)
            if comparison is None or comparison.has_ended or not self._is_due(comparison):
                continue
            comparison.has_begun = True
            compared = [key for key in self._alive(table) if key[1] < comparison.run]
            hashes, buckets = comparison.hashes, len(comparison.hashes.counts)
            ours = {bucket: (count, total) for bucket, count, total in sums_of((key for key, _ in compared), buckets)}
            found = suspects(hashes, ours, self._next_places[table.name])
            in_bucket: dict[int, list[Key]] = {bucket: [] for bucket in found.named}
            for key, _ in compared:
                if (bucket := (hash_of(key) >> SUMMED_BITS) % buckets) in in_bucket:
                    in_bucket[bucket].append(key)
            keys = [key for bucket, held in in_bucket.items() for key in _named(held, found.named[bucket])]
            async for part in cut(_each(keys)):
                number = question_id(comparison.run, table.name, part)
                await ask(
                    Question(number, table, comparison.source_name, comparison.run, part, believe_empty=hashes.believe_empty)
                )
                asked += len(part)
            comparison.has_ended, self._next_places[table.name] = True, found.next_place
        return asked

    async def finish_run(self, source_name: str, run: int) -> None:
        """See Warehouse. Notes the run."""
        self.finished_runs.append((source_name, run))

    async def rows(self, table: WarehouseTable) -> list[StarRow]:
        """See Warehouse."""
        newest_first = sorted(
            self._rows[table.name].values(),
            key=lambda row: (row.run, *(row.columns[name] for name in table.version)),
            reverse=True,
        )
        found, seen = [], set[Key]()
        for row in newest_first:
            key = _key(table, row.columns)
            run, found_at = self._tombstones[table.name].get(key, (0, None))
            is_dead = key not in seen and row.run < run and not _is_unknown(table, key, row.run)
            found.append(StarRow(row.columns, row.run, found_at if is_dead else None))
            seen.add(key)
        return found

    def _merge(self, table: WarehouseTable, rows: Iterable[Values], run: int, whole_run: int) -> None:
        stored, version = self._rows[table.name], self._contract.version_of(table)
        for values in rows:
            identity, row = tuple(values[name] for name in table.identity), _Row(values, run, whole_run)
            if identity not in stored or stored[identity].rank(version) <= row.rank(version):
                stored[identity] = row
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

    def _is_due(self, comparison: _Comparison) -> bool:
        """Whether every batch of its run is loaded, and no earlier run of its source is loading."""
        runs: dict[int, list[UUID]] = {}
        for batch_id, batch in self.ledger.items():
            if batch.event.data.source_name == comparison.source_name and batch.event.data.run <= comparison.run:
                runs.setdefault(batch.event.data.run, []).append(batch_id)
        now = self.clock()
        return self._is_complete(runs.pop(comparison.run, [])) and not any(
            now - max(self._loaded_at[batch_id] for batch_id in batches) < EARLIER_RUN_PATIENCE
            and not self._is_complete(batches)
            for run, batches in runs.items()
            if comparison.previous is None or run <= comparison.previous
        )

    def _is_complete(self, batches: list[UUID]) -> bool:
        loaded = [self.ledger[batch_id].event.data for batch_id in batches]
        return any(len({data.index for data in loaded}) == last.index + 1 for last in loaded if last.is_last)

    def _highest_runs(self, table: WarehouseTable) -> dict[Key, int]:
        highest: dict[Key, int] = {}
        for row in self._rows[table.name].values():
            key = _key(table, row.columns)
            highest[key] = max(highest.get(key, 0), row.run)
        return highest

    def _alive(self, table: RemodelledTable) -> list[tuple[Key, int]]:
        """The keys, with their highest run, of rows that are alive, except inferred members that facts refer to."""
        referred = {
            row.columns[column.name]
            for fact, column in self._contract.references_to(table.name)
            for row in self._rows[fact.name].values()
        }
        tombstones = self._tombstones[table.name]
        return [
            (_asked(key), run)
            for key, run in self._highest_runs(table).items()
            if tombstones.get(key, (0,))[0] <= run
            and not (run == 0 and key[0] in referred)
            and not _is_unknown(table, key, run)
        ]

    async def _ask_about_late_rows(self, table: RemodelledTable, staged: list[Values], batch: Batch, ask: Ask) -> None:
        data, comparison = batch.event.data, self._comparisons.get(table.name)
        if comparison is None or not comparison.has_begun or comparison.run <= data.run:
            return
        highest, tombstones = self._highest_runs(table), self._tombstones[table.name]
        late = dict.fromkeys(_key(table, values) for values in staged)
        keys = [_asked(key) for key in late if highest.get(key, 0) <= data.run and tombstones.get(key, (0,))[0] <= data.run]
        async for part in cut(_each(keys)):
            about = (question_id(data.batch_id, table.name, part), table, data.source_name, comparison.run, part)
            await ask(Question(*about, believe_empty=comparison.hashes.believe_empty))

    def _insert_tombstones(self, table: RemodelledTable, keys: Iterable[Key], batch: Batch) -> int:
        """Insert tombstones, of which the higher stays; return how many rows are marked since, or at another moment."""
        data, highest, died = batch.event.data, self._highest_runs(table), 0
        stored = {_asked(key): key for key in highest}
        for asked in dict.fromkeys(tuple(key) for key in keys):
            key = stored.get(asked, asked)
            if self._tombstones[table.name].get(key, (0,))[0] < data.run:
                self._tombstones[table.name][key] = data.run, data.snapshot.taken_at
                died += key in highest and highest[key] < data.run and not _is_unknown(table, key, highest[key])
        return died


async def _each(keys: Iterable[Key]) -> AsyncIterator[Key]:
    for key in keys:
        yield key


def _named(keys: list[Key], named: int | None) -> list[Key]:
    """The key of a bucket that the difference of the sums names; without one, every key."""
    return [key for key in keys if named == hash_of(key) & (2**SUMMED_BITS - 1)] or keys


def _asked(key: Key) -> Key:
    """A key as questions have it: whole numbers, and the texts of everything else."""
    return tuple(value if isinstance(value, int) else str(value) for value in key)


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


def _is_unknown(table: WarehouseTable, key: Key, run: int) -> bool:
    """Whether a row is the member that stands for no row of the source."""
    return run == 0 and isinstance(table, Dimension) and str(key[0]) == table.unknown


def _key(table: WarehouseTable, values: Values) -> Key:
    return tuple(values[name] for name in table.key)
