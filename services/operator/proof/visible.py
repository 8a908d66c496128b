"""Which rows of the star a reader sees. Pure SQL text."""

from __future__ import annotations

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.tables import UNKNOWN, Column, Fact, WarehouseTable
from contracts.warehouse import current_name
from shared.sql import literal, quoted

_STAND_INS = {  # the loader's value for a column of an inferred member that may not be NULL
    **dict.fromkeys((Kind.INTEGER, Kind.BIGINT, Kind.NUMERIC), "0"),
    **dict.fromkeys((Kind.TEXT, Kind.ENUM), literal(UNKNOWN)),
    Kind.BOOLEAN: "false",
    Kind.DATE: "date '0001-01-01'",
    Kind.TIME: "time '00:00'",
    Kind.TIMESTAMP: "timestamp '0001-01-01'",
    Kind.TIMESTAMPTZ: "timestamptz '0001-01-01 00:00+00'",
}


def relation(contract: Contract, table: WarehouseTable) -> str:
    """Where the warehouse holds the rows to compare: a fact's current versions are a view."""
    return quoted(contract.warehouse_schema, current_name(table.name) if isinstance(table, Fact) else table.name)


def visible_rows(contract: Contract, table: WarehouseTable) -> str:
    """The rows that are not marked as deleted, without inferred members, which stand for rows that are not there.

    An inferred member that no fact refers to is kept: no load made it.
    """
    name = relation(contract, table)
    references = [
        f"SELECT {quoted(column.name)} FROM {quoted(contract.warehouse_schema, fact.name)}"
        for fact in contract.warehouse_tables
        for column in fact.columns
        if column.references == table.name
    ]
    if not references:
        return f"(SELECT * FROM {name} WHERE _deleted_at IS NULL)"
    inferred = " AND ".join(["_run = 0", *(_is_inferred(column) for column in table.columns if column.name not in table.key)])
    made_up = f"NOT EXISTS (SELECT FROM ({' UNION ALL '.join(references)}) AS f (key) WHERE f.key = d.{quoted(table.key[0])})"
    return (
        f"(SELECT * FROM {name} WHERE _deleted_at IS NULL AND NOT ({inferred}) "
        f"UNION ALL SELECT * FROM {name} AS d WHERE _deleted_at IS NULL AND {inferred} AND {made_up})"
    )


def _is_inferred(column: Column) -> str:
    """Whether a column holds an inferred member's value: NULL, or the stand-in where NULL is not allowed."""
    stand_in = _STAND_INS.get(column.type.kind)
    name = quoted(column.name)
    if stand_in is None:
        return f"{name} IS NULL"
    if column.type.length:
        stand_in = f"left({stand_in}, {column.type.length})"
    return f"({name} IS NULL OR {name} = {stand_in})"
