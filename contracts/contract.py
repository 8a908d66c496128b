"""A contract: one source, or several, and the star made of them. Tables are entries here, not code.

DDL, merge SQL, Parquet schema, the rows a run reads and the proof are all derived from these entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from contracts.canonical import fingerprint_of
from contracts.checks import contradictions
from contracts.origins import FromSource
from contracts.tables import (
    Calendar,
    Column,
    ContractError,
    Dimension,
    Fact,
    Join,
    Path,
    RemodelledTable,
    SourceTable,
    StoredTable,
    Versions,
    WarehouseTable,
    named,
)
from contracts.warehouse import OWN_SCHEMA, own_lock, own_statement


@dataclass(frozen=True)
class Contract:
    """Sources and the star made of them. Constructing one checks that it does not contradict itself."""

    name: str  # of the star: a warehouse remembers it and refuses another
    source_schema: str  # the schema that holds the source tables that name no other
    warehouse_schema: str  # the schema in which the star is created
    source_tables: tuple[SourceTable, ...]
    warehouse_tables: tuple[WarehouseTable, ...]  # in load order: the calendar, dimensions, facts
    ledger_schema: str = OWN_SCHEMA  # the schema of Starlift's own tables: each star of a database has another one
    whole: Contract | None = None  # the contract of which this is one source's part; see `part`

    def __post_init__(self) -> None:
        if self.whole is None and (problems := tuple(contradictions(self))):
            raise ContractError(*problems)

    def own(self, text: str) -> str:
        """A statement of this product about its own tables, or the name of one, for this star; see own_statement."""
        return own_statement(self.ledger_schema, text)

    def own_lock(self, lock: int) -> int:
        """The number of this star's advisory lock; `lock` is that of a star whose contract names no schema."""
        return own_lock(self.ledger_schema, lock)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources; none if there is one and settings name it."""
        return tuple(dict.fromkeys(table.source_name for table in self.source_tables if table.source_name is not None))

    def part(self, source: str) -> Contract:
        """What concerns one source: its tables, and the tables of the star that are made of them.

        A contract that names no sources is the part of its only one. Raises: ContractError for a source that it does not name.
        """
        if not self.sources:
            return self
        tables = tuple(table for table in self.source_tables if table.source_name == source)
        if not tables:
            raise ContractError(f"contract '{self.name}' has no source '{source}'; its sources are {', '.join(self.sources)}")
        own = [table for known in tables for table in self.remodelled_from(known.name)]
        names, referred = {table.name for table in own}, {column.references for table in own for column in table.columns}
        star = (one for one in self.warehouse_tables if one.name in (referred if isinstance(one, Calendar) else names))
        return replace(self, source_tables=tables, warehouse_tables=tuple(star), whole=self.whole or self)

    def is_delivered(self, source: str) -> bool:
        """Whether a source has data sets (contracts/datasets.py): then it has no database."""
        return any(table.dataset is not None for table in self.part(source).source_tables)

    def source_table(self, name: str) -> SourceTable:
        """The source table called `name`. Raises: ContractError if there is none."""
        return named(name, self.source_tables, f"contract '{self.name}' has no source table")

    def relation_of(self, table: SourceTable) -> tuple[str, str]:
        """The schema and the name, unquoted, by which the source knows a table."""
        return table.schema or self.source_schema, table.relation or table.name

    def warehouse_table(self, name: str) -> WarehouseTable:
        """The warehouse table called `name`, of any source. Raises: ContractError if there is none."""
        return named(name, (self.whole or self).warehouse_tables, f"contract '{self.name}' has no warehouse table")

    @cached_property
    def calendar(self) -> Calendar | None:
        """The calendar dimension, if the star has one."""
        return next((table for table in self.warehouse_tables if isinstance(table, Calendar)), None)

    @cached_property
    def remodelled_tables(self) -> tuple[RemodelledTable, ...]:
        """Every warehouse table but the calendar, in load order."""
        return tuple(table for table in self.warehouse_tables if not isinstance(table, Calendar))

    @cached_property
    def stored_tables(self) -> tuple[StoredTable, ...]:
        """Every table of the star: the warehouse tables, and after them the versions of dimensions with history."""
        dimensions = (table for table in self.warehouse_tables if isinstance(table, Dimension))
        return (*self.warehouse_tables, *(table.versions for table in dimensions if table.versions is not None))

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """The facts, in load order."""
        return tuple(table for table in self.warehouse_tables if isinstance(table, Fact))

    def remodelled_from(self, source: str) -> tuple[RemodelledTable, ...]:
        """The warehouse tables whose base is the source table `source`."""
        return tuple(table for table in self.remodelled_tables if table.source == source)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Every path that a star table joins along, each once; a path comes before those that continue it."""
        paths = {path: None for table in self.remodelled_tables for path in table.paths.values()}
        return tuple(sorted(paths, key=len))

    @cached_property
    def joins(self) -> tuple[Join, ...]:
        """Every join of a source table with another, each once."""
        return tuple(dict.fromkeys(path[-1] for path in self.paths))

    def paths_of(self, source: str) -> tuple[Path, ...]:
        """The paths that begin at rows of the source table `source`."""
        return tuple(path for path in self.paths if path[0].start == source)

    def source_of(self, table: RemodelledTable) -> str | None:
        """The name of the source that a warehouse table is made from; None if the contract names no sources."""
        return (self.whole or self).source_table(table.source).source_name

    def version_of(self, table: StoredTable) -> str | None:
        """The column of a table that copies the version of its data set; None: the order of its images is that of runs.

        contracts/source_checks.py refuses a table without one, and whatever else would take the highest run for the newest.
        """
        if not isinstance(table, Dimension | Fact):
            return None
        dataset = (self.whole or self).source_table(table.source).dataset
        if dataset is None or dataset.version is None:
            return None
        copy = FromSource(dataset.version)
        return next(column.name for column in table.columns if column.origin == copy and not column.nullable)

    def has_filter(self, source: str) -> bool:
        """Whether a warehouse table leaves out some rows of the source table `source`."""
        return any(table.where is not None for table in self.remodelled_from(source))

    def references_to(self, table: str) -> tuple[tuple[Fact, Column], ...]:
        """Every column of a fact, of any source, that refers to the warehouse table `table`, with its fact."""
        return self._references.get(table, ())

    @cached_property
    def _references(self) -> Mapping[str, tuple[tuple[Fact, Column], ...]]:
        found = dict[str, tuple[tuple[Fact, Column], ...]]()
        for fact in (self.whole or self).facts:
            for column in fact.columns:
                if column.references is not None:
                    found[column.references] = (*found.get(column.references, ()), (fact, column))
        return found

    def unknown_of(self, column: Column) -> str | None:
        """The key that a fact's column holds in place of NULL, as PostgreSQL writes it; None if it holds NULL."""
        dimension = self.warehouse_table(column.references) if column.references is not None else None
        return dimension.unknown if isinstance(dimension, Dimension) else None

    def shown_surrogates(self, fact: Fact) -> Iterator[tuple[str, Column, Dimension]]:
        """What the views of a fact show of the dimensions that it refers to: their surrogates.

        Each with its name there, the fact's column that refers to the dimension, and the dimension. The name is the surrogate's
        own or, if several columns refer to the dimension, begins with the column's.
        """
        for column in fact.columns:
            dimension = self.warehouse_table(column.references) if column.references is not None else None
            if isinstance(dimension, Dimension) and dimension.surrogate is not None:
                roles = sum(other.references == dimension.name for other in fact.columns)
                name = dimension.surrogate if roles == 1 else f"{column.name}_{dimension.surrogate}"
                yield name, column, dimension

    def versions_referred_to(self, fact: Fact) -> Iterator[tuple[Column, Versions]]:
        """The versions of the dimensions with history that a fact refers to, each with the column that does."""
        for column in fact.columns:
            dimension = self.warehouse_table(column.references) if column.references is not None else None
            if isinstance(dimension, Dimension) and dimension.versions is not None:
                yield column, dimension.versions

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when anything in the contract does: every source table is then read in full.

        Those of a source's part change with that part alone: another source that is added has nothing of it read again.
        """
        return fingerprint_of(self)
