"""A warehouse in memory that keeps the promises of the port, for tests of what loads into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pandas as pd

from contracts.calendar import CALENDAR_PARTS
from contracts.column_types import ColumnType, Kind
from contracts.contract import Contract
from contracts.origins import CalendarPart
from contracts.tables import UNKNOWN, Column, Fact, WarehouseTable
from services.loading.warehouse import Batch, StarRow
from shared.errors import PermanentError
from shared.source_keys import Key
from shared.ledger import Comparison

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


class MemoryWarehouse:
    """A star in memory; see Warehouse. A test may read `ledger` and `finished_runs`."""

    def __init__(self, contract: Contract) -> None:
        self.ledger: dict[UUID, Batch] = {}
        self.finished_runs: list[tuple[str, int]] = []
        self._contract = contract
        self._rows: dict[str, dict[Key, _Row]] = {table.name: {} for table in contract.warehouse_tables}
        self._tombstones: dict[str, dict[Key, tuple[int, datetime]]] = {table.name: {} for table in contract.warehouse_tables}
        self._comparisons: dict[str, Comparison] = {}

    async def ensure_schema(self) -> None:
        """See Warehouse."""

    async def has(self, batch_id: UUID) -> bool:
        """See Warehouse."""
        return batch_id in self.ledger

    async def load(self, batch: Batch) -> int | None:
        """See Warehouse."""
        data = batch.event.data
        for other in self.ledger.values():
            if (source := other.event.data.source_name) != data.source_name:
                raise PermanentError(f"the warehouse contains the rows of source '{source}'")
        if data.batch_id in self.ledger:
            return None
        # What may fail, or lets others run, comes first: after it nothing can leave half a batch.
        staged = {name: list(_values(self._contract.warehouse_table(name), frame)) for name, frame in batch.rows.items()}
        comparisons = await self._due_comparisons(batch)
        for name, rows in staged.items():
            self._merge(self._contract.warehouse_table(name), rows, data.run)
        self.ledger[data.batch_id] = batch
        return sum(self._compare(table, comparison, keys) for table, comparison, keys in comparisons)

    async def finish_run(self, source_name: str, run: int) -> None:
        """See Warehouse. Notes the run."""
        self.finished_runs.append((source_name, run))

    async def rows(self, table: WarehouseTable) -> list[StarRow]:
        """See Warehouse."""
        version = table.version if isinstance(table, Fact) else ()
        newest_first = sorted(
            self._rows[table.name].values(), key=lambda row: (row.run, *(row.columns[name] for name in version)), reverse=True
        )
        found, seen = [], set[Key]()
        for row in newest_first:
            key = _key(table, row.columns)
            run, found_at = self._tombstones[table.name].get(key, (0, None))
            found.append(StarRow(row.columns, row.run, found_at if key not in seen and row.run < run else None))
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

    async def _due_comparisons(self, batch: Batch) -> list[tuple[WarehouseTable, Comparison, set[Key]]]:
        """The batch's own comparisons, and for its rows the later ones that it comes too late for, with their keys."""
        data = batch.event.data
        due = []
        own = {keys.table: Comparison(keys, data.run, data.snapshot.taken_at) for keys in batch.keys.lists}
        for name in dict.fromkeys((*own, *batch.rows)):
            last = self._comparisons.get(name)
            comparison = own.get(name)
            if last is not None and last.run > data.run:  # it knows all that an earlier list would say
                comparison = last if name in batch.rows else None
            if comparison is not None:
                keys = {tuple(key) for part in comparison.keys.objects for key in await batch.keys.read(part)}
                due.append((self._contract.warehouse_table(name), comparison, keys))
        return due

    def _compare(self, table: WarehouseTable, comparison: Comparison, keys: set[Key]) -> int:
        """Insert tombstones for the rows that the list lacks; how many are new."""
        self._comparisons[table.name] = comparison
        highest: dict[Key, int] = {}
        for row in self._rows[table.name].values():
            key = _key(table, row.columns)
            highest[key] = max(highest.get(key, 0), row.run)
        referred = {
            row.columns[column.name]
            for fact, column in self._contract.references_to(table.name)
            for row in self._rows[fact.name].values()
        }
        gone = {
            key
            for key, run in highest.items()
            if run < comparison.run
            and key not in keys
            and not (run == 0 and key[0] in referred)
            and self._tombstones[table.name].get(key, (0, None))[0] <= run
        }
        self._tombstones[table.name].update(dict.fromkeys(gone, (comparison.run, comparison.found_at)))
        return len(gone)


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
    return tuple(values[name] for name in table.key)
