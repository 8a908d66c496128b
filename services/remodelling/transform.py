"""From source rows to star rows, driven by the contract. Pure: data frames in, data frames out.

Values keep the form of shared.codecs throughout: whole numbers and texts. A row that the warehouse can't hold is left
out, with its reasons; the others go through.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import assert_never

import pandas as pd
from iso4217 import Currency

from contracts.column_types import DATE, MICROSECONDS_PER_DAY, ColumnType
from contracts.contract import Contract
from contracts.expression_parts import columns_computed, columns_read, misspelled
from contracts.expressions import Expression, ReadColumn, Type
from contracts.origins import CalendarPart, Computed, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Column, Lookup, RemodelledTable, SourceTable
from shared.codecs import codec_of
from shared.expressions.in_python import computed, stored, unreadable
from shared.parquet import empty_frame
from shared.source_keys import Key, keys_of

EPOCH = dt.date(1970, 1, 1)
DATE_TEXT = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_SPELLED = {Type.WHOLE: "a whole number", Type.DECIMAL: "a number", Type.DATE: "a date (YYYY-MM-DD)"}
CURRENCY_NAMES: Mapping[str, str] = {currency.code: currency.currency_name for currency in Currency}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why some rows of a base table can't become star rows."""

    column: str  # of the star table; empty for the whole row
    reason: str  # what the column's value is, as the rest of a sentence
    rows: pd.Series  # a boolean mask over the base table's frame


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The rows of one batch, by source table."""

    base: Mapping[str, pd.DataFrame]  # rows to be remodelled
    partners: Mapping[str, pd.DataFrame]  # rows that are only joined
    # What is wrong with records whose key can't be read (services/ingestion/spool.py).
    unreadable_records: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remodelled:
    """The star rows of one warehouse table, and why others of its base table are missing."""

    table: RemodelledTable
    rows: pd.DataFrame
    refusals: list[Refusal] = field(default_factory=list)
    rejected: list[Key] = field(default_factory=list)  # of the rows that the filter leaves out, as `gone` names rows


def remodel(contract: Contract, rows: SourceRows) -> Iterator[Remodelled]:
    """One result for each warehouse table whose base has rows in the batch."""
    for table in contract.remodelled_tables:
        base = rows.base.get(table.source)
        if base is not None and len(base):
            yield _remodel_table(contract, table, base, rows)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The base rows, or the partners of a lookup: one for each base row, NULL throughout where there is none."""

    lookup: str | None  # None: the base rows
    table: SourceTable
    frame: pd.DataFrame
    # Of a partner, a reason for each base row, or NULL; None where no row has one, as usually:
    unread: pd.Series | None  # it is not known, because a reference to it could not travel
    gone: pd.Series | None  # it, or one on the way to it, does not exist, although another row refers to it


def _remodel_table(contract: Contract, table: RemodelledTable, base: pd.DataFrame, rows: SourceRows) -> Remodelled:
    source = contract.source_table(table.source)
    is_rejected, unread = _filtered(table, source, base)
    rejected = list[Key]()
    if is_rejected.any():
        rejected, base = keys_of(source, base[is_rejected]), base[~is_rejected]
    joined = _join(contract, table, base, rows.partners)
    whole_rows = _refusals("", base[source.defect])
    refusals = whole_rows + [Refusal("", reason, of[base.index]) for reason, of in unread if of[base.index].any()]
    columns: dict[str, pd.Series] = {}
    for column in table.columns:
        columns[column.name], found = _column(column, joined, contract.unknown_of(column))
        if not column.nullable and columns[column.name].hasnans:
            is_null = columns[column.name].isna()
            is_null &= ~_any(base, [*whole_rows, *found])
            if (gone := _gone(column, joined)) is not None:
                found += _refusals(column.name, gone.where(is_null))
                is_null &= gone.isna()
            found.append(Refusal(column.name, "is NULL", is_null))
        refusals += [refusal for refusal in found if refusal.rows.any()]
    star = pd.DataFrame(columns, index=base.index)
    rows_kept = star[~_any(base, refusals)] if refusals else star
    return Remodelled(table, rows_kept.reset_index(drop=True), refusals, rejected)


