"""The SQL of the proof: the expected star rows on the source, the actual ones on the warehouse, in one canonical text form.

Pure text. A statement answers rows of (key columns…, values: text[], in_flight: boolean), in the order of the key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from iso4217 import Currency

from contracts.column_types import Kind
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Column, Contract, TableKind, WarehouseTable
from services.operator.proof.comparison import Key
from shared.sql import literal, quoted

BASE = "b"
_CALENDAR_SQL = {
    "date": "d",
    "year": "extract(year FROM d)::integer",
    "month": "extract(month FROM d)::integer",
    "day": "extract(day FROM d)::integer",
    "day_of_week": "extract(isodow FROM d)::integer - 1",
    "day_name": "to_char(d, 'FMDay')",
    "month_name": "to_char(d, 'FMMonth')",
    "quarter": "extract(quarter FROM d)::integer",
}


def expected_rows(contract: Contract, table: WarehouseTable, horizon: int | None) -> str:
    """On the source: the rows that `table` (its current versions, for a fact) should hold.

    A row is in flight when it or a partner was written by a transaction that had not ended at `horizon`.
    """
    joins = "".join(
        f" LEFT JOIN {quoted(contract.source_schema, lookup.table)} AS {quoted(lookup.table)}"
        f" ON {quoted(lookup.table, contract.source_table(lookup.table).key[0])} = {quoted(BASE, lookup.on)}"
        for lookup in table.lookups
    )
    aliases = [BASE, *(lookup.table for lookup in table.lookups)]
    return _ordered(
        keys=[expected_value(table.column(name)) for name in table.key],
        kinds=[table.column(name) for name in table.key],
        values=[f"({expected_value(column)})::text" for column in table.columns],
        in_flight=" OR ".join(_is_in_flight(alias, horizon) for alias in aliases),
        origin=f"{quoted(contract.source_schema, table.source)} AS {BASE}{joins}",
    )


def _is_in_flight(alias: str, horizon: int | None) -> str:
    if horizon is None:
        return "false"
    return f"coalesce(age({quoted(alias)}.xmin) BETWEEN 0 AND age('{horizon % 2**32}'::xid), false)"


def _is_none_of(table: WarehouseTable, quarantined: Mapping[str, Collection[Key]]) -> str:
    keys = quarantined.get(table.name)
    if not keys:
        return "true"
    key = ", ".join(expected_value(table.column(name)) for name in table.key)
    return f"({key}) NOT IN ({_tuples(keys)})"


def _tuples(rows: Iterable[tuple[object, ...]]) -> str:
    """As SQL spells a list of rows."""
    spelled = (", ".join(literal(value) if isinstance(value, str) else str(value) for value in row) for row in rows)
    return ", ".join(f"({row})" for row in spelled)


def closed_entries(contract: Contract, table: WarehouseTable, refused: Mapping[Key, int]) -> str:
    """On the warehouse: of the keys that a run refused, those of which `table` has a row of that run or of a later one."""
    keys = ", ".join(f"k{position}" for position in range(len(table.key)))
    same = " AND ".join(f"t.{quoted(name)} = r.k{position}" for position, name in enumerate(table.key))
    rows = _tuples((*key, run) for key, run in refused.items())
    return (
        f"SELECT {keys} FROM (VALUES {rows}) AS r ({keys}, run) WHERE EXISTS "
        f"(SELECT FROM {quoted(contract.warehouse_schema, table.name)} AS t WHERE {same} AND t._run >= r.run)"
    )


def relation(contract: Contract, table: WarehouseTable) -> str:
    """Where the warehouse holds the rows to compare: a fact's current versions are a view."""
    return quoted(contract.warehouse_schema, f"{table.name}_current" if table.kind is TableKind.FACT else table.name)


