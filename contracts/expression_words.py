"""Words in the text of an expression: constants, types, names of columns, and what a person calls the rest. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from sqlglot import exp

from contracts.column_types import ColumnType, numeric
from contracts.expressions import ExpressionError, Literal

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?", re.ASCII)
_NUMBER = re.compile(r"(\d+)(\.\d*)?", re.ASCII)
_CONSTRUCTS: Mapping[type[exp.Expr], str] = {
    **dict.fromkeys((exp.Subquery, exp.Select, exp.Exists), "a subquery"),
    **dict.fromkeys((exp.Parameter, exp.Placeholder), "a parameter"),
    **dict.fromkeys((exp.Upper, exp.Lower), "upper() or lower(), whose result depends on the locale of the database"),
    exp.Window: "a window function",
    exp.Star: "*",
    exp.Alias: "an alias",
    exp.Block: "several statements",
}


def literal(node: exp.Expr) -> Literal:
    """The constant of a node. Raises: ExpressionError."""
    if isinstance(node, exp.Null):
        return Literal(None)
    if isinstance(node, exp.Boolean):
        return Literal(bool(node.this))
    if node.is_string:
        return Literal(str(node.this))
    if (found := _NUMBER.fullmatch(str(node.this))) is None:
        raise ExpressionError(f"has the number {node.this}: write it in digits, such as 1000 or 0.05")
    return Literal(Decimal(found[0]) if found[2] else int(found[0]))


def moment(target: str, text: str) -> Literal:
    """The DATE or TIMESTAMP that a text spells. Raises: ExpressionError."""
    written = _MOMENT.fullmatch(text)
    try:
        if written is not None and (target == "DATE") is (written[1] is None):
            return Literal((dt.date if target == "DATE" else dt.datetime).fromisoformat(text))
    except ValueError:
        pass
    form = "YYYY-MM-DD" if target == "DATE" else "YYYY-MM-DD HH:MM:SS"
    raise ExpressionError(f"has '{text}' as a {target.lower()}: write {form}")


def numeric_type(to: exp.DataType) -> ColumnType:
    """The type numeric(p,s). Raises: ExpressionError."""
    try:
        precision, scale = (int(part.name) for part in to.expressions)
        return numeric(precision, scale)
    except ValueError:
        written = to.sql("postgres").lower()
        raise ExpressionError(
            f"has a cast to {written}: write numeric(p,s) of at most 18 digits, such as numeric(12,2)"
        ) from None


def names_of(node: exp.Expr) -> Iterator[str]:
    """The names of a path. PostgreSQL reads a name without quotes in lower case."""
    parts: list[exp.Expr] = []
    while type(node) is exp.Dot:
        parts.insert(0, node.expression)
        node = node.this
    parts = [*(node.parts if type(node) is exp.Column else [node]), *parts]
    for part in parts:
        if type(part) is not exp.Identifier:
            raise ExpressionError(f"has {named(part)} in the path of a column, which consists of names")
        yield part.name if part.quoted else re.sub("[A-Z]+", lambda found: found[0].lower(), part.name)


def named(node: exp.Expr) -> str:
    """What a person calls a node."""
    if (construct := _CONSTRUCTS.get(type(node))) is not None:
        return construct
    if isinstance(node, exp.Func) and not isinstance(node, exp.Connector):
        return f"the function {(node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()}()"
    return f"`{node.key}`"
