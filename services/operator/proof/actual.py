"""The rows that the warehouse does hold. Pure SQL text, for the warehouse."""

from __future__ import annotations

from collections.abc import Collection

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.origins import CalendarPart
from contracts.tables import UNKNOWN, Calendar, Column, Dimension, Fact, StoredTable, Versions, WarehouseTable
from contracts.warehouse import DELETED_AT, RUN, current_name
from services.operator.proof.canonical import canonical_query
from services.operator.star_keys import key_value
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
_CALENDAR_SQL = {
    "date": "{d}",
    "year": "extract(year FROM {d})::integer",
    "month": "extract(month FROM {d})::integer",
    "day": "extract(day FROM {d})::integer",
    "day_of_week": "extract(isodow FROM {d})::integer - 1",
    "day_name": "to_char({d}, 'FMDay')",
    "month_name": "to_char({d}, 'FMMonth')",
    "quarter": "extract(quarter FROM {d})::integer",
}


def actual_rows(contract: Contract, table: WarehouseTable, unproved: Collection[int] = ()) -> str:
    """The rows that a reader of `table` sees; for a fact, the current version of each key.

    The cause of a row is the place of its run among the `unproved` ones, of which it is not known what they delivered.
    """
    cause = f"array_position(ARRAY[{', '.join(map(str, unproved))}]::bigint[], a.{RUN}) - 1" if unproved else "NULL::integer"
    return canonical_query(
        keys=[key_value(quoted("a", name), table.column(name)) for name in table.key],
        values=[f"{quoted('a', column.name)}::text" for column in table.columns],
        cause=cause,
        stamp=f"a.{RUN}::text",
        relation=f"{_visible_rows(contract, table)} AS a",
    )


def current_relation(contract: Contract, table: StoredTable) -> str:
    """The relation that a reader queries: of a fact, the view of its current versions; of any other table, the table."""
    return quoted(contract.warehouse_schema, current_name(table.name) if isinstance(table, Fact) else table.name)


def newest_versions(contract: Contract, versions: Versions) -> str:
    """The last state of each key that runs have seen and that was not deleted after it: those of the dimension's rows."""
    key = ", ".join(map(quoted, versions.key))
    newest = f"SELECT DISTINCT ON ({key}) * FROM {current_relation(contract, versions)} ORDER BY {key}, {RUN} DESC"
    return canonical_query(
        keys=[key_value(quoted("v", name), versions.column(name)) for name in versions.key],
        values=[f"{quoted('v', column.name)}::text" for column in versions.columns],
        cause="NULL::integer",
        stamp=f"v.{RUN}::text",
        relation=f"(SELECT * FROM ({newest}) AS newest WHERE {DELETED_AT} IS NULL) AS v",
    )


def _visible_rows(contract: Contract, table: WarehouseTable) -> str:
    """The rows that are not marked as deleted, without inferred members, which stand for rows that are not there.

    An inferred member that no fact refers to is kept: whether a load made it is for loaded.py to find out.
    """
    name = current_relation(contract, table)
    references = [
        f"SELECT {quoted(column.name)} FROM {quoted(contract.warehouse_schema, fact.name)}"
        for fact, column in contract.references_to(table.name)
    ]
    if not references:
        return f"(SELECT * FROM {name} WHERE {DELETED_AT} IS NULL)"
    inferred = is_inferred(table)
    key = quoted("d", table.key[0])
    made_up = f"NOT EXISTS (SELECT FROM ({' UNION ALL '.join(references)}) AS f (key) WHERE f.key = {key})"
    if isinstance(table, Dimension) and table.unknown is not None:  # it stays when the last fact that referred to it changes
        made_up += f" AND {key} <> {literal(table.unknown)}::{table.column(table.key[0]).type.unbounded_sql}"
    return (
        f"(SELECT * FROM {name} WHERE {DELETED_AT} IS NULL AND NOT ({inferred}) "
        f"UNION ALL SELECT * FROM {name} AS d WHERE {DELETED_AT} IS NULL AND {inferred} AND {made_up})"
    )


def is_inferred(table: WarehouseTable) -> str:
    """Whether a row is as an inferred member is: of run 0, with its key alone."""
    return " AND ".join([f"{RUN} = 0", *(_is_stand_in(column) for column in table.columns if column.name not in table.key)])


def _is_stand_in(column: Column) -> str:
    """Whether a column holds an inferred member's value: NULL, or the stand-in where NULL is not allowed."""
    stand_in = _STAND_INS.get(column.type.kind)
    name = quoted(column.name)
    if stand_in is None:
        return f"{name} IS NULL"
    if column.type.length:
        stand_in = f"left({stand_in}, {column.type.length})"
    return f"({name} IS NULL OR {name} = {stand_in})"


def wrong_dates(contract: Contract, calendar: Calendar) -> str:
    """Those of the dates $1 (text[]) and of the calendar whose row is missing, wrong or duplicated.

    Texts, because asyncpg sends the last date that Python has, 9999-12-31, as infinity.
    """
    parts = [(column, column.origin.part) for column in calendar.columns if isinstance(column.origin, CalendarPart)]
    key = quoted("c", calendar.key[0])
    same = " AND ".join(f"{quoted('c', column.name)} = {_CALENDAR_SQL[part].format(d='wanted.d')}" for column, part in parts)
    name = quoted(contract.warehouse_schema, calendar.name)
    return (
        f"SELECT wanted.d::text AS date, bool_and({key} IS NULL) AS is_missing "
        f"FROM (SELECT unnest($1::text[])::date AS d UNION SELECT {quoted(calendar.key[0])} FROM {name}) AS wanted "
        f"LEFT JOIN {name} AS c ON {key} = wanted.d GROUP BY wanted.d "
        f"HAVING bool_or(({same}) IS NOT TRUE) OR count(*) > 1 ORDER BY wanted.d"
    )
