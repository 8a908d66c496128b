"""Rows of the small contract's source, in the physical form in which they leave ingestion."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from contracts.tables import SourceTable
from services.remodelling.transform import Remodelled, SourceRows, remodel
from shared.parquet import PANDAS_TYPES
from tests.small_contract import ITEM, MAKER, SHELF, SHOP

EPOCH = dt.date(1970, 1, 1)
DAY_US = 86_400_000_000
SOLD_AT = (dt.date(2026, 11, 1) - EPOCH).days * DAY_US + 34_200_000_001  # 09:30:00.000001

A_MAKER: Mapping[str, Any] = {"maker_id": 1, "maker_name": "Bell Ltd", "town": "Leeds", "capital": 1050}
AN_ITEM: Mapping[str, Any] = {
    "item_id": 1,
    "maker_id": 1,
    "serial": 2**40,
    "price": 12_500,
    "code": "abc",
    "note": "as new",
    "good": True,
    "born": 0,
    "opens": 1,
    "sold_at": SOLD_AT,
    "mood": "calm",
    "due": "2026-12-31",
    "currency": "GBP",
}


def frame(table: SourceTable, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """An extract; what a row does not say is NULL."""
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name) for row in rows], dtype=PANDAS_TYPES[kind.kind])
            for name, kind in table.extract_types.items()
        }
    )


def items(*changes: Mapping[str, Any], makers: Sequence[Mapping[str, Any]] = (A_MAKER,)) -> SourceRows:
    """A batch of items numbered from 1, each AN_ITEM but for its changes, with the makers as partners."""
    base = frame(ITEM, [{**AN_ITEM, "item_id": number, **change} for number, change in enumerate(changes, start=1)])
    return SourceRows(base={"item": base}, partners={"maker": frame(MAKER, makers)})


def shelves(*rows: Mapping[str, Any]) -> SourceRows:
    base = frame(SHELF, rows)
    return SourceRows(base={"shelf": base}, partners={})


def remodelled(rows: SourceRows, table: str) -> Remodelled:
    """What becomes of the rows in one warehouse table."""
    return next(result for result in remodel(SHOP, rows) if result.table.name == table)


def values(result: Remodelled, column: str) -> list[Any]:
    """A column of the star rows, None for NULL."""
    return [None if pd.isna(value) else value for value in result.rows[column].tolist()]


def reasons(result: Remodelled) -> list[tuple[str, str, list[int]]]:
    """Column, reason, and the positions of the rows."""
    return [(problem.column, problem.reason, problem.rows[problem.rows].index.tolist()) for problem in result.problems]
