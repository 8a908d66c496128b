"""How a contract can contradict itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from contracts.calendar import part_problems
from contracts.column_types import Kind
from contracts.conversions import KEY_TYPES, derivation_problems, is_same_kind, join_alike, may_be_key, origin_problems
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf, copied
from contracts.tables import (
    NAME_BYTES_MAXIMUM,
    TABLE_NAME_BYTES_MAXIMUM,
    Calendar,
    Column,
    Fact,
    RemodelledTable,
    WarehouseTable,
)
from contracts.warehouse import current_name

if TYPE_CHECKING:
    from contracts.contract import Contract


def contradictions(contract: Contract) -> Iterator[str]:
    """Every rule that a contract breaks, a sentence each. Raises: ContractError for a name that nothing has."""
    yield from _repeated("two source tables", [table.name for table in contract.source_tables])
    views = [current_name(fact.name) for fact in contract.facts]
    yield from _repeated("two warehouse tables or views", [*(table.name for table in contract.warehouse_tables), *views])
    for source in contract.source_tables:
        yield from _repeated(f"'{source.name}' has two columns", [column.name for column in source.columns])
        for name in source.key:
            if not may_be_key(kind := source.column(name).type):
                yield f"'{source.name}.{name}' is a key and must be {KEY_TYPES}, not {kind.family}"
    for table in contract.warehouse_tables:
        yield from _of_table(contract, table)


def _repeated(what: str, names: list[str]) -> Iterator[str]:
    return (f"{what} '{name}'" for name in names if names.count(name) > 1)


def _of_table(contract: Contract, table: WarehouseTable) -> Iterator[str]:
    own = [table.surrogate] if isinstance(table, Fact) and table.surrogate else []
    yield from _repeated(f"'{table.name}' has two columns", [*own, *(column.name for column in table.columns)])
    if len(table.name.encode()) > TABLE_NAME_BYTES_MAXIMUM:
        yield f"'{table.name}' has more than {TABLE_NAME_BYTES_MAXIMUM} bytes; shorten the name"
    for name in table.identity:
        if table.column(name).nullable:
            yield (
                f"'{table.name}.{name}' identifies rows and may not be nullable; where its source may be NULL, give DateOf "
                "and TimeOf a second column by `absent`, or leave it out of `version`"
            )
    if not isinstance(table, Calendar):
        if copied(table.column(name).origin for name in table.key) != (key := contract.source_table(table.source).key):
            yield (
                f"the key of '{table.name}' is not the key ({', '.join(key)}) of '{table.source}', column by column; "
                "a delete could not be found"
            )
        yield from (f"'{table.name}' {problem}" for problem in _of_lookups(contract, table))
    for column in table.columns:
        yield from (f"'{table.name}.{column.name}' {problem}" for problem in _of_column(contract, table, column))


def _of_lookups(contract: Contract, table: RemodelledTable) -> Iterator[str]:
    for lookup in table.lookups:
        partner, on = contract.source_table(lookup.table), contract.source_table(table.source).column(lookup.on)
        if sum(other.table == lookup.table for other in table.lookups) > 1:
            yield f"has two joins '{lookup.table}'; make a dimension of it, carry both keys, and join them in a view"
        if len(partner.key) != 1:
            yield f"joins '{lookup.table}', whose key is not one column"
        elif not join_alike(on.type, (key := partner.column(partner.key[0])).type):
            yield (
                f"joins '{lookup.table}' by '{lookup.on}', which is {on.type.family}, but its key is {key.type.family}; "
                "join integers or texts among each other, or uuids, or dates"
            )


def _of_column(contract: Contract, table: WarehouseTable, column: Column) -> Iterable[str]:
    if column.name.startswith("_"):
        yield "begins with '_', as Starlift's own columns do"
    if len(column.name.encode()) > NAME_BYTES_MAXIMUM:
        yield f"has more than {NAME_BYTES_MAXIMUM} bytes; shorten the name"
    if column.references is not None:
        if not isinstance(table, Fact):
            yield f"refers to '{column.references}', which only a fact may"
        yield from _of_reference(column, contract.warehouse_table(column.references))
    if not isinstance(table, Calendar):
        yield from _of_origin(contract, table, column)
        yield from derivation_problems(column.origin, column.type)
    elif isinstance(column.origin, CalendarPart):
        yield from part_problems(column.origin.part, column.type.kind, is_key=column.name in table.key)
    else:
        yield "belongs to a calendar and must be a part of a date"


def _of_reference(column: Column, dimension: WarehouseTable) -> Iterator[str]:
    if len(dimension.key) != 1:
        yield f"refers to '{dimension.name}', whose key is not one column"
    elif not is_same_kind((key := dimension.column(dimension.key[0])).type, column.type):
        yield f"is {column.type.kind} but refers to '{dimension.name}.{key.name}', which is {key.type.kind}"
    for other in dimension.columns:
        if other.type.kind is Kind.VERBATIM and not other.nullable and other.name not in dimension.key:
            yield f"refers to '{dimension.name}', whose '{other.name}' must be nullable: an inferred member has none"


def _of_origin(contract: Contract, table: RemodelledTable, column: Column) -> Iterator[str]:
    base = contract.source_table(table.source)
    match column.origin:
        case FromSource(name, absent):
            yield from origin_problems(name, base.column(name).type, column.type, absent)
        case FromLookup(lookup, name, absent):
            if lookup not in {known.table for known in table.lookups}:
                yield f"comes from '{lookup}', which the table does not join"
            else:
                yield from origin_problems(name, contract.source_table(lookup).column(name).type, column.type, absent)
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
