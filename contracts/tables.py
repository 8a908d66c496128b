"""How a contract describes a source and the star made of it: tables are entries here, not code.

DDL, merge SQL, Parquet schema, the rows a run reads and the proof are all derived from these entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import cached_property

from contracts.column_types import TEXT, ColumnType, Kind

DEFECT = (
    "_defect"  # the first column of every extract: what of a row could not travel (NaN, infinity); NULL for nearly every row
)
UNKNOWN = "(unknown)"  # what an inferred member and an absent optional text show


class ContractError(ValueError):
    """A contract contradicts itself. Recovery: correct the contract."""


# --- where a warehouse column comes from ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FromSource:
    """The value of a column of the base table; NULL becomes `absent` where one is given."""

    column: str
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class FromLookup:
    """The value of a column of a joined table; NULL becomes `absent` where one is given."""

    lookup: str
    column: str
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class DateOf:
    """The calendar date of a timestamp of the base table."""

    column: str


@dataclass(frozen=True, slots=True)
class TimeOf:
    """The time of day of a timestamp of the base table, to the microsecond."""

    column: str


@dataclass(frozen=True, slots=True)
class ParsedDate:
    """The date that a text column of the base table spells as YYYY-MM-DD; any other text is quarantined."""

    column: str


@dataclass(frozen=True, slots=True)
class CurrencyNameOf:
    """The ISO 4217 name of the alphabetic code in a column of the base table; an unknown code is quarantined."""

    column: str


@dataclass(frozen=True, slots=True)
class CalendarPart:
    """A part of the calendar's own date; `part` is one of contracts.calendar's names."""

    part: str


Origin = FromSource | FromLookup | DateOf | TimeOf | ParsedDate | CurrencyNameOf | CalendarPart


# --- the source ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column that Starlift reads."""

    name: str
    type: ColumnType
    nullable: bool = False


@dataclass(frozen=True)
class SourceTable:
    """A table that Starlift reads. `key` is its primary key."""

    name: str
    key: tuple[str, ...]
    columns: tuple[SourceColumn, ...]

    @cached_property
    def extract_types(self) -> dict[str, ColumnType]:
        """The columns of an extract in the landing bucket: the defect, then those of the contract."""
        return {DEFECT: TEXT, **{column.name: column.type for column in self.columns}}

    def column(self, name: str) -> SourceColumn:
        """The column called `name`. Raises: ContractError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ContractError(f"source table '{self.name}' has no column '{name}'")


# --- the star ------------------------------------------------------------------------------------------------------


@unique
class TableKind(StrEnum):
    """What the rows of a warehouse table are."""

    DIMENSION = "dimension"  # the latest state: one row per business key
    FACT = "fact"  # the history: one row per business key and version
    CALENDAR = "calendar"  # one row per date that a fact refers to, computed by the loader


@dataclass(frozen=True, slots=True)
class Lookup:
    """A join of the base table's column `on` to the single-column primary key of `table`."""

    table: str
    on: str


@dataclass(frozen=True, slots=True)
class Column:
    """A business column of a warehouse table. `references` names the dimension whose key it holds."""

    name: str
    type: ColumnType
    origin: Origin
    nullable: bool = False
    references: str | None = None