def _filtered(table: RemodelledTable, source: SourceTable, base: pd.DataFrame) -> tuple[pd.Series, list[tuple[str, pd.Series]]]:
    """Which rows the filter of a table leaves out, and why it can't tell of others.

    A row of which it can't tell is refused, as a whole where a value could not travel. A value that could not travel is not
    NULL, and of some types nothing else is asked.
    """
    none = pd.Series(data=False, index=base.index)
    if table.where is None:
        return none, []
    read, unread, is_unknown = {}, list[tuple[str, pd.Series]](), none.copy()
    for column in columns_read(table.where):
        values, is_withheld = base[column.name], _is_withheld(source, base, column.name)
        if column in columns_computed(table.where):
            is_unknown |= is_withheld
        read[column] = values.mask(is_withheld, "" if column.column_type.travels_as_text else 0)
    for reason, mask in _unreadable(table.where, read, base.index):
        unread.append((f"has a filter that {reason}", mask))
        is_unknown |= mask
    accepts = pd.Series([value is True for value in computed(table.where, read, len(base))], index=base.index, dtype=bool)
    return ~accepts & ~is_unknown, unread


def _gone(column: Column, joined: Mapping[str | None, _Rows]) -> pd.Series | None:
    """Why a row that a column is read from is missing; NULL where none is."""
    lookups = column.origin.lookups if isinstance(column.origin, Computed) else (column.origin.lookup,)
    return reduce(_first, [joined[lookup].gone for lookup in lookups or (None,)])


def _first(reasons: pd.Series | None, others: pd.Series | None) -> pd.Series | None:
    """The reasons, and the others for rows without one."""
    return others if reasons is None else reasons if others is None else reasons.fillna(others)


def _refusals(column: str, reasons: pd.Series | None) -> list[Refusal]:
    """A refusal for each different reason."""
    if reasons is None:
        return []
    return [Refusal(column, str(one), (reasons == one).fillna(value=False).astype(bool)) for one in reasons.dropna().unique()]


def _any(base: pd.DataFrame, refusals: list[Refusal]) -> pd.Series:
    """Which rows have one of the refusals."""
    rows = pd.Series(data=False, index=base.index)
    for refusal in refusals:
        rows |= refusal.rows
    return rows


def _join(
    contract: Contract, table: RemodelledTable, base: pd.DataFrame, partners: Mapping[str, pd.DataFrame]
) -> dict[str | None, _Rows]:
    """The base rows (None), and for each lookup its partners, by its name."""
    joined: dict[str | None, _Rows] = {None: _Rows(None, contract.source_table(table.source), base, None, None)}
    for name in table.paths:
        lookup = table.lookup(name)
        partner = contract.source_table(lookup.table)
        known = partners.get(lookup.table, empty_frame(partner.extract_types))
        joined[name] = _partners(joined[lookup.via], lookup, partner, known)
    return joined


def _partners(start: _Rows, lookup: Lookup, table: SourceTable, known: pd.DataFrame) -> _Rows:
    """The rows of `known` to which the rows of `start` refer, as PostgreSQL's LEFT JOIN finds them."""
    key = list(table.key)
    known = known.dropna(subset=key).drop_duplicates(key, ignore_index=True)
    refers = start.frame[list(lookup.on)].notna().all(axis="columns")
    places = _index(known, key).get_indexer(_index(start.frame, lookup.on))
    places[~refers.to_numpy()] = -1  # which no row has
    gone, unread = start.gone, start.unread
    if (is_missing := refers & (places < 0)).any():
        reason = pd.Series(f"comes from a row of '{table.name}' that does not exist", index=start.frame.index, dtype="string")
        gone = _first(reason.where(is_missing), gone)
    for name in lookup.on:
        unread = _first(unread, _unread(start, name))
    return _Rows(lookup.name, table, known.reindex(places).set_axis(start.frame.index), unread, gone)


