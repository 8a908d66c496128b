"""How a contract can contradict itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from contracts.calendar import part_problems
from contracts.column_types import ColumnType, Kind
from contracts.expression_parts import columns_read, needs_form
from contracts.expressions import NUMBERS, Expression, Type, type_of
from contracts.origins import CalendarPart, Computed, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.source_checks import repeated, source_problems
from contracts.tables import (
    NAME_BYTES_MAXIMUM,
    TABLE_NAME_BYTES_MAXIMUM,
    Calendar,
    Column,
    Dimension,
    Fact,
    Join,
    RemodelledTable,
    WarehouseTable,
)
from contracts.unknown import unknown_problems
from contracts.warehouse import HISTORY_COLUMNS, as_of_column, as_of_name, current_name, history_name, versions_name

_DERIVED_KINDS = {DateOf: Kind.DATE, TimeOf: Kind.TIME, ParsedDate: Kind.DATE, CurrencyNameOf: Kind.TEXT}

if TYPE_CHECKING:
    from contracts.contract import Contract


def contradictions(contract: Contract) -> Iterator[str]:
    """Every rule that a contract breaks, a sentence each. Raises: ContractError for a name that nothing has."""
    yield from source_problems(contract)
    names = [table.name for table in contract.stored_tables]
    names += [current_name(fact.name) for fact in contract.facts]
    names += [as_of_name(fact.name) for fact in contract.facts if fact.as_of]
    names += [history_name(table.name) for table in contract.warehouse_tables if isinstance(table, Dimension) and table.history]
    yield from repeated("two warehouse tables or views", names)
    for table in contract.warehouse_tables:
        yield from _table_problems(contract, table)


def _table_problems(contract: Contract, table: WarehouseTable) -> Iterator[str]:
    own = [table.surrogate] if table.surrogate else []
    shown = [name for name, *_ in contract.shown_surrogates(table)] if isinstance(table, Fact) else []
    yield from repeated(f"'{table.name}' has two columns", [*own, *(column.name for column in table.columns), *shown])
    for name in (*own, *shown):
        yield from (f"'{table.name}.{name}' {problem}" for problem in _name_problems(name))
    if isinstance(table, Dimension):
        yield from _history_problems(table) if table.history else ()
        yield from unknown_problems(contract, table)
    if isinstance(table, Fact) and table.as_of:
        yield from (f"'{table.name}' {problem}" for problem in _as_of_problems(contract, table))
    if len(table.name.encode()) > TABLE_NAME_BYTES_MAXIMUM:
        yield f"'{table.name}' has more than {TABLE_NAME_BYTES_MAXIMUM} bytes; shorten the name"
    yield from _decision_problems(table)
    yield from repeated(f"the key and the version of '{table.name}' repeat", list(table.identity))
    for name in table.identity:
        if table.column(name).nullable:
            yield (
                f"'{table.name}.{name}' identifies rows and may not be nullable; where its source may be NULL, give DateOf "
                "and TimeOf a second column by `absent`, or leave it out of `version`"
            )
    if not isinstance(table, Calendar):
        key = contract.source_table(table.source).key
        copied = tuple(FromSource(name) for name in key)
        if tuple(table.column(name).origin for name in table.key) != copied:
            yield (
                f"the key of '{table.name}' is not the key ({', '.join(key)}) of '{table.source}', column by column; "
                "a delete could not be found"
            )
        yield from (f"'{table.name}' {problem}" for problem in _lookup_problems(contract, table))
        yield from (f"the filter of '{table.name}' {problem}" for problem in _filter_problems(contract, table))
    for column in table.columns:
        yield from (f"'{table.name}.{column.name}' {problem}" for problem in _column_problems(contract, table, column))


def _history_problems(table: Dimension) -> Iterator[str]:
    if len((name := versions_name(table.name)).encode()) > NAME_BYTES_MAXIMUM:
        yield f"'{name}', for the history of '{table.name}', has more than {NAME_BYTES_MAXIMUM} bytes; shorten the name"
    own = [table.surrogate] if table.surrogate else []
    names = [*own, *HISTORY_COLUMNS, *(column.name for column in table.columns)]
    yield from repeated(f"'{history_name(table.name)}' has two columns", names)


def _as_of_problems(contract: Contract, fact: Fact) -> Iterator[str]:
    kinds = [fact.column(name).type.kind for name in fact.as_of]
    if kinds not in ([Kind.TIMESTAMP], [Kind.TIMESTAMPTZ], [Kind.DATE], [Kind.DATE, Kind.TIME]):
        yield "needs for `as_of` a timestamp, a date, or a date and a time of day"
    own = [name for name, *_ in contract.shown_surrogates(fact)] + ([fact.surrogate] if fact.surrogate else [])
    referred = contract.versions_referred_to(fact)
    shown = [as_of_column(column.name, name) for column, versions in referred for name in versions.shown_as_of]
    if not shown:
        yield "has `as_of`, but refers to no dimension with `history: true`"
    yield from repeated("shows as of its time two columns", [*own, *fact.star_types, *shown])
    yield from (f"shows as of its time '{name}', which {problem}" for name in shown for problem in _name_problems(name))


def _decision_problems(table: WarehouseTable) -> Iterator[str]:
    """Why columns can't be retired or renamed as a contract says."""
    names = {table.surrogate, *(column.name for column in table.columns)}
    for old in (*table.retired, *(old for _, old in table.renamed)):
        if old in names:
            yield f"'{table.name}.{old}' is a column of the contract, and can't be retired, or the old name of another"
    for new, _ in table.renamed:
        if new not in names:
            yield f"'{table.name}' renames a column to '{new}', which it does not have"