def actual_rows(contract: Contract, table: WarehouseTable) -> str:
    """On the warehouse: the rows that `table` holds; of a fact the current version of each business key.

    Without inferred members: one whose real row is in the source is missing, one without stands for a reference into the void.
    """
    return _ordered(
        keys=[quoted(name) for name in table.key],
        kinds=[table.column(name) for name in table.key],
        values=[f"{quoted(column.name)}::text" for column in table.columns],
        in_flight="false",
        origin=f"{relation(contract, table)} WHERE _deleted_at IS NULL AND _run > 0",
    )


def expected_dates(
    contract: Contract, calendar: WarehouseTable, horizon: int | None, quarantined: Mapping[str, Collection[Key]]
) -> str:
    """On the source: each date that facts refer to, as text, and whether only rows in flight do; those in quarantine don't.

    Whether a text is a date the caller has to see.
    """
    selects = [
        f"SELECT ({expected_value(column)})::text AS date, {_is_in_flight(BASE, horizon)} AS in_flight "
        f"FROM {quoted(contract.source_schema, table.source)} AS {BASE} WHERE {_is_none_of(table, quarantined)}"
        for table in contract.warehouse_tables
        for column in table.columns
        if column.references == calendar.name
    ]
    every = " UNION ALL ".join(selects)
    return f"SELECT date, bool_and(in_flight) AS in_flight FROM ({every}) AS every WHERE date IS NOT NULL GROUP BY date"


def wrong_dates(contract: Contract, calendar: WarehouseTable) -> str:
    """On the warehouse: of the dates $1 (text[]) and of those in the calendar, the ones whose row is missing or wrong.

    Texts, because asyncpg sends the last date that Python has, 9999-12-31, as infinity.
    """
    parts = [(column, column.origin.part) for column in calendar.columns if isinstance(column.origin, CalendarPart)]
    key = quoted("c", calendar.key[0])
    same = " AND ".join(f"{quoted('c', column.name)} = {_CALENDAR_SQL[part]}" for column, part in parts)
    name = quoted(contract.warehouse_schema, calendar.name)
    return (
        f"SELECT d::text AS date, {key} IS NULL AS is_missing "
        f"FROM (SELECT unnest($1::text[])::date AS d UNION SELECT {quoted(calendar.key[0])} FROM {name}) AS wanted "
        f"LEFT JOIN {name} AS c ON {key} = d WHERE ({same}) IS NOT TRUE ORDER BY d"
    )


def expected_value(column: Column) -> str:
    """A column's value as SQL on the source, whose base table is called BASE and whose partners are called by their names."""
    match column.origin:
        case FromSource(name, absent):
            return _present(quoted(BASE, name), column, absent)
        case FromLookup(lookup, name, absent):
            return _present(quoted(lookup, name), column, absent)
        case DateOf(name):
            return f"{quoted(BASE, name)}::date"
        case TimeOf(name):
            return f"{quoted(BASE, name)}::time"
        case ParsedDate(name):
            return quoted(BASE, name)  # a date renders as the text it was read from, or the text was no date
        case CurrencyNameOf(name):
            names = ", ".join(f"({literal(currency.code)}, {literal(currency.currency_name)})" for currency in Currency)
            return f"(SELECT v.name FROM (VALUES {names}) AS v (code, name) WHERE v.code = {quoted(BASE, name)})"
        case CalendarPart():
            raise AssertionError(f"'{column.name}' belongs to the calendar, which no source table holds")


def _ordered(*, keys: list[str], kinds: list[Column], values: list[str], in_flight: str, origin: str) -> str:
    named = ", ".join(f"{key} AS k{position}" for position, key in enumerate(keys))
    # "C" is the order of code points, in which Python compares texts, too.
    order = ", ".join(f'{key} COLLATE "C"' if column.type.is_text else key for key, column in zip(keys, kinds, strict=True))
    return f"SELECT {named}, ARRAY[{', '.join(values)}] AS values, ({in_flight}) AS in_flight FROM {origin} ORDER BY {order}"


def _present(value: str, column: Column, absent: str | None) -> str:
    if column.type.kind is Kind.NUMERIC:
        return f"{value}::{column.type.sql}"
    if absent is not None:
        return f"coalesce({value}, {literal(absent)})"
    return value
