"""How a contract describes a source and the star made of it: tables are entries here, not code.

DDL, merge SQL, Parquet schema, the rows a run reads and the proof are all derived from these entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import cached_property

from contracts.calendar import CALENDAR_PARTS
from contracts.column_types import TEXT, UUID, ColumnType, Kind
from contracts.drift import Drift
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, Origin, ParsedDate, TimeOf

DEFECT = "_defect"  # the first column of every extract: what of a row could not travel (NaN, infinity); mostly NULL
NAME_BYTES_MAXIMUM = 63  # PostgreSQL cuts longer names, silently
TABLE_NAME_BYTES_MAXIMUM = NAME_BYTES_MAXIMUM - len("_current")  # the longest of what is named after a warehouse table
UNKNOWN = "(unknown)"  # what an inferred member and an absent optional text show
KEY_KINDS = frozenset({Kind.INTEGER, Kind.BIGINT, Kind.TEXT})  # and uuid: what pages can be cut by


class ContractError(ValueError):
    """A contract contradicts itself. Recovery: correct the contract."""


# --- the source ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column that Starlift reads.

    `nullable`, and the labels of an enum, are as its database declares them. A test holds them against the real schema; a run
    refuses nothing for their sake: NULL and a new label are the warehouse column's affair.
    """

    name: str
    type: ColumnType
    nullable: bool = False


@dataclass(frozen=True)
class SourceTable:
    """A table that Starlift reads. `key` is its primary key; `drift` says what becomes of columns that are not here."""

    name: str
    key: tuple[str, ...]
    columns: tuple[SourceColumn, ...]
    drift: Drift = Drift.FREEZE

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
        _require_distinct("two source tables", [table.name for table in self.source_tables])
        _require_distinct("two warehouse tables", [table.name for table in self.warehouse_tables])
        for source in self.source_tables:
            _require_distinct(f"'{source.name}' has two columns", [column.name for column in source.columns])
            for name in source.key:
                if (kind := source.column(name).type).kind not in KEY_KINDS and kind != UUID:
                    raise ContractError(f"'{source.name}.{name}' is a key and must be one of {sorted(KEY_KINDS)} or uuid")
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
        _require_distinct(f"'{table.name}' has two columns", [column.name for column in table.columns])
        if len(table.name.encode()) > TABLE_NAME_BYTES_MAXIMUM:
            raise ContractError(f"'{table.name}' has more than {TABLE_NAME_BYTES_MAXIMUM} bytes; shorten the name")
        for name in table.identity:
            if table.column(name).nullable:
                raise ContractError(f"'{table.name}.{name}' identifies rows and may not be nullable")
        if table.kind is not TableKind.CALENDAR and _key_origins(table) != self.source_table(table.source).key:
            key = ", ".join(self.source_table(table.source).key)
            raise ContractError(
                f"the key of '{table.name}' is not the key ({key}) of '{table.source}', column by column; "
                "a delete could not be found"
            )
        _require_distinct(f"'{table.name}' has two joins", [lookup.table for lookup in table.lookups])
        for lookup in table.lookups:
            self.source_table(table.source).column(lookup.on)
            if len(self.source_table(lookup.table).key) != 1:
                raise ContractError(f"'{table.name}' joins '{lookup.table}', whose key is not one column")
        for column in table.columns:
            problems = self._calendar_problems(column) if table.kind is TableKind.CALENDAR else self._problems(table, column)
            if column.references is not None and table.kind is not TableKind.FACT:
                raise ContractError(f"'{table.name}.{column.name}' refers to '{column.references}', which only a fact may")
            for problem in (*self._reference_problems(column), *problems):
                raise ContractError(f"'{table.name}.{column.name}' {problem}")

    def _reference_problems(self, column: Column) -> Iterator[str]:
        """What is wrong with a column's name and with what it refers to."""
        if column.name.startswith("_"):
            yield "begins with '_', as Starlift's own columns do"
        if len(column.name.encode()) > NAME_BYTES_MAXIMUM:
            yield f"has more than {NAME_BYTES_MAXIMUM} bytes; shorten the name"
        if column.references is None:
            return
        dimension = self.warehouse_table(column.references)
        if len(dimension.key) != 1:
            yield f"refers to '{dimension.name}', whose key is not one column"
        elif not _is_same_kind((key := dimension.column(dimension.key[0])).type, column.type):
            yield f"is {column.type.kind} but refers to '{dimension.name}.{key.name}', which is {key.type.kind}"
        for other in dimension.columns:
            if other.type.kind is Kind.VERBATIM and not other.nullable and other.name not in dimension.key:
                yield f"refers to '{dimension.name}', whose '{other.name}' must be nullable: an inferred member has none"

    def _calendar_problems(self, column: Column) -> Iterator[str]:
        """What is wrong with a column of the calendar."""
        if not isinstance(column.origin, CalendarPart):
            yield "belongs to a calendar and must be a part of a date"
        elif column.origin.part not in CALENDAR_PARTS:
            yield f"is no part of a date; the calendar has {sorted(CALENDAR_PARTS)}"

    def _problems(self, table: WarehouseTable, column: Column) -> Iterator[str]:
        """What is wrong with where a column of any other table comes from."""
        base = self.source_table(table.source)
        match column.origin:
            case FromSource(name, absent):
                yield from _conversion_problems(base.column(name), column, absent)
            case FromLookup(lookup, name, absent):
                if lookup not in {known.table for known in table.lookups}:
                    yield f"comes from '{lookup}', which the table does not join"
                    return
                yield from _conversion_problems(self.source_table(lookup).column(name), column, absent)
            case DateOf(name) | TimeOf(name):
                if base.column(name).type.kind not in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
                    yield f"is part of '{name}', which is no timestamp"
            case ParsedDate(name) | CurrencyNameOf(name):
                if not base.column(name).type.is_text:
                    yield f"is read from '{name}', which is no text"
            case CalendarPart(part):
                yield f"is the calendar's '{part}', but the table is no calendar"
        yield from _kind_problems(column)


