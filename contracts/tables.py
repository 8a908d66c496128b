"""What a contract is made of: the tables of a source, and the tables of the star."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum, unique
from functools import cached_property
from typing import TypeVar

from contracts.column_types import TEXT, ColumnType
from contracts.datasets import Dataset
from contracts.expressions import Expression
from contracts.origins import Origin
from contracts.warehouse import HISTORY_COLUMNS, RUN, current_name, versions_name

NAME_BYTES_MAXIMUM = 63  # PostgreSQL cuts longer names, silently
TABLE_NAME_BYTES_MAXIMUM = NAME_BYTES_MAXIMUM - len(current_name(""))  # the longest of what is named after a warehouse table
UNKNOWN = "(unknown)"  # what an inferred member and an absent optional text show


@unique
class Drift(StrEnum):
    """What a source table does with a new column, which is reported by name and type under either policy."""

    FREEZE = "freeze"  # the default: only the columns that the contract names leave the source
    CARRY = "carry"  # new columns are carried to the landing bucket as text until a contract names them


class ContractError(ValueError):
    """A contract contradicts itself; each argument is a sentence. Recovery: correct the contract."""

    def __str__(self) -> str:
        """The sentences, in one line."""
        return "; ".join(str(problem) for problem in self.args)


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column that Starlift reads."""

    name: str  # as the source spells it, unquoted
    type: ColumnType  # the form in which its values travel
    # As the source declares it, like the labels of an enum. A test holds both against the real schema; a run refuses nothing
    # because of them: NULL and a new label are the warehouse column's affair.
    nullable: bool = False


@dataclass(frozen=True)
class SourceTable:
    """A table that Starlift reads."""

    name: str  # as the source spells it, unquoted, without its schema; see `relation`
    key: tuple[str, ...]  # its primary key, or the columns of a unique index on NOT NULL columns; if `full`, as declared
    columns: tuple[SourceColumn, ...]  # those that Starlift reads; the table may have others
    drift: Drift = Drift.FREEZE  # what becomes of columns that are not listed here
    schema: str | None = None  # the schema that holds it; None: the contract's
    relation: str | None = None  # what the source calls it, if two tables of different schemas have one name; None: `name`
    others: tuple[str, ...] = ()  # columns that are known and stay in the source: they are not reported as new
    full: bool = False  # every run reads all of it: it is not a table, or no index guarantees its key
    row_id: str | None = None  # its key, if it has none: a column that Starlift computes, of a hash of the others
    source_name: str | None = None  # which of several sources has it; None: the contract has one source, which settings name
    dataset: Dataset | None = None  # how its rows are delivered; None: it is a table of a PostgreSQL database

    @cached_property
    def defect(self) -> str:
        """The first column of an extract: which values of the row could not travel (NaN, infinity); usually NULL."""
        return self.unlike_its_columns("_defect")

    @cached_property
    def key_text(self) -> str | None:
        """The column of an extract that holds the key as a JSON array, if it has other values than whole numbers and texts.

        In a column of its own a date or a numeric is a number, or NULL if it is infinite, which can't identify a row.
        """
        kinds = (self.column(name).type for name in self.key)
        return None if all(kind.is_whole_number or kind.travels_as_text for kind in kinds) else self.unlike_its_columns("_key")

    @property
    def stored_columns(self) -> tuple[SourceColumn, ...]:
        """The columns that the source has."""
        return tuple(column for column in self.columns if column.name != self.row_id)

    @cached_property
    def extract_types(self) -> dict[str, ColumnType]:
        """The columns of an extract in the landing bucket: Starlift's own, then those of the contract."""
        own = [self.defect, *([self.key_text] if self.key_text else [])]
        return dict.fromkeys(own, TEXT) | {column.name: column.type for column in self.columns}

    def unlike_its_columns(self, name: str) -> str:
        """`name`, or one like it that no column of the source has: for a column of Starlift's own."""
        while any(column.name == name for column in self.columns):
            name += "_"
        return name

    def column(self, name: str) -> SourceColumn:
        """The column called `name`. Raises: ContractError if there is none."""
        return named(name, self.columns, f"source table '{self.name}' has no column")


@dataclass(frozen=True, slots=True)
class Lookup:
    """A join with the partner: the row of another source table to whose key some columns refer."""

    table: str  # the partner's table; it may be the base table itself
    on: tuple[str, ...]  # of the row that the join starts from: one column for each column of the partner's key, in its order
    name: str = ""  # what origins and `via` call it; by default the table's name
    via: str | None = None  # the name of the lookup whose row the join starts from; None: the base row

    def __post_init__(self) -> None:
        """Fill in the default. Raises: ContractError for a text in the place of a tuple."""
        if not isinstance(self.on, tuple):
            raise ContractError(f"`on` of the lookup '{self.name or self.table}' is a tuple of columns, not {self.on!r}")
        object.__setattr__(self, "name", self.name or self.table)


@dataclass(frozen=True, slots=True)
class Join:
    """What a lookup joins, whatever it is called: rows of `start` with those of `table` to which their columns `on` refer."""

    start: str
    on: tuple[str, ...]
    table: str


Path = tuple[Join, ...]  # from a base row to one of its partners, over any number of others


