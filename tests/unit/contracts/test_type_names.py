from __future__ import annotations

import pytest

from contracts.column_types import (
    BIGINT,
    DATE,
    INTEGER,
    JSONB,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    ColumnType,
    enum,
    numeric,
    varchar,
    verbatim,
)
from contracts.type_names import column_type, type_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("smallint", INTEGER),
        ("bigint", BIGINT),
        ("character varying", TEXT),
        ("character varying(3)", varchar(3)),
        ("character(3)", TEXT),
        ("numeric(10,2)", numeric(10, 2)),
        ("numeric(10)", numeric(10, 0)),
        ("numeric", verbatim("numeric")),
        ("numeric(20,2)", verbatim("numeric(20,2)")),
        ("numeric(5,-2)", verbatim("numeric(5,-2)")),
        ("numeric(2,4)", verbatim("numeric(2,4)")),
        ("date", DATE),
        ("time(3) without time zone", TIME),
        ("time with time zone", verbatim("time with time zone")),
        ("timestamp(3) without time zone", TIMESTAMP),
        ("timestamp with time zone", TIMESTAMPTZ),
        ("timestamptz", TIMESTAMPTZ),
        ("jsonb", JSONB),
        ('"Role"[]', verbatim('"Role"[]')),
        ("enum('it''s', 'a, b')", enum("it's", "a, b")),
    ],
)
def test_a_name_of_postgresql_is_a_type(name: str, kind: ColumnType) -> None:
    assert column_type(name) == kind
    assert column_type(type_name(kind)) == kind


@pytest.mark.parametrize("name", ["", "integer; DROP TABLE x", "enum(a)", "enum()"])
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a type as written by format_type|is not an enum"):
        column_type(name)
