"""The SQL of the proof: the expected star rows on the source, the actual ones on the warehouse, in one canonical text form.

Pure text. Either side of a table is one query of (key columns…, values: text[], in_flight: boolean, version: text); a row that
was written again, or whose partner was, has another version. `digests` hashes its rows by bucket, `rows` lists them in the
order of the key: the statements of the two sides differ in nothing but that query.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from iso4217 import Currency

from contracts.column_types import Kind
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Column, Contract, Lookup, SourceTable, TableKind, WarehouseTable
from services.operator.proof.comparison import ORPHAN, Key
from services.operator.proof.large_values import shortened, unless_too_large
from shared.equality import compared_text
from shared.sql import literal, quoted

BASE = "the row"  # partners are called by their tables' names, none of which is likely to be this
_VALUES_AND_FLAGS = f"{shortened('values')} AS values, in_flight, version"
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


@dataclass(frozen=True, slots=True)
class Unseen:
    """What of the source the warehouse can't have yet; None of it before the first load.

    Rows that were written, or whose partner was, by a transaction that had not ended at `horizon`. If `orphans`, those whose
    partner is gone, too: a delete leaves no trace, they are read again when keys are compared. And every row of the tables in
    `redefined`, which may have changed without a transaction of its own: the next run reads them in full. So does every run
    those that are `versionless`: their rows' transaction ids may not be read.
    """

    horizon: int | None
    orphans: bool = False
    redefined: frozenset[str] = frozenset()
    versionless: frozenset[str] = frozenset()

    def holds(self, alias: str, table: str) -> str:
        """Whether a row of source table `table`, called `alias`, is unseen."""
        if self.horizon is None:
            return "false"
        if table in self.redefined or table in self.versionless:
            return "true"
        return f"coalesce(age({quoted(alias)}.xmin) BETWEEN 0 AND age('{self.horizon % 2**32}'::xid), false)"

    def version(self, alias: str, table: SourceTable) -> str:
        """What changes whenever a row of `table`, called `alias`, is written: its transaction id, or a hash without digits.

        Digits would be read as transaction ids.
        """
        if table.name not in self.versionless:
            return f"{quoted(alias)}.xmin::text"
        row = ", ".join(quoted(alias, column.name) for column in table.columns)
        return f"translate(encode(sha256(convert_to(ROW({row})::text, 'UTF8')), 'hex'), '0123456789', 'GHIJKLMNOP')"


def expected_rows(contract: Contract, table: WarehouseTable, unseen: Unseen) -> str:
    """On the source: a query of the rows that `table` (its current versions, for a fact) should hold.

    In flight is what is unseen. Where a partner is gone, ORPHAN stands in the version.
    """
    joins = "".join(
        f" LEFT JOIN {quoted(contract.source_schema, lookup.table)} AS {quoted(lookup.table)}"
        f" ON {quoted(lookup.table, contract.source_table(lookup.table).key[0])}"
        f" = {_source_value(contract, table.source, lookup.on, BASE)}"
        for lookup in table.lookups
    )
    gone = {lookup.table: _is_gone(contract, lookup) for lookup in table.lookups}
    in_flight = [unseen.holds(BASE, table.source), *(unseen.holds(partner, partner) for partner in gone)]
    in_flight += gone.values() if unseen.orphans else ()
    versions = [unseen.version(BASE, contract.source_table(table.source))]
    versions += [
        f"CASE WHEN {is_gone} THEN '{ORPHAN}' ELSE {unseen.version(partner, contract.source_table(partner))} END"
        for partner, is_gone in gone.items()
    ]
    return _query(
        keys=[_as_key(expected_value(contract, table, table.column(name)), table.column(name)) for name in table.key],
        values=[
            unless_too_large(f"({expected_value(contract, table, column)})::text", contract, table, column, BASE)
            for column in table.columns
        ],
        in_flight=" OR ".join(in_flight),
        version=f"ARRAY[{', '.join(versions)}]::text",
        origin=f"{quoted(contract.source_schema, table.source)} AS {quoted(BASE)}{joins}",
    )


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


def relation(contract: Contract, table: WarehouseTable) -> str:
    """Where the warehouse holds the rows to compare: a fact's current versions are a view."""
    return quoted(contract.warehouse_schema, f"{table.name}_current" if table.kind is TableKind.FACT else table.name)


def actual_rows(contract: Contract, table: WarehouseTable, compared: int | None, newest: int) -> str:
    """On the warehouse: a query of the rows that `table` holds; of a fact the current version of each business key.

    Without inferred members: one whose real row is in the source is missing, one without stands for a reference into the void.
    In flight, if the source lacks it, is a row that run `compared`, whose keys were compared last, or a later one has seen; no
    run has a number above `newest`.
    """
    return _query(
        keys=[_as_key(quoted(name), table.column(name)) for name in table.key],
        values=[f"{quoted(column.name)}::text" for column in table.columns],
        in_flight="false" if compared is None else f"_run BETWEEN {compared} AND {newest}",
        version="_run::text",
        origin=f"{relation(contract, table)} WHERE _deleted_at IS NULL AND _run > 0",
    )


