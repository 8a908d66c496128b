"""The operations of derived columns: what remodelling computes in Python is what PostgreSQL computes, value for value.

An operation is on the list (contracts.expressions.RULES) only while it has a signature here. Each statement computes several
trees over a batch of rows.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contracts.column_types import BIGINT, BOOLEAN, DATE, INTEGER, TEXT, TIMESTAMP, ColumnType, numeric, varchar
from contracts.derived import checked
from contracts.expressions import NUMBERS, RULES, Column, Expression, Type, columns
from services.operator.proof import computed as in_sql
from services.remodelling import computed as in_python
from shared.codecs import codec_of
from shared.postgres import SESSION_SETTINGS
from shared.sql import quoted
from tests.fixtures.expressions import (
    BOOL,
    COLUMNS,
    DAY,
    DECIMAL,
    EVERY,
    MOMENT,
    ROWS,
    SIGNATURES,
    STRING,
    WHOLE,
    operation,
    tree,
)
from tests.fixtures.postgres_cluster import TestCluster

EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (the source's have no time zone)
STORED: Mapping[Type, Sequence[ColumnType]] = {
    WHOLE: (INTEGER, BIGINT, numeric(12, 2), numeric(18, 18)),
    DECIMAL: (INTEGER, BIGINT, numeric(12, 2), numeric(18, 18), numeric(1, 0)),
    STRING: (TEXT, varchar(3)),
    BOOL: (BOOLEAN,),
    DAY: (DATE,),
    MOMENT: (TIMESTAMP,),
}


class Server:
    """A session in which statements run one after another."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection = self.run(asyncpg.connect(url, server_settings=SESSION_SETTINGS))

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.run(self.connection.fetch(query, *arguments))]


@pytest.fixture(scope="module")
def server(postgres_cluster: TestCluster) -> Iterator[Server]:
    name = postgres_cluster.create_database()
    server = Server(postgres_cluster.url(name))
    yield server
    server.run(server.connection.close())
    server.loop.close()
    postgres_cluster.drop_database(name)


def physical(value: Any, kind: ColumnType) -> Any:
    match value:
        case Decimal():
            return int(value.scaleb(kind.scale))
        case dt.datetime():
            return (value - EPOCH) // dt.timedelta(microseconds=1)
        case dt.date():
            return (value - EPOCH.date()).days
        case bool() | int() | None:
            return value
        case _:
            return str(value)


def spelled(value: Any, kind: Type) -> Any:
    """A value as the statement returns it; of a decimal every digit counts, also zeros at the end."""
    if value is None or kind not in NUMBERS:
        return value
    return f"{abs(value) if value == 0 else value:f}" if isinstance(value, Decimal) else str(value)


def shown(sql: str, kind: Type) -> str:
    """SQL for a value as Python holds it."""
    match kind:
        case Type.WHOLE | Type.DECIMAL:
            return f"({sql})::text"
        case Type.DATE:
            return f"({sql}) - date '1970-01-01'"
        case Type.TIMESTAMP:
            return f"(({sql})::date - date '1970-01-01') * 86400000000 + (extract(epoch FROM ({sql})::time) * 1000000)::bigint"
        case _:
            return sql


def require_equal(server: Server, trees: Sequence[Expression], rows: Sequence[tuple[Any, ...]]) -> None:
    """Both sides compute the same, and store the same in every type."""
    series = {
        Column(None, name, kind): pd.Series([physical(row[place], kind) for row in rows], dtype=codec_of(kind).frame)
        for place, (name, kind) in enumerate(COLUMNS.items())
    }
    asked, expected = [], []
    for one in trees:
        sql = in_sql.rendered(checked(one), lambda column: quoted("v", column.name))
        found = in_python.computed(one, {column: series[column] for column in columns(one)}, len(rows))
        asked.append(shown(sql, one.type))
        expected.append([spelled(value, one.type) for value in found])
        for kind in STORED[one.type]:
            value, fits = in_sql.stored(sql, kind)
            kept, unfit = in_python.stored(found, kind)
            if kind.length:
                unfit = [value is not None and len(value) > kind.length for value in found]
            if limits := codec_of(kind).limits:
                unfit = [value is not None and not limits[0] <= value <= limits[1] for value in found]
            asked.append(f"({fits}) IS FALSE")
            expected.append(unfit)
            asked.append(f"CASE WHEN ({fits}) IS FALSE THEN NULL ELSE {shown(value, one.type)} END")
            expected.append([None if bad else _stored_text(value, kind) for value, bad in zip(kept, unfit, strict=True)])
    # Moments as texts: asyncpg makes infinity of the last one.
    arrays = ", ".join(f"${place}{'::text[]' * kind.is_moment}::{kind.sql}[]" for place, kind in enumerate(COLUMNS.values(), 1))
    names = ", ".join(map(quoted, COLUMNS))
    query = f"SELECT {', '.join(asked)} FROM unnest({arrays}) WITH ORDINALITY AS v ({names}, place) ORDER BY place"
    given_values = [[str(one) if isinstance(one, dt.date) else one for one in column] for column in zip(*rows, strict=True)]
    found_rows = server.rows(query, *given_values)
    for sql, wanted, computed in zip(asked, zip(*found_rows, strict=True), expected, strict=True):
        different = [
            (rows[place], one, other) for place, (one, other) in enumerate(zip(wanted, computed, strict=True)) if one != other
        ]
        assert different[:1] == [], sql  # the row, PostgreSQL's value, and Python's


def _stored_text(value: Any, kind: ColumnType) -> Any:
    if value is None or kind in {TEXT, BOOLEAN, DATE, TIMESTAMP} or kind.length:
        return value
    return f"{Decimal(value).scaleb(-kind.scale):f}"


def often(examples: int) -> settings:
    """Without shrinking, which takes minutes: what differs is one operation on one row anyway."""
    phases = (Phase.explicit, Phase.generate)
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=phases)


def test_every_operation_of_the_list_has_a_property() -> None:
    assert SIGNATURES.keys() == RULES.keys()


@pytest.mark.parametrize("name", SIGNATURES)
def test_an_operation_gives_what_postgresql_gives(server: Server, name: str) -> None:
    @often(12)
    @given(st.data(), ROWS)
    def check(data: st.DataObject, rows: list[tuple[Any, ...]]) -> None:
        kinds = sorted(SIGNATURES[name][0])
        trees = [data.draw(operation(name, kind, depth)) for kind in kinds for depth in (1, 1, 2)]
        require_equal(server, trees, rows)

    check()


@often(40)
@given(st.data(), ROWS)
def test_a_random_tree_gives_what_postgresql_gives(server: Server, data: st.DataObject, rows: list[tuple[Any, ...]]) -> None:
    kinds = st.sampled_from(sorted(EVERY))
    trees = data.draw(st.lists(kinds.flatmap(lambda kind: tree(kind, 4)), min_size=1, max_size=6))
    require_equal(server, trees, rows)
