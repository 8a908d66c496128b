"""The names that a contract's document gives to types: PostgreSQL's, and `enum('A', 'B')`."""

from __future__ import annotations

import re

from contracts.column_types import (
    BIGINT,
    BOOLEAN,
    DATE,
    INTEGER,
    MAX_SCALED_DIGITS,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    ColumnType,
    Kind,
    enum,
    numeric,
    varchar,
    verbatim,
)

_SIMPLE = {
    "smallint": INTEGER,
    "integer": INTEGER,
    "bigint": BIGINT,
    "text": TEXT,
    "character varying": TEXT,
    "varchar": TEXT,
    "bpchar": TEXT,
    "citext": TEXT,
    "boolean": BOOLEAN,
    "date": DATE,
    "time": TIME,
    "timestamp": TIMESTAMP,
    "timestamptz": TIMESTAMPTZ,
}
_MOMENT = re.compile(r"(time|timestamp)(?:\([0-6]\))?( with| without)? time zone")
_BOUNDED = re.compile(r"(numeric|decimal|varchar|character varying|character|char)\((\d{1,9})(?:, ?(-?\d{1,4}))?\)")
_LABEL = r"'(?:[^']|'')*'"
_ENUM = re.compile(rf"enum\(({_LABEL}(?:, ?{_LABEL})*)\)")


def column_type(name: str) -> ColumnType:
    """The type called `name`: the form in which its values travel. Raises: ValueError for what is not the name of a type."""
    name = name.strip()
    if moment := _MOMENT.fullmatch(name):
        name = moment[1] + ("tz" if moment[2] == " with" else "")
    if simple := _SIMPLE.get(name):
        return simple
    if labels := _ENUM.fullmatch(name):
        return enum(*(label[1:-1].replace("''", "'") for label in re.findall(_LABEL, labels[1])))
    if bounded := _BOUNDED.fullmatch(name):
        size, scale = int(bounded[2]), int(bounded[3] or 0)
        match bounded[1]:
            case "numeric" | "decimal":
                fits = 0 < size <= MAX_SCALED_DIGITS and 0 <= scale <= size
                return numeric(size, scale) if fits else verbatim(f"numeric({size},{scale})")
            case "varchar" | "character varying":
                return varchar(size)
            case _:
                return TEXT  # char(n) arrives without trailing blanks
    if name.startswith("enum("):
        raise ValueError(f"'{name}' is not an enum: its labels are quoted, as in enum('OPEN', 'PAID')")
    return verbatim("time with time zone" if name == "timetz" else name)


def type_name(kind: ColumnType) -> str:
    """The name of a type: `column_type` gives the same type for it."""
    match kind.kind:
        case Kind.ENUM:
            labels = ", ".join("'" + label.replace("'", "''") + "'" for label in kind.labels)
            return f"enum({labels})"
        case Kind.NUMERIC:
            return f"numeric({kind.precision},{kind.scale})"
        case Kind.TEXT:
            return f"varchar({kind.length})" if kind.length else "text"
        case _:
            return kind.family
