"""The SQL of the proof: the expected star rows on the source, the actual ones on the warehouse, in one canonical text form.

Pure text. Each side of a table is one query of (key columns…, values: text[], waits: integer, version: text); the version
changes when a row or its partner is written again. `digests` hashes the rows by bucket, `rows` lists them in key order;
only the inner query differs between the two sides.
"""

from __future__ import annotations

from collections.abc import Collection

from iso4217 import Currency

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Calendar, Column, Fact, Lookup, RemodelledTable, SourceTable, WarehouseTable
from services.operator.proof.causes import Unseen
from services.operator.proof.comparison import ORPHAN, Key
from services.operator.proof.large_values import shortened, unless_too_large
from services.operator.proof.visible import visible_rows
from shared.equality import compared_text
from shared.sql import literal, quoted

BASE = "the row"  # partners are called by their tables' names; none is likely to be this one
_VALUES_AND_FLAGS = f"{shortened('values')} AS values, waits, version"
_OLDEST = 2**31 - 1  # PostgreSQL's age of a frozen row
BUCKETS = 4096  # a power of two: of ten million rows, 2,500 are looked at for one that differs
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


def expected_rows(contract: Contract, table: RemodelledTable, unseen: Unseen) -> str:
    """On the source: a query of the rows that `table` (its current versions, for a fact) should hold.

    `waits` is the place of the row's cause. ORPHAN in the version marks a partner that is gone.
    """
    gone = {lookup.table: _is_gone(contract, lookup) for lookup in table.lookups}
    versions = [_version(BASE, contract.source_table(table.source), unseen)]
    versions += [
        f"CASE WHEN {is_gone} THEN '{ORPHAN}' ELSE {_version(partner, contract.source_table(partner), unseen)} END"
        for partner, is_gone in gone.items()
    ]
    waits = _waits(table, unseen)
    if gone and unseen.orphans is not None:
        waits = f"coalesce({waits}, CASE WHEN {' OR '.join(gone.values())} THEN {unseen.orphans} END)"
    return _query(
        keys=[_as_key(expected_value(contract, table, table.column(name)), table.column(name)) for name in table.key],
        values=[
            unless_too_large(f"({expected_value(contract, table, column)})::text", contract, table, column, BASE)
            for column in table.columns
        ],
        waits=waits,
        version=f"ARRAY[{', '.join(versions)}]::text",
        origin=_origin(contract, table),
    )


def _origin(contract: Contract, table: RemodelledTable) -> str:
    """The base table, called BASE, and its partners, called by their names."""
    joins = []
    for lookup in table.lookups:
        partner = contract.source_table(lookup.table)
        key = partner.column(partner.key[0])
        joins.append(
            f" LEFT JOIN {quoted(contract.source_schema, partner.name)} AS {quoted(partner.name)}"
            f" ON {quoted(partner.name, key.name)}{'::text' if key.type.is_text else ''}"  # an enum is not compared with a text
            f" = {_source_value(contract, table.source, lookup.on, BASE)}"
        )
    return f"{quoted(contract.source_schema, table.source)} AS {quoted(BASE)}{''.join(joins)}"


def _version(alias: str, table: SourceTable, unseen: Unseen) -> str:
    """An expression that changes whenever a row of `table`, called `alias`, is written: its transaction id, or a hash.

    The hash has no digits, which would be read as transaction ids.
    """
    if table.name not in unseen.versionless:
        return f"{quoted(alias)}.xmin::text"
    row = ", ".join(quoted(alias, column.name) for column in table.columns)
    return f"translate(encode(sha256(convert_to(ROW({row})::text, 'UTF8')), 'hex'), '0123456789', 'GHIJKLMNOP')"


def _waits(table: RemodelledTable, unseen: Unseen) -> str:
    """What a row waits for, by the youngest of the transactions that wrote it and its partners.

    A negative age means that the counter has wrapped: the row is more than 2^31 transactions old.
    """
    beyond = "NULL" if unseen.beyond is None else str(unseen.beyond)
    if not unseen.steps:
        return f"{beyond}::integer"
    aliases = [BASE, *(lookup.table for lookup in table.lookups)]
    each = ", ".join(f"CASE WHEN age({quoted(alias)}.xmin) >= 0 THEN age({quoted(alias)}.xmin) END" for alias in aliases)
    older = ", ".join(f"age('{horizon % 2**32}'::xid)::bigint + 1" for horizon, _ in unseen.steps)
    causes = ", ".join([*("NULL" if cause is None else str(cause) for _, cause in unseen.steps), beyond])
    step = f"width_bucket(coalesce(least({each}), {_OLDEST})::bigint, (SELECT ARRAY[{older}])) + 1"
    return f"(ARRAY[{causes}]::integer[])[{step}]"


