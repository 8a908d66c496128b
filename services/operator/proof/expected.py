"""The rows that the warehouse should hold, computed from the source by the contract. Pure SQL text, for the source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from iso4217 import Currency

from contracts.column_types import Kind
from contracts.contract import Contract
from contracts.expression_parts import columns_computed
from contracts.expressions import ReadColumn
from contracts.origins import CalendarPart, Computed, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Calendar, Column, Lookup, RemodelledTable, SourceTable
from services.operator.proof.canonical import ORPHAN, canonical_query
from services.operator.proof.row_comparison import Cause
from services.operator.star_keys import key_arrays, key_value
from shared.codecs import codec_of
from shared.codecs.codec import VALUE_BYTES_MAXIMUM
from shared.equality import source_value
from shared.expressions.in_sql import is_accepted, rendered, stored, unreadable
from shared.source_keys import rows_of
from shared.sql import literal, quoted

BASE = "the row"
# As jsonb, which finds a key by a binary search; a query for the name would run once for each row that is joined.
_CURRENCY_NAMES = f"{literal(json.dumps({one.code: one.currency_name for one in Currency}, ensure_ascii=False))}::jsonb"
_OLDEST = 2**31 - 1  # PostgreSQL's age of a frozen row


@dataclass(frozen=True, slots=True)
class CausesByAge:
    """What rows of a table wait for, by the youngest transaction that wrote them; None for rows that should be loaded."""

    steps: tuple[tuple[int, Cause | None], ...] = ()  # of rows not older than a horizon, youngest horizon first
    beyond: Cause | None = None  # of all older rows
    orphans: Cause | None = None  # of rows whose partner is gone
    versionless: frozenset[str] = frozenset()  # source tables whose transaction ids the role may not read
    # Of a data set, whose rows have runs in place of transaction ids: what those of each run that is not loaded wait for, and
    # those of runs above the last one that was known when the star was looked at.
    by_run: Mapping[int, Cause] = field(default_factory=dict)
    above: tuple[int, Cause] | None = None

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Each cause once: SQL returns its place here. After the next run come the batches that are missing longest."""
        younger = [cause for _, cause in self.steps]
        of_runs = (*self.by_run.values(), *(self.above[1:] if self.above else ()))
        ordered = (*younger[:1], self.beyond, *reversed(younger[1:]), self.orphans, *of_runs)
        return tuple(dict.fromkeys(cause for cause in ordered if cause is not None))

    @property
    def places(self) -> dict[Cause | None, str]:
        """The place of each cause, as SQL."""
        return {None: "NULL"} | {cause: str(place) for place, cause in enumerate(self.causes)}


def run_column(table: SourceTable) -> str:
    """Of a data set, the column with the run that announced a row (delivered.py)."""
    return table.unlike_its_columns("_run")


def sources_of(table: RemodelledTable) -> frozenset[str]:
    """The source tables that rows of `table` are built from."""
    return frozenset((table.source, *(lookup.table for lookup in table.lookups)))


def expected_rows(contract: Contract, table: RemodelledTable, by_age: CausesByAge) -> str:
    """The rows that `table` should hold; for a fact, its current versions."""
    stamps = [_stamp(BASE, contract.source_table(table.source), by_age)]
    for lookup in table.lookups:
        stamp = _stamp(_alias(table, lookup.name), contract.source_table(lookup.table), by_age)
        stamps.append(f"CASE WHEN {_is_gone(contract, table, lookup)} THEN '{ORPHAN}' ELSE {stamp} END")
    cause = _cause(contract, table, by_age)
    if table.lookups and by_age.orphans is not None:
        is_gone = " OR ".join(_is_gone(contract, table, lookup) for lookup in table.lookups)
        cause = f"coalesce({cause}, CASE WHEN {is_gone} THEN {by_age.places[by_age.orphans]} END)"
    return canonical_query(
        keys=_keys(contract, table),
        values=[_readable(contract, table, _text(contract, table, column)) for column in table.columns],
        cause=cause,
        stamp=f"ARRAY[{', '.join(stamps)}]::text",
        relation=_accepted_rows(contract, table),
    )


def expected_dates(contract: Contract, calendar: Calendar, table: RemodelledTable, by_age: CausesByAge) -> str | None:
    """Each date that rows of `table` refer to, as text, and what all of them wait for; None if no column refers to dates.

    Rows whose keys are given (`by_column`) don't count. The caller has to check whether a text is a date.
    """
    dates = [
        f"({expected_value(contract, table, column)})::text" for column in table.columns if column.references == calendar.name
    ]
    if not dates:
        return None
    return (
        f"SELECT date, CASE WHEN bool_and(cause IS NOT NULL) THEN min(cause) END AS cause "
        f"FROM (SELECT unnest(ARRAY[{', '.join(dates)}]) AS date, {_cause(contract, table, by_age)} AS cause "
        f"FROM {_accepted_rows(contract, table)} AND ({', '.join(_keys(contract, table))}) "
        f"NOT IN (SELECT * FROM unnest({', '.join(key_arrays(table))}))) AS every WHERE date IS NOT NULL GROUP BY date"
    )