def _lookup_problems(contract: Contract, table: RemodelledTable) -> Iterator[str]:
    names = [lookup.name for lookup in table.lookups]
    for lookup in table.lookups:
        if names.count(lookup.name) > 1:
            yield f"has two lookups '{lookup.name}'; give each a name of its own"
        elif lookup.via is not None and lookup.via not in names:
            yield f"joins '{lookup.name}' via '{lookup.via}', which is not one of its lookups"
        elif lookup.name not in table.paths:
            yield f"joins '{lookup.name}' via '{lookup.via}', which never leads back to '{table.source}'; correct `via`"
        else:
            yield from _join_problems(contract, table.paths[lookup.name][-1])


def _join_problems(contract: Contract, join: Join) -> Iterator[str]:
    start, partner = contract.source_table(join.start), contract.source_table(join.table)
    if start.source_name != partner.source_name:
        between = f"'{start.name}' of source '{start.source_name}' with '{partner.name}' of source '{partner.source_name}'"
        yield f"joins {between}, which have no common snapshot; let a fact refer to a dimension by `references` instead"
        return
    columns = [start.column(name) for name in join.on]
    if len(columns) != len(partner.key):
        keys = f"({', '.join(join.on)}), but its key is ({', '.join(partner.key)})"
        yield f"joins '{partner.name}' by {keys}; name one column for each column of the key"
        return
    for column, key in zip(columns, map(partner.column, partner.key), strict=True):
        if not join_alike(column.type, key.type):
            joined = f"joins '{partner.name}' by '{column.name}', which is {column.type.family}"
            its_key = "its key" if len(columns) == 1 else f"'{key.name}' of its key"
            yield (
                f"{joined}, but {its_key} is {key.type.family}; "
                "join integers with integers, numerics with numerics of the same scale, texts with texts, and other types "
                "with themselves"
            )


def _filter_problems(contract: Contract, table: RemodelledTable) -> Iterator[str]:
    if table.where is None:
        return
    yield from _reading_problems(contract, table, table.where)
    yield from (f"reads '{read.name}' of a joined row" for read in columns_read(table.where) if read.lookup is not None)
    if table.where.type is not Type.BOOLEAN:
        yield f"makes {table.where.type}, not a boolean"


def _column_problems(contract: Contract, table: WarehouseTable, column: Column) -> Iterator[str]:
    yield from _name_problems(column.name)
    if column.references is not None:
        if not isinstance(table, Fact):
            yield f"refers to '{column.references}', which only a fact may"
        yield from _reference_problems(column, contract.warehouse_table(column.references))
    if not isinstance(table, Calendar):
        yield from _origin_problems(contract, table, column)
        derived = _DERIVED_KINDS.get(type(column.origin))
        if derived is not None and column.type.kind is not derived and not (derived is Kind.TEXT and column.type.is_text):
            yield f"is {column.type.kind} but holds a {derived}"
    elif isinstance(column.origin, CalendarPart):
        yield from part_problems(column.origin.part, column.type.kind, is_key=column.name in table.key)
    else:
        yield "belongs to a calendar and must be a part of a date"


def _name_problems(name: str) -> Iterator[str]:
    if name.startswith("_"):
        yield "begins with '_', as Starlift's own columns do"
    if len(name.encode()) > NAME_BYTES_MAXIMUM:
        yield f"has more than {NAME_BYTES_MAXIMUM} bytes; shorten the name"


