from __future__ import annotations

import pytest

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    enum,
    is_same_type,
    numeric,
    varchar,
    verbatim,
)


@pytest.mark.parametrize("precision", [0, 19])
def test_a_number_too_large_to_be_transferred_exactly_is_refused(precision: int) -> None:
    with pytest.raises(ValueError, match=r"beyond the 18 digits .* precision from 1 to 18, or verbatim\('numeric\(\d+,0\)'\)"):
        numeric(precision, 0)


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        (INTEGER, "integer"),
        (BIGINT, "bigint"),
        (numeric(10, 2), "numeric(10,2)"),
        (TEXT, "varchar"),
        (varchar(3), "varchar(3)"),
        (enum("a", "b"), "varchar"),
        (BOOLEAN, "boolean"),
        (DATE, "date"),
        (TIME, "time"),
        (TIMESTAMP, "timestamp(6)"),
        (TIMESTAMPTZ, "timestamp(6) with time zone"),
        (UUID, "uuid"),
        (verbatim("integer[]"), "integer[]"),
        (verbatim("timestamp(3) with time zone[]"), "timestamp(3) with time zone[]"),
    ],
)
def test_each_type_has_its_warehouse_type(kind: object, sql: str) -> None:
    assert kind.sql == sql  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("citext", "extensions.citext", True),
        ("extensions.citext", "extensions.citext", True),
        ("public.citext", "extensions.citext", False),
        ('"Role"[]', '"my app"."Role"[]', True),
        ('"a.b"', "b", False),
        ("numeric(3,1)", "numeric(3,2)", False),
    ],
)
def test_a_type_may_be_written_with_or_without_its_schema(one: str, other: str, *, same: bool) -> None:
    assert is_same_type(one, other) is is_same_type(other, one) is same


@pytest.mark.parametrize(
    "name",
    [
        "",
        "int; DROP TABLE x",
        "Mood",
        "text[]; --",
        "'x'",
        '"Role',
        'a.b.c"',
        "text)",
        "text(",
        "geometry(Point --,1)",
        "a.b.c.d",
    ],
)
def test_a_type_name_that_format_type_never_returns_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a type as written by format_type\(\)"):
        verbatim(name)


@pytest.mark.parametrize(
    "name",
    [
        "extensions.citext",
        '"Role"[]',
        '"my schema"."Odd ""type"""',
        "geometry(Point,4326)",
        "numeric(3,-2)",
        "timestamp(3) without time zone[]",
        "interval day to second(3)",
        "bit varying(8)[]",
        '"char"',
        "_int4",
    ],
)
def test_a_type_has_the_name_that_format_type_returns(name: str) -> None:
    assert verbatim(name).sql == name
