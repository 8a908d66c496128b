from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

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
    ColumnType,
    Kind,
    enum,
    numeric,
    verbatim,
)
from shared.codecs import codec_of
from tests.fixtures.source_rows import DAY_US, EPOCH

ROOT = Path(__file__).parents[3]
LAST_DAY = (dt.date.max - EPOCH).days


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (7, INTEGER, 7),
        (-(2**63), BIGINT, -(2**63)),
        (5, numeric(10, 2), "0.05"),
        (-1234567, numeric(10, 2), "-12345.67"),
        (0, numeric(18, 8), "0.00000000"),
        (10**18 - 1, numeric(18, 0), str(10**18 - 1)),
        (True, BOOLEAN, True),
        ("", TEXT, ""),
        ("SALE", enum("SALE"), "SALE"),
        (LAST_DAY, DATE, "9999-12-31"),
        (LAST_DAY + 1, DATE, f"{LAST_DAY + 1} days and 0 µs from 1970-01-01"),
        (-1, TIMESTAMP, "1969-12-31 23:59:59.999999"),
        ((LAST_DAY + 1) * DAY_US + 5, TIMESTAMP, f"{LAST_DAY + 1} days and 5 µs from 1970-01-01"),
        (-1, TIMESTAMPTZ, "1969-12-31 23:59:59.999999+00"),
        (DAY_US - 1, TIME, "23:59:59.999999"),
    ],
)
def test_each_kind_of_value_is_shown_as_a_person_writes_it(value: object, kind: ColumnType, text: object) -> None:
    assert codec_of(kind).shown(value) == text


@pytest.mark.parametrize(
    ("kind", "held", "not_held"),
    [
        (INTEGER, [0, -(2**31), 2**31 - 1], [2**31, "0", ""]),
        (BIGINT, [2**63 - 1], [2**63, "1e3"]),
        (TEXT, ["", "é", "a'b", "\U0001f600"], ["a\x00", "\udcff", 7]),
        (UUID, ["5e1f1c1e-57a7-5c4e-8a3a-0d1f7a5e9b21"], ["5E1F1C1E-57A7-5C4E-8A3A-0D1F7A5E9B21", "x", ""]),
        (numeric(10, 2), ["0", "-7.5", "100", "NaN"], ["7.50", "100.", "1e2", "-0", "007", ".5", "", 7]),
        (verbatim("numeric"), ["123456789012345678901234567890.5", "Infinity", "-Infinity"], ["1.0", "inf"]),
        (BOOLEAN, ["true", "false"], ["t", "True", 1]),
        (DATE, ["2026-11-01", "0001-01-01", "infinity", "0044-03-15 BC", "10000-01-01"], ["2026-02-30", "1 Nov 2026", "today"]),
        (TIMESTAMP, ["2026-11-01 09:30:00", "2026-11-01 09:30:00.5", "-infinity"], ["2026-11-01", "2026-11-01 09:30:00.50"]),
        (
            TIMESTAMPTZ,
            ["2026-11-01 09:30:00.000001+00", "0044-03-15 00:00:00+00 BC"],
            ["2026-11-01 10:30:00+01", "2026-11-01 09:30:00"],
        ),
    ],
    ids=str,
)
def test_a_key_accepts_only_values_as_postgresql_writes_them(
    kind: ColumnType, held: list[int | str], not_held: list[int | str]
) -> None:
    """Another spelling of a row that exists would be looked up, found, and taken for missing: the answer has PostgreSQL's."""
    assert [value for value in held if not codec_of(kind).may_be_key(value)] == []
    assert [value for value in not_held if codec_of(kind).may_be_key(value)] == []


def test_each_kind_of_type_has_a_codec() -> None:
    bounded = {Kind.NUMERIC: numeric(10, 2), Kind.VERBATIM: UUID}
    types = [bounded[kind] if kind in bounded else ColumnType(kind) for kind in Kind]
    assert [codec_of(kind).type for kind in types] == types


def test_the_kinds_of_types_are_distinguished_in_few_modules() -> None:
    """A new kind is added in these modules, and in the proof, which has SQL of its own on purpose."""
    member = re.compile(rf"\bKind\.({'|'.join(Kind.__members__)})\b")
    places = {
        "contracts/column_types.py",  # what a type is
        "contracts/checks.py",  # what may become what
        "contracts/calendar.py",  # the types of a date's parts
        "contracts/type_names.py",  # what a document calls a type
        "contracts/expressions.py",  # what a value is in an expression
        "contracts/star_columns.py",  # which types a document may give a column in the star
        "shared/expressions/in_sql.py",  # what it is in an expression that is rendered as SQL
        "shared/star_schema/views.py",  # as of which time a view shows a dimension with history
        "services/operator/contract/propose.py",  # which columns a contract that is proposed takes for texts and numbers,
        "services/operator/contract/roles.py",  # and for dates
        "services/loading/copying.py",  # as what the COPY of a first load takes a column
        "shared/codecs/__init__.py",  # everything else
        "services/loading/memory_warehouse.py",  # a fake: it has Python's values in the place of PostgreSQL's
    }
    found = {
        str(path.relative_to(ROOT))
        for folder in ("contracts", "shared", "services", "infra")
        for path in (ROOT / folder).rglob("*.py")
        if member.search(path.read_text(encoding="utf-8"))
    }
    assert {path for path in found if not path.startswith("services/operator/proof/")} == places


def test_a_column_name_may_contain_template_placeholders() -> None:
    name = '"of {0} {which}"'
    assert codec_of(DATE).loaded(name) == f"(date '1970-01-01' + {name}::integer)"
    assert codec_of(TIMESTAMPTZ).read(name).count(name) == codec_of(TIMESTAMPTZ).read('"at"').count('"at"') > 0
    assert [condition for condition, _ in codec_of(TIME).defects(name)] == [f"{name} = time '24:00'"]
