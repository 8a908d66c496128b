"""From source rows to star rows, driven by the contract. Pure: data frames in, data frames out.

Values keep the form of shared.codecs throughout: whole numbers and texts. A row that the warehouse can't hold is left
out, with its reasons; the others go through.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

import pandas as pd
from iso4217 import Currency

from contracts.column_types import MICROSECONDS_PER_DAY
from contracts.contract import Contract
from contracts.origins import CalendarPart, CurrencyNameOf, DateOf, FromLookup, FromSource, ParsedDate, TimeOf
from contracts.tables import Column, RemodelledTable
from shared.codecs import codec_of
from shared.parquet import empty_frame

EPOCH = dt.date(1970, 1, 1)
DATE_TEXT = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
CURRENCY_NAMES: Mapping[str, str] = {currency.code: currency.currency_name for currency in Currency}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why some rows of a base table can't become star rows."""

    column: str  # of the star table, or the base table's column of a lookup; empty for the whole row
    reason: str  # what the column's value is, as the rest of a sentence
    rows: pd.Series  # a boolean mask over the base table's frame


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The rows of one batch, by source table."""

    base: Mapping[str, pd.DataFrame]  # rows to be remodelled
    partners: Mapping[str, pd.DataFrame]  # rows that are only joined


@dataclass(frozen=True, slots=True)
class Remodelled:
    """The star rows of one warehouse table, and why others of its base table are missing."""

    table: RemodelledTable
    rows: pd.DataFrame
    refusals: list[Refusal] = field(default_factory=list)


def remodel(contract: Contract, rows: SourceRows) -> Iterator[Remodelled]:
    """One result for each warehouse table whose base has rows in the batch."""
    for table in contract.remodelled_tables:
        base = rows.base.get(table.source)
        if base is not None and len(base):
            yield _remodel_table(contract, table, base, rows)


def _remodel_table(contract: Contract, table: RemodelledTable, base: pd.DataFrame, rows: SourceRows) -> Remodelled:
    partners, whole_rows = _join(contract, table, base, rows.partners)
    defects = base[contract.source_table(table.source).defect]
    whole_rows += [Refusal("", str(reason), defects == reason) for reason in defects.dropna().unique()]
    refusals = list(whole_rows)
    columns: dict[str, pd.Series] = {}
    for column in table.columns:
        columns[column.name], found = _column(contract, column, base, partners)
        if not column.nullable:
            found.append(Refusal(column.name, "is NULL", columns[column.name].isna() & ~_any(base, [*whole_rows, *found])))
        refusals += found
    star = pd.DataFrame(columns, index=base.index)
    refused = _any(base, refusals)
    return Remodelled(table, star[~refused].reset_index(drop=True), [refusal for refusal in refusals if refusal.rows.any()])


def _any(base: pd.DataFrame, refusals: list[Refusal]) -> pd.Series:
    """Which rows have one of the refusals."""
    rows = pd.Series(data=False, index=base.index)
    for refusal in refusals:
        rows |= refusal.rows
    return rows


def _join(
    contract: Contract, table: RemodelledTable, base: pd.DataFrame, partners: Mapping[str, pd.DataFrame]
) -> tuple[dict[str, pd.DataFrame], list[Refusal]]:
    """For each lookup its partner rows, one per base row; a row whose partner does not exist is a refusal."""
    joined: dict[str, pd.DataFrame] = {}
    refusals: list[Refusal] = []
    for lookup in table.lookups:
        partner = contract.source_table(lookup.table)
        known = (
            partners.get(lookup.table, empty_frame(partner.extract_types))
            .drop_duplicates(partner.key[0])
            .set_index(partner.key[0], drop=False)
        )
        joined[lookup.table] = known.reindex(base[lookup.on]).set_axis(base.index)
        orphans = base[lookup.on].notna() & ~base[lookup.on].isin(known.index)
        refusals.append(Refusal(lookup.on, f"refers to a row of '{lookup.table}' that does not exist", orphans))
    return joined, refusals


def _column(
    contract: Contract, column: Column, base: pd.DataFrame, partners: Mapping[str, pd.DataFrame]
) -> tuple[pd.Series, list[Refusal]]:
    """The values of a column, and which rows can't have theirs."""
    values, refusals = _origin_values(contract, column, base, partners)
    if column.type.length:
        refusals.append(Refusal(column.name, f"is longer than {column.type.length}", values.str.len() > column.type.length))
    codec = codec_of(column.type)
    if codec.limits is not None:
        outside = values.notna() & ~values.between(*codec.limits).fillna(value=False)
        refusals.append(Refusal(column.name, "is outside the years 0001 to 9999", outside))
    return values.astype(codec.frame), refusals


def _origin_values(
    contract: Contract, column: Column, base: pd.DataFrame, partners: Mapping[str, pd.DataFrame]
) -> tuple[pd.Series, list[Refusal]]:
    match column.origin:
        case FromSource(name, absent):
            return _present(base[name], absent), []
        case FromLookup(lookup, name, absent):
            defects = partners[lookup][contract.source_table(lookup).defect]
            return _present(partners[lookup][name], absent), _lost(partners[lookup][name], defects, lookup, column)
        case DateOf(name, absent):
            return _moments(base, name, absent) // MICROSECONDS_PER_DAY, []
        case TimeOf(name, absent):
            return _moments(base, name, absent) % MICROSECONDS_PER_DAY, []
        case ParsedDate(name):
            return _looked_up(base[name], _days_by_text(base[name]), column, "is not a date (YYYY-MM-DD)")
        case CurrencyNameOf(name):
            return _looked_up(base[name], CURRENCY_NAMES, column, "is not an ISO 4217 currency code")
        case CalendarPart():
            raise AssertionError(f"'{column.name}' belongs to the calendar, which the loader fills")
        case _:
            assert_never(column.origin)


def _present(values: pd.Series, absent: str | None) -> pd.Series:
    return values if absent is None else values.where(values.notna(), absent)


def _moments(base: pd.DataFrame, name: str, absent: str | None) -> pd.Series:
    return base[name] if absent is None else base[name].fillna(base[absent])


def _lost(values: pd.Series, defects: pd.Series, lookup: str, column: Column) -> list[Refusal]:
    """Which values of a partner may be NULL only because they could not travel, as its defects name their columns."""
    is_named = defects.str.contains(rf"(?:^|; ){re.escape(str(values.name))} is ").fillna(value=False).astype(bool)
    defects = defects.where(values.isna() & is_named)
    unreadable = f"comes from a row of '{lookup}' that could not be read"
    return [Refusal(column.name, f"{unreadable}: {defect}", defects == defect) for defect in defects.dropna().unique()]


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
