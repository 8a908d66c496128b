"""How a contract describes a source and the star made of it: tables are entries here, not code.

DDL, merge SQL, Parquet schema, the rows a run reads and the proof are all derived from these entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import cached_property
from typing import TypeVar

from contracts.calendar import part_problems
from contracts.column_types import TEXT, ColumnType, Kind
from contracts.conversions import KEY_TYPES, derivation_problems, is_same_kind, join_alike, may_be_key, origin_problems
from contracts.drift import Drift
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, Origin, ParsedDate, TimeOf, copied
from contracts.warehouse import current_name

NAME_BYTES_MAXIMUM = 63  # PostgreSQL cuts longer names, silently
TABLE_NAME_BYTES_MAXIMUM = NAME_BYTES_MAXIMUM - len(current_name(""))  # the longest of what is named after a warehouse table
UNKNOWN = "(unknown)"  # what an inferred member and an absent optional text show


class ContractError(ValueError):
    """A contract contradicts itself. Recovery: correct the contract."""


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
    def defect(self) -> str:
        """The first column of an extract: which values of the row could not travel (NaN, infinity); usually NULL."""
        return self._unlike_its_columns("_defect")

    @cached_property
    def key_text(self) -> str | None:
        """The column of an extract that holds the key as a JSON array, if a date or timestamp is part of it.

        In a column of its own such a value is a number, or NULL if infinite, which can't identify a row.
        """
        has_moment = any(self.column(name).type.is_moment for name in self.key)
        return self._unlike_its_columns("_key") if has_moment else None

    @cached_property
    def extract_types(self) -> dict[str, ColumnType]:
        """The columns of an extract in the landing bucket: Starlift's own, then those of the contract."""
        own = [self.defect, *([self.key_text] if self.key_text else [])]
        return dict.fromkeys(own, TEXT) | {column.name: column.type for column in self.columns}

    def _unlike_its_columns(self, name: str) -> str:
        """A name for one of Starlift's own columns that no column of the source has."""
        while any(column.name == name for column in self.columns):
            name += "_"
        return name

    def column(self, name: str) -> SourceColumn:
        """The column called `name`. Raises: ContractError if there is none."""
        return _named(name, self.columns, f"source table '{self.name}' has no column")


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
        return _named(name, self.columns, f"warehouse table '{self.name}' has no column")


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
        views = [current_name(table.name) for table in self.warehouse_tables if table.kind is TableKind.FACT]
        _require_distinct("two warehouse tables or views", [*(table.name for table in self.warehouse_tables), *views])
        for source in self.source_tables:
            _require_distinct(f"'{source.name}' has two columns", [column.name for column in source.columns])
            for name in source.key:
                if not may_be_key(kind := source.column(name).type):
                    raise ContractError(f"'{source.name}.{name}' is a key and must be {KEY_TYPES}, not {kind.family}")
        for table in self.warehouse_tables:
            self._check(table)

    def source_table(self, name: str) -> SourceTable:
        """The source table called `name`. Raises: ContractError if there is none."""
        return _named(name, self.source_tables, f"contract '{self.name}' has no source table")

    def warehouse_table(self, name: str) -> WarehouseTable:
        """The warehouse table called `name`. Raises: ContractError if there is none."""
        return _named(name, self.warehouse_tables, f"contract '{self.name}' has no warehouse table")

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
    def references(self) -> tuple[tuple[WarehouseTable, Column], ...]:
        """Every column that refers to a dimension, with its table."""
        return tuple((table, column) for table in self.warehouse_tables for column in table.columns if column.references)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when anything in the contract does."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def _check(self, table: WarehouseTable) -> None:
        own = [table.surrogate] if table.surrogate else []
        _require_distinct(f"'{table.name}' has two columns", [*own, *(column.name for column in table.columns)])
        if len(table.name.encode()) > TABLE_NAME_BYTES_MAXIMUM:
            raise ContractError(f"'{table.name}' has more than {TABLE_NAME_BYTES_MAXIMUM} bytes; shorten the name")
        for name in table.identity:
            if table.column(name).nullable:
                raise ContractError(
                    f"'{table.name}.{name}' identifies rows and may not be nullable; where its source may be NULL, give DateOf "
                    "and TimeOf a second column by `absent`, or leave it out of `version`"
                )
        origins = (table.column(name).origin for name in table.key)
        if table.kind is not TableKind.CALENDAR and copied(origins) != self.source_table(table.source).key:
            key = ", ".join(self.source_table(table.source).key)
            raise ContractError(
                f"the key of '{table.name}' is not the key ({key}) of '{table.source}', column by column; "
                "a delete could not be found"
            )
        for problem in self._lookup_problems(table):
            raise ContractError(f"'{table.name}' {problem}")
        for column in table.columns:
            of_kind = self._calendar_problems if table.kind is TableKind.CALENDAR else self._problems
            if column.references is not None and table.kind is not TableKind.FACT:
                raise ContractError(f"'{table.name}.{column.name}' refers to '{column.references}', which only a fact may")
            for problem in (*self._reference_problems(column), *of_kind(table, column)):
                raise ContractError(f"'{table.name}.{column.name}' {problem}")

    def _lookup_problems(self, table: WarehouseTable) -> Iterator[str]:
        """What is wrong with the joins of a table."""
        for lookup in table.lookups:
            partner, on = self.source_table(lookup.table), self.source_table(table.source).column(lookup.on)
            if sum(other.table == lookup.table for other in table.lookups) > 1:
                yield f"has two joins '{lookup.table}'; make a dimension of it, carry both keys, and join them in a view"
            if len(partner.key) != 1:
                yield f"joins '{lookup.table}', whose key is not one column"
            elif not join_alike(on.type, (key := partner.column(partner.key[0])).type):
                yield (
                    f"joins '{lookup.table}' by '{lookup.on}', which is {on.type.family}, but its key is {key.type.family}; "
                    "join integers or texts among each other, or uuids, or dates"
                )

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
        elif not is_same_kind((key := dimension.column(dimension.key[0])).type, column.type):
            yield f"is {column.type.kind} but refers to '{dimension.name}.{key.name}', which is {key.type.kind}"
        for other in dimension.columns:
            if other.type.kind is Kind.VERBATIM and not other.nullable and other.name not in dimension.key:
                yield f"refers to '{dimension.name}', whose '{other.name}' must be nullable: an inferred member has none"

    def _calendar_problems(self, table: WarehouseTable, column: Column) -> Iterator[str]:
        """What is wrong with a column of the calendar."""
        if isinstance(column.origin, CalendarPart):
            yield from part_problems(column.origin.part, column.type.kind, is_key=column.name in table.key)
        else:
            yield "belongs to a calendar and must be a part of a date"

    def _problems(self, table: WarehouseTable, column: Column) -> Iterator[str]:
        """What is wrong with where a column of any other table comes from."""
        base = self.source_table(table.source)
        match column.origin:
            case FromSource(name, absent):
                yield from origin_problems(name, base.column(name).type, column.type, absent)
            case FromLookup(lookup, name, absent):
                if lookup not in {known.table for known in table.lookups}:
                    yield f"comes from '{lookup}', which the table does not join"
                    return
                yield from origin_problems(name, self.source_table(lookup).column(name).type, column.type, absent)
            case DateOf(name, absent) | TimeOf(name, absent):
                if (kind := base.column(name).type).kind not in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
                    yield f"is part of '{name}', which is not a timestamp"
                if not is_same_kind(other := base.column(absent or name).type, kind):
                    yield f"is part of '{name}', which is {kind.family}, but where that is NULL of a {other.family}"
            case ParsedDate(name) | CurrencyNameOf(name):
                if not base.column(name).type.is_text:
                    yield f"is read from '{name}', which is not a text"
            case CalendarPart(part):
                yield f"is the calendar's '{part}', but the table is not a calendar"
        yield from derivation_problems(column.origin, column.type)


Named = TypeVar("Named", SourceColumn, SourceTable, Column, WarehouseTable)


def _named(name: str, among: tuple[Named, ...], otherwise: str) -> Named:
    for one in among:
        if one.name == name:
            return one
    raise ContractError(f"{otherwise} '{name}'")


def _require_distinct(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ContractError(f"{what} '{name}'")
