"""A contract as one plain document, whose hash is the contract's identity (docs/decisions/0013-identity-of-a-contract.md).

The names in it are spelled here, not taken from Python's classes, so that renaming a field changes no identity. What has its
default is left out, so that a field that is added later changes no contract that does not use it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from contracts.column_types import ColumnType
from contracts.datasets import Dataset
from contracts.expressions import Expression, Literal, Operation, ReadColumn
from contracts.origins import CalendarPart, Computed, CurrencyNameOf, DateOf, FromLookup, FromSource, Origin, ParsedDate, TimeOf
from contracts.tables import Calendar, Column, Dimension, Drift, Fact, Lookup, SourceTable, WarehouseTable
from contracts.warehouse import OWN_SCHEMA

if TYPE_CHECKING:
    from contracts.contract import Contract

FORMAT = 1  # a new one makes every source be read again, once


def fingerprint_of(contract: Contract) -> str:
    """16 hexadecimal digits that change when anything in the contract does."""
    text = json.dumps(canonical_document(contract), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical_document(contract: Contract) -> dict[str, Any]:
    """Everything that a contract says, as JSON values; two contracts with one document are equal."""
    return {
        "format": FORMAT,
        "name": contract.name,
        "source_schema": contract.source_schema,
        "warehouse_schema": contract.warehouse_schema,
        "source_tables": [
            _source_table(table) | ({} if contract.whole else _given(source_name=table.source_name))
            for table in contract.source_tables
        ],
        "warehouse_tables": [_warehouse_table(table) for table in contract.warehouse_tables],
        **_given(
            ledger_schema=None if contract.ledger_schema == OWN_SCHEMA else contract.ledger_schema,
            unknown=_unknown_of_others(contract) or None,
        ),
    }


def _unknown_of_others(contract: Contract) -> dict[str, str]:
    """Of a source's part: what its facts hold in place of NULL where they refer to a dimension of another source."""
    own = {table.name for table in contract.warehouse_tables}
    columns = [column for fact in contract.facts for column in fact.columns if column.references not in own]
    return {column.references: key for column in columns if column.references and (key := contract.unknown_of(column))}


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that do not have their default; an empty text is a value."""
    return {name: value for name, value in fields.items() if value not in (None, False, 0, [])}


def _source_table(table: SourceTable) -> dict[str, Any]:
    columns = [_given(name=column.name, type=_type(column.type), nullable=column.nullable) for column in table.columns]
    drift = None if table.drift is Drift.FREEZE else table.drift.value
    return _given(
        name=table.name,
        key=list(table.key),
        columns=columns,
        drift=drift,
        schema=table.schema,
        relation=table.relation,
        full=table.full,
        row_id=table.row_id,
        dataset=None if table.dataset is None else _dataset(table.dataset),
    )


def _dataset(dataset: Dataset) -> dict[str, Any]:
    """What its records mean, and which image of a row is the newest; not how often and with what secret they are asked for.

    `contents` is always there: a data set is not the table of a database that has its columns.
    """
    form, request = dataset.form, dataset.request
    fields = {"delimiter": form.delimiter, "null": form.null, "encoding": form.encoding, "path": form.path}
    usual = {"delimiter": ",", "null": "", "encoding": "utf-8", "path": None}
    return _given(
        contents=dataset.contents.value,
        format=form.format.value,
        **{name: value for name, value in fields.items() if value != usual[name]},
        version=dataset.version,
        request=None if request is None else _given(path=request.path, parameters=dict(request.parameters) or None),
    )


def _warehouse_table(table: WarehouseTable) -> dict[str, Any]:
    document = {"name": table.name, "key": list(table.key), "columns": [_column(column) for column in table.columns]}
    match table:
        case Calendar():
            return {"kind": "calendar", **document}
        case Dimension():
            document |= {"kind": "dimension", "source": table.source}
            document |= _given(surrogate=table.surrogate, history=table.history, unknown=table.unknown)
        case Fact():
            document |= {"kind": "fact", "source": table.source}
            document |= _given(version=list(table.version), surrogate=table.surrogate, as_of=list(table.as_of))
    where = None if table.where is None else _expression(table.where)
    return document | _given(lookups=[_lookup(lookup) for lookup in table.lookups], where=where)


def _lookup(lookup: Lookup) -> dict[str, Any]:
    """A single column is a text, as it was before keys of several columns could be joined."""
    on = lookup.on[0] if len(lookup.on) == 1 else list(lookup.on)
    name = None if lookup.name == lookup.table else lookup.name
    return _given(table=lookup.table, on=on, name=name, via=lookup.via)


def _column(column: Column) -> dict[str, Any]:
    return _given(
        name=column.name,
        type=_type(column.type),
        origin=_origin(column.origin),
        nullable=column.nullable,
        references=column.references,
    )


def _type(kind: ColumnType) -> dict[str, Any]:
    return _given(
        kind=kind.kind.value,
        precision=kind.precision,
        scale=kind.scale,
        length=kind.length,
        labels=list(kind.labels),
        name=kind.name or None,
    )


def _origin(origin: Origin) -> dict[str, Any]:
    match origin:
        case FromSource(column, absent):
            return _given(from_source=column, absent=absent)
        case FromLookup(lookup, column, absent):
            return _given(from_lookup=lookup, column=column, absent=absent)
        case DateOf(column, absent, lookup):
            return _given(date_of=column, absent=absent, lookup=lookup)
        case TimeOf(column, absent, lookup):
            return _given(time_of=column, absent=absent, lookup=lookup)
        case ParsedDate(column, lookup):
            return _given(parsed_date=column, lookup=lookup)
        case CurrencyNameOf(column, lookup):
            return _given(currency_name_of=column, lookup=lookup)
        case Computed(expression):
            return {"computed": _expression(expression)}
        case CalendarPart(part):
            return {"calendar_part": part}


def _expression(expression: Expression) -> dict[str, Any]:
    """The tree, not the text that it was made from: spaces, comments and parentheses change no identity."""
    match expression:
        case ReadColumn(lookup, name, kind):
            return _given(column=name, lookup=lookup, type=_type(kind))
        case Literal(value):
            return {"literal": None if value is None else str(value), "type": expression.type.name.lower()}
        case Operation(name, arguments):
            return {"operation": name, "arguments": [_expression(argument) for argument in arguments]}
