"""The operations of derived columns: what remodelling computes in Python is what PostgreSQL computes, value for value.

An operation is on the list (contracts.expressions.RULES) only while it has a signature here. Each statement computes several
trees over a batch of rows.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import asyncpg
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    TEXT,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    ColumnType,
    numeric,
    varchar,
)
from contracts.derived import checked, derived
from contracts.expression_parts import columns_read, misspelled
from contracts.expression_text import DEPTH_MAXIMUM
from contracts.expressions import (
    DAYS_MAXIMUM,
    PARTS_OF_DATE,
    RULES,
    Expression,
    ExpressionError,
    Literal,
    Operation,
    ReadColumn,
    Type,
)
from shared.codecs import codec_of
from shared.expressions import in_python, in_sql
from shared.postgres import SESSION_SETTINGS
from shared.sql import quoted
from tests.fixtures.expression_values import physical, shown, spelled, stored_text
from tests.fixtures.expressions import (
    BOOL,
    COLUMNS,
    DAY,
    DECIMAL,
    EVERY,
    INSTANT,
    JSON,
    MOMENT,
    ROWS,
    SIGNATURES,
    STRING,
    WHOLE,
    operation,
    tree,
)
from tests.fixtures.postgres_cluster import TestCluster
from tests.fixtures.properties import examples

STORED: Mapping[Type, Sequence[ColumnType]] = {
    WHOLE: (INTEGER, BIGINT, numeric(12, 2), numeric(18, 18)),
    DECIMAL: (INTEGER, BIGINT, numeric(12, 2), numeric(18, 18), numeric(1, 0)),
    STRING: (TEXT, varchar(3)),
    BOOL: (BOOLEAN,),
    DAY: (DATE,),
    MOMENT: (TIMESTAMP,),
    INSTANT: (TIMESTAMPTZ,),
    JSON: (),
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


def spelled_by(server: Server, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows, with PostgreSQL's texts of values that travel as such."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    for place, kind in enumerate(COLUMNS.values()):
        if kind.is_verbatim and kind != UUID:
            found = server.rows(f"SELECT v::{kind.sql}::text FROM unnest($1::text[]) AS v", columns[place])
            columns[place] = [text for (text,) in found]
    return list(zip(*columns, strict=True))


def require_equal(server: Server, trees: Sequence[Expression], rows: Sequence[tuple[Any, ...]]) -> None:
    """Both sides compute the same, and store the same in every type."""
    rows = spelled_by(server, rows)
    series = {
        ReadColumn(None, name, kind): pd.Series([physical(row[place], kind) for row in rows], dtype=codec_of(kind).frame)
        for place, (name, kind) in enumerate(COLUMNS.items())
    }
    asked, expected = [], []
    for one in trees:
        sql = in_sql.rendered(checked(one), lambda column: f"{quoted('v', column.name)}::{column.column_type.sql}")
        found = in_python.computed(one, {column: series[column] for column in columns_read(one)}, len(rows))
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
            expected.append([None if bad else stored_text(value, kind) for value, bad in zip(kept, unfit, strict=True)])
    # Moments as texts: asyncpg makes infinity of the last one. An array of arrays is another array.
    arrays = ", ".join(
        f"${place}::text[]" if kind.is_verbatim and kind != UUID else f"${place}{'::text[]' * kind.is_moment}::{kind.sql}[]"
        for place, kind in enumerate(COLUMNS.values(), 1)
    )
    names = ", ".join(map(quoted, COLUMNS))
    query = f"SELECT {', '.join(asked)} FROM unnest({arrays}) WITH ORDINALITY AS v ({names}, place) ORDER BY place"
    given_values = [[str(one) if isinstance(one, dt.date) else one for one in column] for column in zip(*rows, strict=True)]
    found_rows = server.rows(query, *given_values)
    for sql, wanted, computed in zip(asked, zip(*found_rows, strict=True), expected, strict=True):
        different = [
            (rows[place], one, other) for place, (one, other) in enumerate(zip(wanted, computed, strict=True)) if one != other
        ]
        assert different[:1] == [], sql  # the row, PostgreSQL's value, and Python's


def often(count: int) -> settings:
    """New examples each time, without shrinking, which takes minutes: what differs is one operation on one row anyway."""
    return settings(examples(count), derandomize=False, phases=(Phase.explicit, Phase.generate))


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


@pytest.mark.parametrize("days", [-DAYS_MAXIMUM, DAYS_MAXIMUM])
def test_a_date_may_leave_the_calendar_of_python_within_an_expression(server: Server, days: int) -> None:
    day: Expression = ReadColumn(None, "d", DATE)
    rows = [
        tuple(date if name == "d" else None for name in COLUMNS) for date in (dt.date.min, dt.date(1, 5, 31), dt.date.max, None)
    ]
    for _ in range(DEPTH_MAXIMUM - 2):
        day = Operation("add_days", (day, Literal(days)))
        parts = [Operation(name, (day,)) for name in SIGNATURES if name.startswith("first_of") or name in DATE_PARTS]
        require_equal(server, [day, *parts], rows)


@often(40)
@given(st.data(), ROWS)
def test_a_random_tree_gives_what_postgresql_gives(server: Server, data: st.DataObject, rows: list[tuple[Any, ...]]) -> None:
    kinds = st.sampled_from(sorted(EVERY))
    trees = data.draw(st.lists(kinds.flatmap(lambda kind: tree(kind, 4)), min_size=1, max_size=6))
    require_equal(server, trees, rows)


DATE_PARTS = [f"extract_{part}" for part in PARTS_OF_DATE]
# fmt: off
OPERANDS = (
    "doc", "doc", "at", "i", "j", "-i", "- j", "NOT b", "b", "c", "s", "t", "d", "e", "price",
    "1", "2", "0.5", "'a'", "NULL", "true",
)
OPERATORS = (
    "+", "-", "*", "/ NULLIF(j, 0) *", "||", "=", "<>", "<", "<=", ">", ">=",
    "AND", "OR", "AND NOT", "BETWEEN 1 AND", "IN (1, 2) =", "IS NULL =", "->> 'k' ||", "-> 'k' ->",
)
# fmt: on
ENDS = (
    "",
    "",
    "",
    "",
    "::text",
    "::numeric(5,1)",
    "::integer",
    " IS NULL",
    " IS NOT NULL",
    " IN (1, 2)",
    " BETWEEN 0 AND 1",
    " ->> 'k'",
    " AT TIME ZONE 'UTC'",
)


def test_a_text_is_read_as_postgresql_reads_it(server: Server) -> None:
    """What binds tighter than what, tried with what a person could write without parentheses.

    Each text is an operand, or a text that was read before, with an operator and an operand on one of its sides: of texts of
    independent random parts, one in 35 would be read, and few of those have two operators.
    """
    random, texts = Random(1), dict[str, Expression]()  # noqa: S311 (repeatable on purpose)

    def operand() -> str:
        return random.choice(OPERANDS) + random.choice(ENDS)

    while len(texts) < 600:
        known = random.choice(list(texts)) if texts and random.random() < 0.7 else operand()
        parts = [known, random.choice(OPERATORS), operand()]
        text = " ".join(parts if random.random() < 0.5 else reversed(parts))
        if known.count(" ") < 20:
            with suppress(ExpressionError):
                read, _ = derived(text, lambda path: (ReadColumn(None, path[0], COLUMNS[path[0]]), True))
                if not misspelled(read):  # of which PostgreSQL makes an error
                    texts[text] = read
    rows = (
        "(1, 2::bigint, true, false, 'a', NULL, 1.25::numeric(12,2), date '2026-01-31', date '2025-12-31', "
        "'{\"k\": \"v\"}'::jsonb, timestamptz '2026-01-01 00:00+00'), "
        "(0, -3, NULL, true, '', 'a', -0.5::numeric(12,2), NULL, date '2026-01-31', '[]', NULL), "
        "(2, NULL, false, false, NULL, 'b', 0::numeric(12,2), NULL, NULL, NULL, '2026-07-01 12:00+02')"
    )
    asked = {
        text: f"({text})::text IS NOT DISTINCT FROM ({in_sql.rendered(one, lambda column: quoted('v', column.name))})::text"
        for text, one in texts.items()
    }
    source = f"FROM (VALUES {rows}) AS v (i, j, b, c, s, t, price, d, e, doc, at)"
    for some in (list(asked)[start : start + 100] for start in range(0, len(asked), 100)):
        for found in server.rows(f"SELECT {', '.join(asked[text] for text in some)} {source}"):
            assert [text for text, is_equal in zip(some, found, strict=True) if not is_equal] == []