@dataclass(frozen=True, slots=True)
class Column:
    """A business column of a warehouse table."""

    name: str
    type: ColumnType  # of its values in the processed bucket; `type.sql` is the type in the warehouse
    origin: Origin  # where its values come from
    nullable: bool = False  # a NULL in a column that isn't nullable sends its row to quarantine
    references: str | None = None  # of a fact's column: the dimension, or the calendar, whose key it holds


@dataclass(frozen=True)
class _StarTable:
    name: str  # unquoted, without the schema
    key: tuple[str, ...]  # the business key: names of columns
    columns: tuple[Column, ...]  # in the warehouse's order
    # Decisions about columns that are there no more: what is kept as it is, and each new name with the old one.
    retired: tuple[str, ...] = field(default=(), kw_only=True)
    renamed: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)

    @property
    def version(self) -> tuple[str, ...]:
        """The columns that tell the versions of a row apart; only a fact has any."""
        return ()

    @property
    def surrogate(self) -> str | None:
        """An identity column, which the warehouse fills; a calendar has none."""
        return None

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that tell two rows apart: the key and the version."""
        return self.key + self.version

    @cached_property
    def star_types(self) -> dict[str, ColumnType]:
        """The business columns, in contract order: those of its rows in the processed bucket."""
        return {column.name: column.type for column in self.columns}

    def column(self, name: str) -> Column:
        """The column called `name`. Raises: ContractError if there is none."""
        return named(name, self.columns, f"warehouse table '{self.name}' has no column")


@dataclass(frozen=True)
class Calendar(_StarTable):
    """One row per date that a fact refers to, computed by the loader."""


@dataclass(frozen=True)
class Versions(_StarTable):
    """What runs have seen of a dimension with history: one row per business key and run.

    A row with `_deleted_at` says that the run looked the key up and did not find it; its other business columns are NULL.
    """

    @property
    def version(self) -> tuple[str, ...]:
        """The run."""
        return (RUN,)

    @property
    def shown_as_of(self) -> tuple[str, ...]:
        """What views of facts show of the version that was valid at their time: the columns outside the key, and its number."""
        return (*(name for name in self.star_types if name not in self.key), HISTORY_COLUMNS[0])


@dataclass(frozen=True)
class _JoinedTable(_StarTable):
    source: str  # the base table
    lookups: tuple[Lookup, ...] = ()  # the joins that origins name, in any order
    # The filter: a row of `source` for which it is not true is not in the table. It reads the base row alone, so that a row's
    # verdict changes only when the row does.
    where: Expression | None = field(default=None, kw_only=True)

    def lookup(self, name: str) -> Lookup:
        """The lookup called `name`. Raises: ContractError if there is none."""
        return named(name, self.lookups, f"'{self.name}' has no lookup")

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The path to each lookup's partner, by the lookup's name; a path comes before those that continue it.

        A lookup that starts from an unknown one, or in a circle from itself, has none; a contract refuses it.
        """
        paths: dict[str, Path] = {}
        for _ in self.lookups:  # no path has more steps
            for lookup in self.lookups:
                if lookup.name not in paths and (lookup.via is None or lookup.via in paths):
                    before = paths[lookup.via] if lookup.via else ()
                    start = before[-1].table if before else self.source
                    paths[lookup.name] = (*before, Join(start, lookup.on, lookup.table))
        return paths

    def table_of(self, lookup: str | None) -> str:
        """The source table that holds a column of the lookup called `lookup`, or of the base row (None)."""
        return self.source if lookup is None else self.lookup(lookup).table


@dataclass(frozen=True)
class Dimension(_JoinedTable):
    """The latest state of a source table: one row per business key."""

    surrogate: str | None = None  # an identity column, which the warehouse fills when it first inserts a key, and never changes
    history: bool = False  # whether every state that a run has seen is kept
    # The key, as PostgreSQL writes it, that facts hold where their reference is NULL; they then refer to an inferred member.
    unknown: str | None = None

    @cached_property
    def versions(self) -> Versions | None:
        """The table of its versions; None without history."""
        columns = tuple(replace(column, nullable=column.name not in self.key) for column in self.columns)
        if not self.history:
            return None
        return Versions(versions_name(self.name), self.key, columns, retired=self.retired, renamed=self.renamed)


@dataclass(frozen=True)
class Fact(_JoinedTable):
    """The history of a source table: one row per business key and version."""

    version: tuple[str, ...] = ()  # the columns that tell versions apart; without them the fact keeps only the newest row
    surrogate: str | None = None  # an identity column, which the warehouse fills
    as_of: tuple[str, ...] = ()  # the timestamp, the date, or the date and the time of day, at which dimensions are looked up


RemodelledTable = Dimension | Fact  # its rows are made from those of a source table
WarehouseTable = Calendar | RemodelledTable
StoredTable = WarehouseTable | Versions

Named = TypeVar("Named", SourceColumn, SourceTable, Lookup, Column, WarehouseTable)


def named(name: str, among: tuple[Named, ...], otherwise: str) -> Named:
    """The one called `name`. Raises: ContractError, `otherwise` and the name, if there is none."""
    for one in among:
        if one.name == name:
            return one
    raise ContractError(f"{otherwise} '{name}'")