def _is_gone(contract: Contract, lookup: Lookup) -> str:
    """Whether a row refers to a partner that the source has not got."""
    partner = quoted(lookup.table, contract.source_table(lookup.table).key[0])
    return f"({partner} IS NULL AND {quoted(BASE, lookup.on)} IS NOT NULL)"


def _keys_given(table: WarehouseTable) -> str:
    """The keys that `by_column` gives, as rows; by column, because a statement that spells a million keys is refused."""
    types = (table.column(name).type for name in table.key)
    arrays = (kind.sql if kind.is_whole_number else "text" for kind in types)
    return f"unnest({', '.join(f'${place}::{kind}[]' for place, kind in enumerate(arrays, 1))})"


def by_column(table: WarehouseTable, keys: Collection[Key]) -> list[list[object]]:
    """Keys as parameters: one list for each column of the key."""
    return [[key[position] for key in keys] for position in range(len(table.key))]


def closed_entries(contract: Contract, table: WarehouseTable) -> str:
    """On the warehouse: of the keys that a run refused (`by_column`, then the runs), those of which `table` has a row since.

    Of that run, or of a later one.
    """
    names = _key_names(table)
    same = " AND ".join(
        f"{_as_key(quoted('t', name), table.column(name))} = r.{key}" for key, name in zip(names, table.key, strict=True)
    )
    given = _keys_given(table).removesuffix(")") + f", ${len(names) + 1}::bigint[])"
    return (
        f"SELECT {', '.join(names)} FROM {given} AS r ({', '.join(names)}, run) WHERE EXISTS "
        f"(SELECT FROM {quoted(contract.warehouse_schema, table.name)} AS t WHERE {same} AND t._run >= r.run)"
    )


def actual_rows(contract: Contract, table: WarehouseTable) -> str:
    """On the warehouse: a query of the rows that a reader of `table` sees; for a fact, the current version of each key."""
    return _query(
        keys=[_as_key(quoted("a", name), table.column(name)) for name in table.key],
        values=[f"{quoted('a', column.name)}::text" for column in table.columns],
        waits="NULL::integer",
        version="a._run::text",
        origin=f"{visible_rows(contract, table)} AS a",
    )


def expected_dates(contract: Contract, calendar: Calendar, fact: Fact, unseen: Unseen) -> str | None:
    """On the source: each date that rows of `fact` refer to, as text, and what all of them wait for; None if none may refer.

    Rows whose keys are given (`by_column`) don't count. The caller has to check whether a text is a date.
    """
    dates = [
        f"({expected_value(contract, fact, column)})::text" for column in fact.columns if column.references == calendar.name
    ]
    if not dates:
        return None
    key = ", ".join(_as_key(expected_value(contract, fact, fact.column(name)), fact.column(name)) for name in fact.key)
    return (
        f"SELECT date, CASE WHEN bool_and(waits IS NOT NULL) THEN min(waits) END AS waits "
        f"FROM (SELECT unnest(ARRAY[{', '.join(dates)}]) AS date, {_waits(fact, unseen)} AS waits "
        f"FROM {_origin(contract, fact)} "
        f"WHERE ({key}) NOT IN (SELECT * FROM {_keys_given(fact)})) AS every WHERE date IS NOT NULL GROUP BY date"
    )


def rows_with_date(contract: Contract, table: Fact, column: Column) -> str:
    """On the source: for each of the dates $1 (text[]) the key of one row of `table` whose `column` is that date."""
    keys = ", ".join(_as_key(expected_value(contract, table, table.column(name)), table.column(name)) for name in table.key)
    date = f"({expected_value(contract, table, column)})::text"
    return f"SELECT DISTINCT ON ({date}) {keys} FROM {_origin(contract, table)} WHERE {date} = ANY ($1::text[])"


def wrong_dates(contract: Contract, calendar: Calendar) -> str:
    """On the warehouse: those of the dates $1 (text[]) and of the calendar whose row is missing, wrong or duplicated.

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


def expected_value(contract: Contract, table: RemodelledTable, column: Column) -> str:
    """A column's value as SQL on the source, whose base table is called BASE and whose partners are called by their names."""
    match column.origin:
        case FromSource(name, absent):
            return _present(_source_value(contract, table.source, name, BASE), column, absent)
        case FromLookup(lookup, name, absent):
            return _present(_source_value(contract, lookup, name, lookup), column, absent)
        case DateOf(name, absent):
            return f"{_moment(name, absent)}::date"
        case TimeOf(name, absent):
            return f"{_moment(name, absent)}::time"
        case ParsedDate(name):
            return quoted(BASE, name)  # a date renders as the text it was read from, or the text was no date
        case CurrencyNameOf(name):
            names = ", ".join(f"({literal(currency.code)}, {literal(currency.currency_name)})" for currency in Currency)
            return (
                f'(SELECT v.name FROM (VALUES {names}) AS v (code, name) WHERE v.code = {quoted(BASE, name)}::text COLLATE "C")'
            )
        case CalendarPart():
            raise AssertionError(f"'{column.name}' belongs to the calendar, which no source table holds")