@dataclass(frozen=True)
class WarehouseTable:
    """A dimension, a fact or the calendar.

    `key` and `version` are names of columns of this table: a dimension has one row per key, a fact one per key and version.
    `surrogate` is the identity column of a fact, which the warehouse fills.
    """

    name: str
    kind: TableKind
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    source: str = ""
    lookups: tuple[Lookup, ...] = ()
    version: tuple[str, ...] = ()
    surrogate: str | None = None

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """The columns that tell two rows apart: the key, and for a fact the version too."""
        return self.key + self.version

    @cached_property
    def star_types(self) -> dict[str, ColumnType]:
        """The business columns, in contract order: those of its rows in the processed bucket."""
        return {column.name: column.type for column in self.columns}

    def column(self, name: str) -> Column:
        """The column called `name`. Raises: ContractError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ContractError(f"warehouse table '{self.name}' has no column '{name}'")


@dataclass(frozen=True)
class Contract:
    """A source and the star made of it. Constructing one checks that it does not contradict itself."""

    name: str
    source_schema: str
    warehouse_schema: str
    source_tables: tuple[SourceTable, ...]
    warehouse_tables: tuple[WarehouseTable, ...]  # in load order: the calendar, dimensions, facts

    def __post_init__(self) -> None:
        for table in self.warehouse_tables:
            self._check(table)

    def source_table(self, name: str) -> SourceTable:
        """The source table called `name`. Raises: ContractError if there is none."""
        for table in self.source_tables:
            if table.name == name:
                return table
        raise ContractError(f"contract '{self.name}' has no source table '{name}'")

    def warehouse_table(self, name: str) -> WarehouseTable:
        """The warehouse table called `name`. Raises: ContractError if there is none."""
        for table in self.warehouse_tables:
            if table.name == name:
                return table
        raise ContractError(f"contract '{self.name}' has no warehouse table '{name}'")

    def remodelled_from(self, source: str) -> tuple[WarehouseTable, ...]:
        """The warehouse tables whose base is the source table `source`."""
        return tuple(table for table in self.warehouse_tables if table.source == source)

    def lookups_of(self, source: str) -> tuple[Lookup, ...]:
        """Every join that rows of the source table `source` need, each once."""
        lookups = (lookup for table in self.remodelled_from(source) for lookup in table.lookups)
        return tuple(dict.fromkeys(lookups))

    @cached_property
    def calendar(self) -> WarehouseTable | None:
        """The calendar dimension, if the star has one."""
        return next((table for table in self.warehouse_tables if table.kind is TableKind.CALENDAR), None)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when anything in the contract does."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def _check(self, table: WarehouseTable) -> None:
        for name in table.identity:
            if table.column(name).nullable:
                raise ContractError(f"'{table.name}.{name}' identifies rows and may not be nullable")
        for column in table.columns:
            if column.references is not None and len(self.warehouse_table(column.references).key) != 1:
                raise ContractError(
                    f"'{table.name}.{column.name}' refers to '{column.references}', whose key is not one column"
                )
        if table.kind is TableKind.CALENDAR:
            return
        base = self.source_table(table.source)
        for lookup in table.lookups:
            base.column(lookup.on)
            if len(self.source_table(lookup.table).key) != 1:
                raise ContractError(f"'{table.name}' joins '{lookup.table}', whose key is not one column")
        for column in table.columns:
            for problem in self._problems(table, column):
                raise ContractError(f"'{table.name}.{column.name}' {problem}")

    def _problems(self, table: WarehouseTable, column: Column) -> Iterator[str]:
        """What is wrong with where a column comes from."""
        base = self.source_table(table.source)
        match column.origin:
            case FromSource(name, absent):
                origin = base.column(name)
                yield from _conversion_problems(origin, column, absent)
            case FromLookup(lookup, name, absent):
                if lookup not in {known.table for known in table.lookups}:
                    yield f"comes from '{lookup}', which the table does not join"
                    return
                yield from _conversion_problems(self.source_table(lookup).column(name), column, absent)
            case DateOf(name) | TimeOf(name):
                if base.column(name).type.kind is not Kind.TIMESTAMP:
                    yield f"is part of '{name}', which is no timestamp"
            case ParsedDate(name) | CurrencyNameOf(name):
                if not base.column(name).type.is_text:
                    yield f"is read from '{name}', which is no text"
            case CalendarPart(part):
                yield f"is the calendar's '{part}', but the table is no calendar"


def _conversion_problems(origin: SourceColumn, column: Column, absent: str | None) -> Iterator[str]:
    if origin.type.kind is not column.type.kind and not (origin.type.is_text and column.type.is_text):
        yield f"is {column.type.kind} but comes from '{origin.name}', which is {origin.type.kind}"
    if absent is not None and not column.type.is_text:
        yield "has a text for absent values but is no text"