def rows_with_date(contract: Contract, table: RemodelledTable, column: Column) -> str:
    """For each of the dates $1 (text[]) the key of one row of `table` whose `column` is that date."""
    date = f"({expected_value(contract, table, column)})::text"
    keys = ", ".join(_keys(contract, table))
    return f"SELECT DISTINCT ON ({date}) {keys} FROM {_accepted_rows(contract, table)} AND {date} = ANY ($1::text[])"


def expected_value(contract: Contract, table: RemodelledTable, column: Column) -> str:
    """A column's value as SQL, over `_joined_rows`."""
    return _or_unknown(contract, column, _value(contract, table, column))


def _or_unknown(contract: Contract, column: Column, value: str) -> str:
    """A value, or where it is NULL the key that its dimension has for that. A date may still be any text."""
    if (unknown := contract.unknown_of(column)) is None:
        return value
    kind = "text" if isinstance(column.origin, ParsedDate) else column.type.unbounded_sql
    return f"coalesce(({value})::{kind}, {literal(unknown)}::{kind})"


def _value(contract: Contract, table: RemodelledTable, column: Column) -> str:
    if isinstance(origin := column.origin, CalendarPart):
        raise TypeError(f"'{column.name}' belongs to the calendar, which no source table holds")
    if isinstance(origin, Computed):
        value, obstacle = _computed(contract, table, column, origin)
        return f"CASE WHEN {obstacle} THEN NULL ELSE {value} END"
    alias = _alias(table, origin.lookup)
    value = quoted(alias, origin.column)
    match origin:
        case FromSource(absent=absent) | FromLookup(absent=absent):
            copied = source_value(contract, table.table_of(origin.lookup), origin.column, alias)
            return _present(copied, column, absent)
        case DateOf(absent=absent):
            return f"{_moment(alias, origin.column, absent)}::date"
        case TimeOf(absent=absent):
            return f"{_moment(alias, origin.column, absent)}::time"
        case ParsedDate():
            return value  # a date renders as the text it was read from, or the text was not a date
        case CurrencyNameOf():
            return f"({_CURRENCY_NAMES} ->> {value}::text)"


def _keys(contract: Contract, table: RemodelledTable) -> list[str]:
    """The columns of the key, in the form of a key."""
    columns = (table.column(name) for name in table.key)
    return [key_value(expected_value(contract, table, column), column) for column in columns]


def _text(contract: Contract, table: RemodelledTable, column: Column) -> str:
    """A column's value as text; for one too large to travel, or that its type cannot hold, a text that no row has."""
    if isinstance(column.origin, Computed):
        value, obstacle = _computed(contract, table, column, column.origin)
        return f"CASE WHEN {obstacle} THEN 'does not fit' ELSE ({_or_unknown(contract, column, value)})::text END"
    text = f"({expected_value(contract, table, column)})::text"
    if not isinstance(column.origin, FromSource | FromLookup | ParsedDate) or column.name in table.key:
        return text
    name, lookup = column.origin.column, column.origin.lookup
    codec = codec_of(contract.source_table(table.table_of(lookup)).column(name).type)
    value = quoted(_alias(table, lookup), name)
    if not codec.is_wide:
        return text
    return f"CASE WHEN {codec.byte_count(value)} > {VALUE_BYTES_MAXIMUM} THEN 'too large' ELSE {text} END"


def _readable(contract: Contract, table: RemodelledTable, text: str) -> str:
    """A column's text; of a data set's row with a value that could not be read, a text that no row has."""
    source = contract.source_table(table.source)
    if source.dataset is None:
        return text
    return f"CASE WHEN {quoted(BASE, source.defect)} IS NULL THEN {text} ELSE 'could not be read' END"


def _computed(contract: Contract, table: RemodelledTable, column: Column, origin: Computed) -> tuple[str, str]:
    """A computed value in the column's type, and whether its row is in quarantine because of it: then the value may raise."""

    def read(one: ReadColumn) -> str:
        return source_value(contract, table.table_of(one.lookup), one.name, _alias(table, one.lookup))

    value, fits = stored(rendered(origin.expression, read), column.type)
    return value, f"CASE WHEN {unreadable(origin.expression, read)} THEN true ELSE ({fits}) IS FALSE END"


def _present(value: str, column: Column, absent: str | None) -> str:
    """A copied value in the column's type, or `absent` where it is NULL."""
    if column.type.kind is Kind.NUMERIC:  # a value of an unbounded column may not fit: its row is in quarantine
        limit, scale = 10 ** (column.type.precision - column.type.scale), column.type.scale
        fits = f"abs({value}) < {limit} AND {value} = round({value}, {scale})"
        return f"CASE WHEN {fits} THEN {value}::{column.type.sql} ELSE {value} END"
    return value if absent is None else f"coalesce({value}::text, {literal(absent)})"