def _reference_problems(column: Column, dimension: WarehouseTable) -> Iterator[str]:
    if len(dimension.key) != 1:
        yield f"refers to '{dimension.name}', whose key is not one column"
    elif (key := dimension.column(dimension.key[0])).type.is_decimal and column.type.is_decimal:
        if column.type != key.type:  # an inferred member has the fact's value
            refers = f"refers to '{dimension.name}.{key.name}', which is {key.type.sql}"
            yield f"is {column.type.sql} but {refers}; give both one type"
    elif not _is_same_kind(key.type, column.type):
        yield f"is {column.type.kind} but refers to '{dimension.name}.{key.name}', which is {key.type.kind}"
    for other in dimension.columns:
        if other.type.is_verbatim and not other.nullable and other.name not in dimension.key:
            yield f"refers to '{dimension.name}', whose '{other.name}' must be nullable: an inferred member has none"


def _origin_problems(contract: Contract, table: RemodelledTable, column: Column) -> Iterator[str]:
    if isinstance(column.origin, CalendarPart):
        yield f"is the calendar's '{column.origin.part}', but the table is not a calendar"
        return
    if isinstance(column.origin, Computed):
        yield from _computed_problems(contract, table, column.type, column.origin)
        return
    if (lookup := column.origin.lookup) is not None and lookup not in table.paths:
        yield f"comes from '{lookup}', which the table does not join"
        return
    row = contract.source_table(table.table_of(lookup))
    match column.origin:
        case FromSource(name, absent) | FromLookup(_, name, absent):
            yield from _copy_problems(name, row.column(name).type, column.type, absent)
        case DateOf(name, absent) | TimeOf(name, absent):
            if (kind := row.column(name).type).kind not in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
                yield f"is part of '{name}', which is not a timestamp"
            if not _is_same_kind(other := row.column(absent or name).type, kind):
                yield f"is part of '{name}', which is {kind.family}, but where that is NULL of a {other.family}"
        case ParsedDate(name) | CurrencyNameOf(name):
            if not row.column(name).type.is_text:
                yield f"is read from '{name}', which is not a text"


def _computed_problems(contract: Contract, table: RemodelledTable, wanted: ColumnType, origin: Computed) -> Iterator[str]:
    yield from _reading_problems(contract, table, origin.expression)
    made, declared = origin.expression.type, type_of(wanted)
    if made in {Type.NULL, Type.OPAQUE, Type.JSON, Type.ARRAY}:
        yield "is computed, but what its expression makes cannot be stored"
    elif not (made in NUMBERS and declared in NUMBERS) and made is not declared:
        yield f"is {wanted.sql} but its expression makes {made}"


def _reading_problems(contract: Contract, table: RemodelledTable, expression: Expression) -> Iterator[str]:
    for read in columns_read(expression):
        if read.lookup is not None and read.lookup not in table.paths:
            yield f"reads '{read.name}' of '{read.lookup}', which the table does not join"
            continue
        found = contract.source_table(table.table_of(read.lookup)).column(read.name).type
        if found != read.column_type and needs_form(expression, read):
            yield f"reads '{read.name}' as {read.column_type.sql}, which is {found.sql}"


def _copy_problems(name: str, found: ColumnType, wanted: ColumnType, absent: str | None) -> Iterator[str]:
    """Why values of the source column `name`, of type `found`, can't be those of a column of type `wanted`."""
    if not _is_same_kind(found, wanted) and not (found.is_text and wanted.is_text):
        yield f"is {wanted.family} but comes from '{name}', which is {found.family}"
    if found.scale != wanted.scale:  # a decimal travels as a whole number, which would be misread at another scale
        yield f"is {wanted.sql} but comes from '{name}', which is {found.sql}; give both the same scale"
    if wanted.precision < found.precision:
        yield f"is {wanted.sql}, too narrow for '{name}', which is {found.sql}"
    if absent is not None and not wanted.is_text:
        yield "has a text for absent values but is not a text"


def _is_same_kind(one: ColumnType, other: ColumnType) -> bool:
    """Whether values of the two have one physical form."""
    return (one.kind, one.name) == (other.kind, other.name)


def join_alike(one: ColumnType, key: ColumnType) -> bool:
    """Whether joining the two in data frames gives the same rows as in PostgreSQL.

    A scaled number is compared by its digits, so 7.00 would match 700. A timestamp key is a number of microseconds, which no
    index of the source supports.
    """
    if key.kind in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        return False
    if one.unscaled is not None and key.unscaled is not None:
        return one.scale == key.scale
    if one.is_decimal and key.is_decimal:  # of any bounds: a key's text has no zeros at the end
        return one.is_verbatim and key.is_verbatim
    return _is_same_kind(one, key) or (one.is_text and key.is_text)
