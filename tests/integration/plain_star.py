"""Contracts that copy a few tables unchanged, and two databases to test them with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import asyncpg

from contracts.column_types import DATE, ColumnType
from contracts.contract import Contract
from contracts.origins import CalendarPart, FromSource
from contracts.tables import Calendar, Column, Dimension, Fact, SourceColumn, SourceTable, WarehouseTable
from contracts.warehouse import current_name
from services.operator.proof.row_comparison import Difference
from services.operator.proof.verdict import Verdict
from services.operator.quarantine import open_entries
from shared.sql import quoted
from tests.fixtures.pipeline import Pipeline

DIM_DATE = Calendar("dim_date", ("d",), (Column("d", DATE, CalendarPart("date")),))


def source_table(name: str, key: str | tuple[str, ...], /, **types: ColumnType) -> SourceTable:
    columns = tuple(SourceColumn(column, kind, nullable=True) for column, kind in types.items())
    return SourceTable(name, (key,) if isinstance(key, str) else key, columns)


def dimension_of(table: SourceTable, *more: Column, **options: Any) -> WarehouseTable:
    """A dimension with the columns of a source table, and some more."""
    own = (Column(c.name.lstrip("_"), c.type, FromSource(c.name), nullable=c.name not in table.key) for c in table.columns)
    return replace(
        Dimension(f"dim_{table.name}", table.key, (*own, *more), table.name),
        **options,
    )


def of(*tables: SourceTable, star: tuple[WarehouseTable, ...] = ()) -> Contract:
    return Contract("case", "public", "public", tables, star or tuple(dimension_of(table) for table in tables))


def differences(verdict: Verdict) -> list[tuple[str, Difference]]:
    """Every difference, with its table."""
    return [(table.table, difference) for table in verdict.tables for difference in table.differences]


async def require_equal(pipeline: Pipeline, quarantined: int = 0) -> None:
    """Require that the proof finds every row and no other."""
    verdict = await pipeline.verify()
    assert differences(verdict) == []
    assert (verdict.in_flight, verdict.quarantined) == (0, quarantined)


async def keys_in_quarantine(pipeline: Pipeline) -> dict[str, list[tuple[object, ...]]]:
    async with pipeline.warehouse.connection() as connection:
        found = await open_entries(pipeline.system, connection)
    return {table: sorted(entries) for table, entries in found.items()}


async def require_as_by_hand(owner: asyncpg.Connection, pipeline: Pipeline, by_hand: Mapping[str, str]) -> None:
    """Every star table holds what a statement written by hand finds at the source, apart from the rows in quarantine."""
    contract, refused = pipeline.contract, await keys_in_quarantine(pipeline)
    assert set(by_hand) == {table.name for table in contract.remodelled_tables}
    for table in contract.remodelled_tables:
        places = [list(table.star_types).index(name) for name in table.key]

        def kept(rows: Iterable[Iterable[Any]], name: str = table.name, places: list[int] = places) -> list[tuple[Any, ...]]:
            found = [row for row in map(tuple, rows) if tuple(row[place] for place in places) not in refused.get(name, ())]
            return sorted(found, key=repr)

        relation = quoted(contract.warehouse_schema, current_name(table.name) if isinstance(table, Fact) else table.name)
        columns = ", ".join(map(quoted, table.star_types))
        held = await pipeline.select(f"SELECT {columns} FROM {relation} WHERE _run > 0 AND _deleted_at IS NULL")
        wanted = await owner.fetch(by_hand[table.name])
        assert kept(held) == kept(wanted), (table.name, kept(held), kept(wanted))