def _moment(alias: str, name: str, absent: str | None) -> str:
    return quoted(alias, name) if absent is None else f"coalesce({quoted(alias, name)}, {quoted(alias, absent)})"


def _alias(table: RemodelledTable, lookup: str | None) -> str:
    """How statements call the base table, or the partner of a lookup."""
    return BASE if lookup is None else f"partner {list(table.paths).index(lookup)}"


def _accepted_rows(contract: Contract, table: RemodelledTable) -> str:
    """The joined rows and, as WHERE, the filter of the table."""
    accepted, source = is_accepted(contract, table, BASE), contract.source_table(table.source)
    if source.dataset is not None and table.where is not None:  # of a value that could not be read, the filter can't tell
        found = f"'; ' || {quoted(BASE, source.defect)}"
        unread = " OR ".join(
            f"position({literal(f'; {one.name} is ')} IN {found}) > 0" for one in sorted(columns_computed(table.where), key=str)
        )
        accepted = f"CASE WHEN {unread} THEN true ELSE {accepted} END" if unread else accepted
    return f"{_joined_rows(contract, table)} WHERE {accepted}"


def _joined_rows(contract: Contract, table: RemodelledTable) -> str:
    """The base table and the partners of all lookups, each joined to the row that it starts from."""
    joins = []
    for name in table.paths:
        lookup, alias = table.lookup(name), _alias(table, name)
        start, partner = table.table_of(lookup.via), contract.source_table(lookup.table)
        equal = []
        for key, on in zip(map(partner.column, partner.key), lookup.on, strict=True):
            spelled = "::text" if key.type.is_text else ""  # an enum is not compared with a text
            reference = source_value(contract, start, on, _alias(table, lookup.via))
            equal.append(f"{quoted(alias, key.name)}{spelled} = {reference}")
        joins.append(f" LEFT JOIN {rows_of(contract, partner)} AS {quoted(alias)} ON {' AND '.join(equal)}")
    base = rows_of(contract, contract.source_table(table.source))
    return f"{base} AS {quoted(BASE)}{''.join(joins)}"


def _is_gone(contract: Contract, table: RemodelledTable, lookup: Lookup) -> str:
    """Whether a row refers to a partner that the source lacks."""
    start, partner = _alias(table, lookup.via), _alias(table, lookup.name)
    refers = [f"{quoted(start, name)} IS NOT NULL" for name in lookup.on]
    return f"({' AND '.join([f'{quoted(partner, contract.source_table(lookup.table).key[0])} IS NULL', *refers])})"


def _stamp(alias: str, table: SourceTable, by_age: CausesByAge) -> str:
    """An expression that changes whenever a row of `table`, called `alias`, is written: its transaction id, or a hash.

    The hash has no digits, which would be read as transaction ids. The run of a data set's row is compared as one.
    """
    if table.dataset is not None:
        return f"{quoted(alias, run_column(table))}::text"
    if table.name not in by_age.versionless:
        return f"{quoted(alias)}.xmin::text"
    row = ", ".join(quoted(alias, column.name) for column in table.columns)
    return f"translate(encode(sha256(convert_to(ROW({row})::text, 'UTF8')), 'hex'), '0123456789', 'GHIJKLMNOP')"


def _cause(contract: Contract, table: RemodelledTable, by_age: CausesByAge) -> str:
    """The place of a row's cause, by the youngest of the transactions that wrote it and its partners.

    A negative age means that the counter has wrapped: the row is more than 2^31 transactions old.
    """
    places = by_age.places
    if (source := contract.source_table(table.source)).dataset is not None:
        run = quoted(BASE, run_column(source))
        cases = [f"WHEN {run} = {one} THEN {places[cause]}" for one, cause in by_age.by_run.items()]
        cases += [f"WHEN {run} > {by_age.above[0]} THEN {places[by_age.above[1]]}"] if by_age.above else []
        return f"(CASE {' '.join(cases)} END)::integer" if cases else "NULL::integer"
    if not by_age.steps:
        return f"{places[by_age.beyond]}::integer"
    aliases = [_alias(table, lookup) for lookup in (None, *table.paths)]
    each = ", ".join(f"CASE WHEN age({quoted(alias)}.xmin) >= 0 THEN age({quoted(alias)}.xmin) END" for alias in aliases)
    older = ", ".join(f"age('{horizon % 2**32}'::xid)::bigint + 1" for horizon, _ in by_age.steps)
    causes = ", ".join([*(places[cause] for _, cause in by_age.steps), places[by_age.beyond]])
    step = f"width_bucket(coalesce(least({each}), {_OLDEST})::bigint, (SELECT ARRAY[{older}])) + 1"
    return f"(ARRAY[{causes}]::integer[])[{step}]"