def _key_origins(table: WarehouseTable) -> tuple[str, ...]:
    """The source columns that a table's key is made of, unchanged."""
    origins = (table.column(name).origin for name in table.key)
    return tuple(origin.column for origin in origins if isinstance(origin, FromSource) and origin.absent is None)


def _is_same_kind(one: ColumnType, other: ColumnType) -> bool:
    return (one.kind, one.name) == (other.kind, other.name)


def _kind_problems(column: Column) -> Iterator[str]:
    match column.origin:
        case DateOf() | ParsedDate() if column.type.kind is not Kind.DATE:
            yield f"is {column.type.kind} but holds a date"
        case TimeOf() if column.type.kind is not Kind.TIME:
            yield f"is {column.type.kind} but holds a time"
        case CurrencyNameOf() if not column.type.is_text:
            yield f"is {column.type.kind} but holds a text"
        case _:
            return


def _conversion_problems(origin: SourceColumn, column: Column, absent: str | None) -> Iterator[str]:
    if not _is_same_kind(origin.type, column.type) and not (origin.type.is_text and column.type.is_text):
        yield f"is {column.type.family} but comes from '{origin.name}', which is {origin.type.family}"
    if origin.type.scale != column.type.scale:  # a decimal travels as a whole number, which another scale would misread
        yield f"is {column.type.sql} but comes from '{origin.name}', which is {origin.type.sql}; give both the same scale"
    if column.type.precision < origin.type.precision:
        yield f"is {column.type.sql}, too narrow for '{origin.name}', which is {origin.type.sql}"
    if absent is not None and not column.type.is_text:
        yield "has a text for absent values but is no text"


def _require_distinct(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ContractError(f"{what} '{name}'")