def expected_dates(contract: Contract, calendar: WarehouseTable, fact: WarehouseTable, unseen: Unseen) -> str | None:
    """On the source: each date that rows of `fact` refer to, as text, and whether only rows in flight do; None if none may.

    Rows whose keys are given (`by_column`) don't count. Whether a text is a date the caller has to see.
    """
    dates = [
        f"({expected_value(contract, fact, column)})::text" for column in fact.columns if column.references == calendar.name
    ]
    if not dates:
        return None
    key = ", ".join(_as_key(expected_value(contract, fact, fact.column(name)), fact.column(name)) for name in fact.key)
    return (
        f"SELECT date, bool_and(in_flight) AS in_flight FROM (SELECT unnest(ARRAY[{', '.join(dates)}]) AS date, "
        f"{unseen.holds(BASE, fact.source)} AS in_flight FROM {quoted(contract.source_schema, fact.source)} AS {quoted(BASE)} "
        f"WHERE ({key}) NOT IN (SELECT * FROM {_keys_given(fact)})) AS every WHERE date IS NOT NULL GROUP BY date"
    )


def rows_with_date(contract: Contract, table: WarehouseTable, column: Column) -> str:
    """On the source: for each of the dates $1 (text[]) the key of one row of `table` whose `column` is that date."""
    keys = ", ".join(_as_key(expected_value(contract, table, table.column(name)), table.column(name)) for name in table.key)
    date = f"({expected_value(contract, table, column)})::text"
    origin = f"{quoted(contract.source_schema, table.source)} AS {quoted(BASE)}"
    return f"SELECT DISTINCT ON ({date}) {keys} FROM {origin} WHERE {date} = ANY ($1::text[])"


def wrong_dates(contract: Contract, calendar: WarehouseTable) -> str:
    """On the warehouse: of the dates $1 (text[]) and of those in the calendar, the ones whose row is missing or wrong.

    Texts, because asyncpg sends the last date that Python has, 9999-12-31, as infinity.
    """
    parts = [(column, column.origin.part) for column in calendar.columns if isinstance(column.origin, CalendarPart)]
    key = quoted("c", calendar.key[0])
    same = " AND ".join(f"{quoted('c', column.name)} = {_CALENDAR_SQL[part].format(d='wanted.d')}" for column, part in parts)
    name = quoted(contract.warehouse_schema, calendar.name)
    return (
        f"SELECT wanted.d::text AS date, {key} IS NULL AS is_missing "
        f"FROM (SELECT unnest($1::text[])::date AS d UNION SELECT {quoted(calendar.key[0])} FROM {name}) AS wanted "
        f"LEFT JOIN {name} AS c ON {key} = wanted.d WHERE ({same}) IS NOT TRUE ORDER BY wanted.d"
    )


def expected_value(contract: Contract, table: WarehouseTable, column: Column) -> str:
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
    """A column of a source table; a text in the form in which it is compared."""
    value = quoted(alias, name)
    kind = contract.source_table(table).column(name).type
    return f"({compared_text(contract, table, name, value)})" if kind.is_text else value


def _moment(name: str, absent: str | None) -> str:
    return quoted(BASE, name) if absent is None else f"coalesce({quoted(BASE, name)}, {quoted(BASE, absent)})"


def _query(*, keys: list[str], values: list[str], in_flight: str, version: str, origin: str) -> str:
    named = ", ".join(f"{key} AS k{position}" for position, key in enumerate(keys))
    flags = f"({in_flight}) AS in_flight, {version} AS version"
    return f"SELECT {named}, ARRAY[{', '.join(values)}] AS values, {flags} FROM {origin}"


def digests(query: str, table: WarehouseTable) -> str:
    """How many rows there are of each bucket below $1, and the sum of their hashes: equal rows have equal sums, in any order.

    MD5 over UTF-8, because it is the same in every version and encoding of PostgreSQL; it stands against accidents.
    """
    digest = "('x' || left(md5(convert_to(values::text, 'UTF8')), 16))::bit(64)::bigint"
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
    texts = ", ".join(f"{name}::text" for name in names)
    return f"(('x' || left(md5(convert_to(ARRAY[{texts}]::text, 'UTF8')), 8))::bit(32)::bigint & {BUCKETS - 1})::integer"


def _order(table: WarehouseTable) -> str:
    """By key. The bytes of UTF-8 are in the order of code points, in which Python compares texts; other encodings' are not."""
    kinds = [table.column(name) for name in table.key]
    return ", ".join(
        name if column.type.is_whole_number else f"convert_to({name}, 'UTF8')"
        for name, column in zip(_key_names(table), kinds, strict=True)
    )


def _as_key(value: str, column: Column) -> str:
    """All but whole numbers as a text, which is what key lists and quarantine have of it: no blanks padded, no enum."""
    return value if column.type.is_whole_number else f"({value})::text"


def _key_names(table: WarehouseTable) -> list[str]:
    return [f"k{position}" for position in range(len(table.key))]


def _present(value: str, column: Column, absent: str | None) -> str:
    if column.type.kind is Kind.NUMERIC:  # of a column without bounds, a value may not fit: its row is in quarantine
        limit, scale = 10 ** (column.type.precision - column.type.scale), column.type.scale
        fits = f"abs({value}) < {limit} AND {value} = round({value}, {scale})"
        return f"CASE WHEN {fits} THEN {value}::{column.type.sql} ELSE {value} END"
    if absent is not None:
        return f"coalesce({value}::text, {literal(absent)})"
    return value
