"""From a contract in Python, as they were before contracts were documents, to the document that says the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import tables
from contracts.contract import Contract
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.paths import quoted_step
from contracts.source_document import NOT_NULL
from contracts.tables import Calendar, Column, Dimension, Drift, Fact, Lookup, RemodelledTable, SourceTable, WarehouseTable
from contracts.type_names import type_name
from contracts.warehouse import OWN_SCHEMA
from contracts.yaml_text import read_contract
from services.operator.contract.text import flow, scalar, source_text, star_table_lines
from services.operator.errors import UsageError

Options = dict[str, Any]


class _EarlierLookup(Lookup):
    """A lookup as contracts spelled it before keys of several columns: a single column is a text."""

    def __post_init__(self) -> None:
        on: Any = self.on
        object.__setattr__(self, "on", (on,) if isinstance(on, str) else tuple(on))
        super().__post_init__()


def contract_of_module(path: Path) -> Contract:
    """The CONTRACT of a Python file, which is run. Raises: UsageError."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spelled = vars(tables)
    try:
        spelled["Lookup"] = _EarlierLookup  # what the file imports
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"'{path}' raises {type(error).__name__} while it is run: {error}; correct it") from error
    finally:
        spelled["Lookup"] = Lookup
    contract = getattr(module, "CONTRACT", None)
    if not isinstance(contract, Contract):
        raise UsageError(f"'{path}' has no CONTRACT")
    return contract


def converted(contract: Contract) -> str:
    """The text of a document that means the same as `contract`.

    It is written as short as it can be, read, and completed where the short form means another type, or may be NULL.
    """
    text = _text(contract, {})
    short = read_contract(text, "the converted contract")
    options: dict[tuple[str, str], Options] = {}
    for table in contract.warehouse_tables:
        for column, read in zip(table.columns, short.warehouse_table(table.name).columns, strict=True):
            found: Options = {}
            if column.type != read.type:
                found["type"] = type_name(column.type)
            if column.nullable != read.nullable:
                found["nullable"] = column.nullable
            if found:
                options[table.name, column.name] = found
    return _text(contract, options) if options else text


def _text(contract: Contract, options: Mapping[tuple[str, str], Options]) -> str:
    lines = [f"name: {scalar(contract.name)}"]
    schemas = {"source_schema": contract.source_schema, "warehouse_schema": contract.warehouse_schema}
    lines += [f"{word}: {scalar(schema)}" for word, schema in schemas.items() if schema != "public"]
    if contract.ledger_schema != OWN_SCHEMA:
        lines.append(f"ledger_schema: {scalar(contract.ledger_schema)}")
    if carried := [table.name for table in contract.source_tables if table.drift is Drift.CARRY]:
        lines.append(f"carry: {flow(carried)}")
    lines += ["", "star:"]
    for table in contract.warehouse_tables:
        lines += [*star_table_lines(table.name, _entry(table, options)), ""]
    return "\n".join(lines) + "\n" + source_text({"tables": {table.name: _source(table) for table in contract.source_tables}})


def _source(table: SourceTable) -> dict[str, Any]:
    if table.dataset is not None:
        raise UsageError(f"'{table.name}' is a data set; write its `file` or `request` into a document yourself")
    columns = {one.name: type_name(one.type) + ("" if one.nullable else NOT_NULL) for one in table.stored_columns}
    place = {"schema": table.schema, "table": table.relation, "full": table.full or None}
    key = {"row_id": table.row_id} if table.row_id else {"key": list(table.key)}
    return {word: value for word, value in place.items() if value is not None and word not in key} | key | {"columns": columns}


def _entry(table: WarehouseTable, options: Mapping[tuple[str, str], Options]) -> dict[str, Any]:
    if isinstance(table, Calendar):
        parts = {column.name: column.origin.part for column in table.columns if isinstance(column.origin, CalendarPart)}
        return {"calendar": parts}
    entry: dict[str, Any] = {"fact" if isinstance(table, Fact) else "dimension": table.source}
    if table.where is not None:
        raise UsageError(f"'{table.name}' has a filter; write its `where` into the document yourself")
    if table.version:
        entry["version"] = list(table.version)
    if table.surrogate:
        entry["surrogate"] = table.surrogate
    if isinstance(table, Dimension) and table.history:
        entry["history"] = True
    if isinstance(table, Dimension) and table.unknown is not None:
        entry["unknown"] = table.unknown
    if isinstance(table, Fact) and table.as_of:
        entry["as_of"] = list(table.as_of)
    entry["key"] = list(table.key)
    if table.lookups:
        entry["joins"] = {one.name: _join(one) for one in table.lookups}
    return entry | {
        "columns": {one.name: _column(table, one, options.get((table.name, one.name), {})) for one in table.columns}
    }


def _join(lookup: Any) -> dict[str, Any]:
    return {"table": lookup.table, "on": list(lookup.on)} | ({"via": lookup.via} if lookup.via else {})


def _column(table: RemodelledTable, column: Column, options: Options) -> Options | str | None:
    found: Options = {}
    match column.origin:
        case FromSource(name, absent):
            found = {} if name == column.name else {"from": quoted_step(name)}
        case FromLookup(_, name, absent):
            found = {"from": _path(table, column.origin.lookup, name)}
        case DateOf(name, absent, lookup):
            found = {"date_of": _path(table, lookup, name)}
        case TimeOf(name, absent, lookup):
            found = {"time_of": _path(table, lookup, name)}
        case ParsedDate(name, lookup):
            found, absent = {"parsed_date": _path(table, lookup, name)}, None
        case CurrencyNameOf(name, lookup):
            found, absent = {"currency_name_of": _path(table, lookup, name)}, None
        case _:
            raise UsageError(f"'{table.name}.{column.name}' is computed; write its `sql` into the document yourself")
    if absent is not None:
        found["absent"] = absent
    if column.references is not None:
        found["references"] = column.references
    found |= options
    return found["from"] if found.keys() == {"from"} else found or None


def _path(table: RemodelledTable, lookup: str | None, column: str) -> str:
    steps = [quoted_step(column)]
    while lookup is not None:
        steps.insert(0, quoted_step(lookup))
        lookup = table.lookup(lookup).via
    return ".".join(steps)
