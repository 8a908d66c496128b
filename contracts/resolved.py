"""From a document to the Contract: paths become joins, and what a person left out comes from the source's catalog. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from contracts import document as written
from contracts.column_types import ColumnType
from contracts.contract import Contract
from contracts.document import DocumentError, Place, Problem
from contracts.expression_parts import columns_read, needs_form
from contracts.expressions import Expression, ExpressionError, ReadColumn
from contracts.origins import Computed, FromLookup, FromSource, Origin
from contracts.paths import quoted_step, steps_of
from contracts.star_columns import calendar, copied, made_from
from contracts.tables import (
    Column,
    ContractError,
    Dimension,
    Drift,
    Fact,
    Lookup,
    RemodelledTable,
    SourceColumn,
    SourceTable,
    WarehouseTable,
)

LISTED = 20  # names in a sentence
_FIRST_NAME = re.compile(r"'([^'.]+)(?:\.([^']+))?'")
_OF_MOMENTS = frozenset({"date_of", "time_of"})


class _MistakeError(Exception):
    """What is wrong with one place of a document."""


def resolved(document: written.Document) -> Contract:
    """The contract that a document says. Raises: DocumentError, with every problem."""
    return _Resolver(document).contract()


@dataclass(frozen=True, slots=True)
class _Found:
    """The column that a path leads to."""

    table: str
    column: str
    lookup: Lookup | None  # the join to its table; None: the base table
    type: ColumnType
    is_optional: bool  # its row may be missing
    nullable: bool  # it may be NULL, or its row missing


@dataclass(slots=True)
class _Resolver:
    document: written.Document
    problems: list[Problem] = field(default_factory=list)
    used: defaultdict[str, dict[str, ColumnType | None]] = field(default_factory=lambda: defaultdict(dict))

    def contract(self) -> Contract:
        tables = [table for name, entry in self.document.star.items() if (table := self._star_table(name, entry)) is not None]
        for name in (name for name in self.document.carry if name not in self.used):
            self.complain("carry", text=f"the star needs no table '{name}'")
        for source, part in self.document.sources.items():
            if part.tables.keys().isdisjoint(self.used):
                self.complain("sources", source, text="the star needs no table of this source; remove it")
        if self.problems:
            raise DocumentError(tuple(self.problems))
        sources = tuple(self._source_table(name) for name in self.document.tables if name in self.used)
        here, star = self.document, tuple(tables)
        try:
            return Contract(here.name, here.source_schema, here.warehouse_schema, sources, star, here.ledger_schema)
        except ContractError as error:
            raise DocumentError(tuple(Problem(self._place_of(text), text) for text in error.args)) from None

    def complain(self, *place: str, text: str) -> None:
        self.problems.append(Problem(place, text))

    def _place_of(self, text: str) -> Place:
        """Where in the document the table, or the column, is that a sentence names first."""
        if (found := _FIRST_NAME.search(text)) is None:
            return ()
        table, column = found.groups()
        if table in self.document.star:
            return ("star", table, *(("columns", column) if column else ()))
        return (*self.document.place_of(table), *(("columns", column) if column else ()))

    def _source_table(self, name: str) -> SourceTable:
        """What is read of a table: its key and the columns that the star needs; or every column, if it is carried."""
        here, found, used, is_carried = self.document, self.document.tables[name], self.used[name], name in self.document.carry
        columns = tuple(
            SourceColumn(column, used.get(column) or entry.type, nullable=entry.nullable)
            for column, entry in found.columns.items()
            if is_carried or column in used
        )
        others = () if is_carried else tuple(column for column in found.columns if column not in used)
        drift = Drift.CARRY if is_carried else Drift.FREEZE
        kept = (found.schema_, found.table, others, found.full, found.row_id, here.source_of(name), here.dataset_of(name))
        return SourceTable(name, found.key, columns, drift, *kept)

    def _star_table(self, name: str, entry: written.StarTable) -> WarehouseTable | None:
        if isinstance(entry, written.CalendarTable):
            return calendar(name, entry.calendar)
        kind, base = ("fact", entry.fact) if isinstance(entry, written.FactTable) else ("dimension", entry.dimension)
        known = self.document.tables
        if base not in known:
            self.complain("star", name, kind, text=f"the source has no table '{base}'; its tables are {_listed(known)}")
            return None
        source = known[base]
        try:
            self.use(base, source.needed)
        except _MistakeError as mistake:
            self.complain(*self.document.place_of(base), "key", text=str(mistake))
            return None
        return _StarTable(self, name, entry, base).table()

    def use(self, table: str, columns: tuple[str, ...], kind: ColumnType | None = None) -> None:
        """Read these columns; `kind`: in this form. Raises: _MistakeError."""
        known = self.document.tables[table].columns
        for column in columns:
            if column not in known:
                raise _MistakeError(f"table '{table}' has no column '{column}'; it has {_listed(known)}")
            before = self.used[table].get(column)
            if kind is not None and before is not None and before != kind:
                raise _MistakeError(f"'{table}.{column}' can't be read both as {before.sql} and as {kind.sql}")
            self.used[table][column] = kind or before


@dataclass(slots=True)
class _StarTable:
    """A dimension or a fact, of which the columns are being resolved."""

    whole: _Resolver
    name: str
    entry: written.DimensionTable | written.FactTable
    base: str
    lookups: dict[str, Lookup] = field(default_factory=dict)

    def table(self) -> RemodelledTable:
        columns = []
        for name, column in self.entry.columns.items():
            try:
                columns.append(self._column(name, column))
            except _MistakeError as mistake:
                self.whole.complain("star", self.name, "columns", name, text=str(mistake))
        where = self._where()
        key = self.entry.key or self._key(columns)
        columns = [replace(one, nullable=False) if one.name in key or self._has_unknown(one) else one for one in columns]
        lookups = tuple(self.lookups.values())
        decided: dict[str, Any] = {"where": where, "retired": self.entry.retired, "renamed": tuple(self.entry.renamed.items())}
        match self.entry:
            case written.DimensionTable(surrogate=surrogate, history=history, unknown=unknown):
                return Dimension(self.name, key, tuple(columns), self.base, lookups, surrogate, history, unknown, **decided)
            case written.FactTable(version=version, surrogate=surrogate, as_of=as_of):
                return Fact(self.name, key, tuple(columns), self.base, lookups, version, surrogate, as_of, **decided)

    def _has_unknown(self, column: Column) -> bool:
        """Whether a column holds its dimension's `unknown` in place of NULL, and nothing says that it may be NULL."""
        dimension = self.whole.document.star.get(column.references or "")
        has_unknown = isinstance(dimension, written.DimensionTable) and dimension.unknown is not None
        return has_unknown and self.entry.columns[column.name].nullable is None

    def _key(self, columns: list[Column]) -> tuple[str, ...]:
        """The columns that copy the source's key, in its order."""
        names = []
        for part in self.whole.document.tables[self.base].key:
            copies = [column.name for column in columns if column.origin == FromSource(part)]
            if not copies and part not in self.entry.columns:  # a column that could not be resolved has its own problem
                text = (
                    f"no column copies '{part}', which is in the key of '{self.base}': without it a delete could not be found"
                )
                self.whole.complain("star", self.name, "columns", text=text)
            names += copies[:1]
        return tuple(names)

    def _column(self, name: str, entry: written.Column) -> Column:
        kind, path = next(iter(entry.origins.items()), ("from", quoted_step(name)))
        if kind == "sql":
            return self._computed(name, entry, path)
        found = self._found(path)
        nullable = found.nullable and entry.absent is None
        travels: ColumnType | None = None
        origin: Origin
        if kind == "from":
            star_type, travels = copied(found.type, entry.type)
            if found.lookup is None:
                origin = FromSource(found.column, entry.absent)
            else:
                origin = FromLookup(found.lookup.name, found.column, entry.absent)
            if star_type.is_verbatim:  # an inferred member has none, but in its key
                nullable = nullable or isinstance(self.entry, written.DimensionTable)
        else:
            if entry.absent is not None:
                if kind not in _OF_MOMENTS:
                    raise _MistakeError(f"`absent` does not go with `{kind}`")
                self.whole.use(found.table, (entry.absent,))
                other = self.whole.document.tables[found.table].columns[entry.absent].nullable
                nullable = found.is_optional or (found.nullable and other)
            origin, star_type = made_from(kind, found.column, found.lookup.name if found.lookup else None, entry.absent)
            star_type = entry.type or star_type
        self.whole.use(found.table, (found.column,), travels)
        return Column(name, star_type, origin, entry.nullable if entry.nullable is not None else nullable, entry.references)

    def _computed(self, name: str, entry: written.Column, text: str) -> Column:
        if entry.type is None or entry.absent is not None:
            raise _MistakeError(
                "`sql` needs a `type`, that of what is stored, and takes no `absent`: write COALESCE(…, '(none)')"
            )
        expression, may_be_null = self._expression(text, self._read, "expression")
        nullable = may_be_null if entry.nullable is None else entry.nullable
        return Column(name, entry.type, Computed(expression), nullable, entry.references)

    def _where(self) -> Expression | None:
        if self.entry.where is None:
            return None
        try:
            return self._expression(self.entry.where, self._read_own, "filter")[0]
        except _MistakeError as mistake:
            self.whole.complain("star", self.name, "where", text=str(mistake))
            return None

    def _expression(
        self, text: str, read: Callable[[Sequence[str]], tuple[ReadColumn, bool]], what: str
    ) -> tuple[Expression, bool]:
        """The expression of a text, and whether it may be NULL. Raises: _MistakeError."""
        from contracts.derived import derived  # noqa: PLC0415 (sqlglot: half a second, for what few contracts have)

        try:
            expression, may_be_null = derived(text, read)
        except ExpressionError as error:
            raise _MistakeError(f"the {what} {error}") from None
        for column in columns_read(expression):
            table = self.lookups[column.lookup].table if column.lookup else self.base
            self.whole.use(table, (column.name,), column.column_type if needs_form(expression, column) else None)
        return expression, may_be_null

    def _read_own(self, path: Sequence[str]) -> tuple[ReadColumn, bool]:
        """A column that a filter names: a joined row may change without the row itself."""
        if len(path) > 1:
            raise _MistakeError(f"a filter reads columns of '{self.base}' alone, not '{'.'.join(path)}'")
        return self._read(path)

    def _read(self, path: Sequence[str]) -> tuple[ReadColumn, bool]:
        """A column that an expression names, and whether it may be NULL."""
        found = self._followed(path)
        return ReadColumn(found.lookup.name if found.lookup else None, found.column, found.type), found.nullable

    def _found(self, path: str) -> _Found:
        """As _followed(), from a path as text."""
        try:
            return self._followed(steps_of(path))
        except ValueError as error:
            raise _MistakeError(str(error)) from None

    def _followed(self, path: Sequence[str]) -> _Found:
        """Follow a path, and add the joins on the way. Raises: _MistakeError."""
        *steps, column = path
        table, lookup, is_optional = self.base, None, False
        for step in steps:
            lookup, may_miss = self._step(table, lookup, step)
            table, is_optional = lookup.table, is_optional or may_miss
        self.whole.use(table, (column,))
        entry = self.whole.document.tables[table].columns[column]
        return _Found(table, column, lookup, entry.type, is_optional, is_optional or entry.nullable)

    def _step(self, table: str, before: Lookup | None, step: str) -> tuple[Lookup, bool]:
        """The join that a step of a path names, and whether its row may be missing."""
        tables = self.whole.document.tables
        links = tables[table].links
        declared = self.entry.joins.get(step)
        if declared is not None and declared.via == (before.name if before else None):
            target, on, name = declared.table, declared.on, step
        else:
            named = [(step,)] if (step,) in links else [on for on, target in links.items() if target == step]
            if len(named) != 1:
                which = (
                    "several foreign keys lead there; name the column" if named else "it names neither a foreign key nor a join"
                )
                known = _listed({f"{', '.join(on)} → {target}": target for on, target in links.items()}) if links else "none"
                raise _MistakeError(f"'{step}' leads nowhere from table '{table}': {which} (foreign keys: {known})")
            target, on = links[named[0]], named[0]
            name = ".".join([*([before.name] if before else []), ",".join(on)])
        if target not in tables:
            raise _MistakeError(f"the source has no table '{target}'; `starlift pull` adds it if a foreign key leads there")
        self.whole.use(table, on)
        self.whole.use(target, tables[target].key)
        lookup = Lookup(target, on, name, before.name if before else None)
        if self.lookups.setdefault(name, lookup) != lookup:  # a column of the one would be read from the other
            raise _MistakeError(f"'{step}' leads to '{target}', but another step is also called '{name}'; rename the join")
        is_certain = links.get(on) == target and not any(tables[table].columns[one].nullable for one in on)
        return lookup, not is_certain


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)[:LISTED]) + (", …" if len(names) > LISTED else "")