def _index(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Index:
    values = [rows[name] for name in columns]
    return pd.Index(values[0]) if len(values) == 1 else pd.MultiIndex.from_arrays(values)


def _unread(rows: _Rows, name: str) -> pd.Series | None:
    """Why a value of a partner may be NULL only because it could not travel, as the partner's defects name their columns.

    NULL for a value that is known, and for all base rows, which are refused as a whole.
    """
    if rows.lookup is None or (defects := rows.frame[rows.table.defect]).isna().all():
        return rows.unread
    reasons = f"comes from a row of '{rows.table.name}' that could not be read: " + defects.astype("string")
    return _first(rows.unread, reasons.where(_is_withheld(rows.table, rows.frame, name)))


def _is_withheld(table: SourceTable, rows: pd.DataFrame, name: str) -> pd.Series:
    """In which rows a column is NULL because its value could not travel."""
    is_named = rows[table.defect].astype("string").str.contains(rf"(?:^|; ){re.escape(name)} is ")
    return rows[name].isna() & is_named.fillna(value=False).astype(bool)


def _column(column: Column, joined: Mapping[str | None, _Rows], unknown: str | None) -> tuple[pd.Series, list[Refusal]]:
    """The values of a column, with `unknown` in place of NULL, and which rows can't have theirs."""
    values, refusals = _origin_values(column, joined)
    if column.type.length:
        refusals.append(Refusal(column.name, f"is longer than {column.type.length}", values.str.len() > column.type.length))
    codec = codec_of(column.type)
    if codec.limits is not None:
        outside = values.notna() & ~values.between(*codec.limits).fillna(value=False)
        refusals.append(Refusal(column.name, "is outside the years 0001 to 9999", outside))
    values = values if values.dtype == codec.frame else values.astype(codec.frame)
    return values if unknown is None else values.fillna(_form(unknown, column.type)), refusals


def _form(unknown: str, kind: ColumnType) -> int | str:
    """A key that is written as PostgreSQL does, in the form in which values travel."""
    if kind == DATE:
        return (dt.date.fromisoformat(unknown) - EPOCH).days
    return int(unknown) if kind.is_whole_number else unknown


def _origin_values(column: Column, joined: Mapping[str | None, _Rows]) -> tuple[pd.Series, list[Refusal]]:
    if isinstance(origin := column.origin, CalendarPart):
        raise TypeError(f"'{column.name}' belongs to the calendar, which the loader fills")
    if isinstance(origin, Computed):
        return _computed_values(column, origin, joined)
    rows = joined[origin.lookup]
    values, unread = rows.frame[origin.column], _unread(rows, origin.column)
    unknown: list[Refusal] = []
    match origin:
        case FromSource(absent=absent) | FromLookup(absent=absent):
            values = values if absent is None else values.where(values.notna(), absent)
        case DateOf(absent=absent) | TimeOf(absent=absent):
            if absent is not None:
                others = _unread(rows, absent)
                unread = _first(unread, None if others is None else others.where(values.isna()))
                values = values.fillna(rows.frame[absent])
            values = values // MICROSECONDS_PER_DAY if isinstance(origin, DateOf) else values % MICROSECONDS_PER_DAY
        case ParsedDate():
            values, unknown = _looked_up(values, _days_by_text(values), column, "is not a date (YYYY-MM-DD)")
        case CurrencyNameOf():
            values, unknown = _looked_up(values, CURRENCY_NAMES, column, "is not an ISO 4217 currency code")
        case _:
            assert_never(origin)
    return values, [*unknown, *_refusals(column.name, unread)]


def _computed_values(column: Column, origin: Computed, joined: Mapping[str | None, _Rows]) -> tuple[pd.Series, list[Refusal]]:
    index = joined[None].frame.index
    read = {one: joined[one.lookup].frame[one.name] for one in columns_read(origin.expression)}
    refusals = []
    for one in read:
        refusals += _refusals(column.name, _unread(joined[one.lookup], one.name))
    refusals += [Refusal(column.name, reason, mask) for reason, mask in _unreadable(origin.expression, read, index)]
    values, unfit = stored(computed(origin.expression, read, len(index)), column.type)
    refusals.append(Refusal(column.name, f"does not fit {column.type.sql}", pd.Series(unfit, index=index, dtype=bool)))
    return pd.Series(values, index=index, dtype=codec_of(column.type).frame), refusals


def _unreadable(
    expression: Expression, read: Mapping[ReadColumn, pd.Series], index: pd.Index
) -> Iterator[tuple[str, pd.Series]]:
    """Why an expression has no value for some rows, and which: what expressions don't compute with, and misspelled texts."""
    for column in columns_computed(expression):
        if (found := unreadable(column, read[column])) is not None:
            reason, mask = found
            yield reason, mask.fillna(value=False).astype(bool)
    for cast, condition in misspelled(expression).items():
        yield (
            f"casts a text that is not {_SPELLED[cast.type]}",
            pd.Series(computed(condition, read, len(index)), index=index, dtype=bool),
        )


def _looked_up(values: pd.Series, known: Mapping[str, object], column: Column, reason: str) -> tuple[pd.Series, list[Refusal]]:
    """Each value's entry in `known`; a value without one is a refusal, NULL stays NULL."""
    unknown = values.notna() & ~values.isin(known.keys())
    return values.map(known), [Refusal(column.name, reason, unknown)]


def _days_by_text(texts: pd.Series) -> dict[str, int]:
    """Days since 1970-01-01 of each distinct text that spells a date."""
    days = {}
    for text in texts.dropna().unique():
        if DATE_TEXT.fullmatch(text):
            try:
                days[text] = (dt.date.fromisoformat(text) - EPOCH).days
            except ValueError:
                continue
    return days