def _source_value(contract: Contract, table: str, name: str, alias: str) -> str:
    """A column of a source table; a text in its compared form."""
    value = quoted(alias, name)
    kind = contract.source_table(table).column(name).type
    return f"({compared_text(contract, table, name, value)})" if kind.is_text else value


def _moment(name: str, absent: str | None) -> str:
    return quoted(BASE, name) if absent is None else f"coalesce({quoted(BASE, name)}, {quoted(BASE, absent)})"


def _query(*, keys: list[str], values: list[str], waits: str, version: str, origin: str) -> str:
    named = ", ".join(f"{key} AS k{position}" for position, key in enumerate(keys))
    return f"SELECT {named}, ARRAY[{', '.join(values)}] AS values, {waits} AS waits, {version} AS version FROM {origin}"


def digests(query: str, table: WarehouseTable) -> str:
    """The number of rows in each bucket below $1 and the sum of their hashes, which does not depend on their order.

    SHA-256 over UTF-8, because it is the same in every version and encoding of PostgreSQL, and in FIPS mode, where MD5 is not.
    """
    digest = "('x' || left(encode(sha256(convert_to(values::text, 'UTF8')), 'hex'), 16))::bit(64)::bigint"
    return (
        f"SELECT bucket, count(*) AS row_count, sum({digest})::text AS digest "
        f"FROM (SELECT values, {_bucket(table)} AS bucket FROM ({query}) AS q) AS hashed WHERE bucket < $1 GROUP BY bucket"
    )


def rows(query: str, table: WarehouseTable) -> str:
    """The rows of the buckets $1 (integer[]), in the order of the key."""
    listed = f"SELECT {', '.join(_key_names(table))}, {_VALUES_AND_FLAGS} FROM ({query}) AS q"
    return f"{listed} WHERE {_bucket(table)} = ANY ($1::integer[]) ORDER BY {_order(table)}"


def rows_of(query: str, table: WarehouseTable) -> str:
    """The rows of the keys that are given (`by_column`), in the order of the key."""
    names = ", ".join(_key_names(table))
    listed = f"SELECT {names}, {_VALUES_AND_FLAGS} FROM ({query}) AS q"
    return f"{listed} WHERE ({names}) IN (SELECT * FROM {_keys_given(table)}) ORDER BY {_order(table)}"


def _bucket(table: WarehouseTable) -> str:
    """Which of the buckets a row is in, by its key alone."""
    names = _key_names(table)
    if len(names) == 1 and table.column(table.key[0]).type.is_whole_number:
        # Every part of the number counts: keys may all be multiples of a power of two, and would share a bucket.
        parts = " # ".join(f"({names[0]}::bigint >> {shift})" for shift in (0, 12, 24, 36, 48))
        return f"(({parts}) & {BUCKETS - 1})::integer"
    key = f"ARRAY[{', '.join(f'{name}::text' for name in names)}]::text"
    return f"(('x' || left(encode(sha256(convert_to({key}, 'UTF8')), 'hex'), 8))::bit(32)::bigint & {BUCKETS - 1})::integer"


def _order(table: WarehouseTable) -> str:
    """By key. The bytes of UTF-8 are in the order of code points, in which Python compares texts; other encodings' are not."""
    kinds = [table.column(name) for name in table.key]
    return ", ".join(
        name if column.type.is_whole_number else f"convert_to({name}, 'UTF8')"
        for name, column in zip(_key_names(table), kinds, strict=True)
    )


def _as_key(value: str, column: Column) -> str:
    """Whole numbers as they are, anything else as text, as in key lists and quarantine: no padding, no enum."""
    return value if column.type.is_whole_number else f"({value})::text"


def _key_names(table: WarehouseTable) -> list[str]:
    return [f"k{position}" for position in range(len(table.key))]


def _present(value: str, column: Column, absent: str | None) -> str:
    if column.type.kind is Kind.NUMERIC:  # a value of an unbounded column may not fit: its row is in quarantine
        limit, scale = 10 ** (column.type.precision - column.type.scale), column.type.scale
        fits = f"abs({value}) < {limit} AND {value} = round({value}, {scale})"
        return f"CASE WHEN {fits} THEN {value}::{column.type.sql} ELSE {value} END"
    if absent is not None:
        return f"coalesce({value}::text, {literal(absent)})"
    return value
