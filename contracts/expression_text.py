"""From the text of a derived column to the tree of contracts/expressions.py, by sqlglot's parser of PostgreSQL's SQL. Pure.

Only what is listed here gets through: a node of any other kind is refused, and so is one with a part that is not read here.
Nothing that runs is made from the text, or by sqlglot.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from contracts.column_types import ColumnType, numeric
from contracts.expressions import (
    NUMBERS,
    PARTS_OF_DATE,
    PARTS_OF_TIME,
    PERIODS,
    RESULT_LENGTH_MAXIMUM,
    Expression,
    ExpressionError,
    Literal,
    Operation,
    ReadColumn,
    Type,
)

LENGTH_MAXIMUM, DEPTH_MAXIMUM = 2_000, 30
ALLOWED = (
    "columns, literals, + - * / ||, = <> < <= > >=, AND, OR, NOT, IS NULL, IN, BETWEEN, CASE, casts to integer, bigint, "
    "numeric(p,s), text and date, and the functions abs, coalesce, concat, date_trunc, extract, left, length, ltrim, nullif, "
    "replace, right, round, rtrim, sign, substring and trim"
)
_CASTS = (
    "allowed are casts of a number to integer, bigint and numeric(p,s), of a whole number to text, of a timestamp to date, and "
    "of a literal to date and timestamp"
)
_TWO = ("this", "expression")
# The operations whose arguments are the parts of a node, in this order.
_PLAIN: Mapping[type[exp.Expr], tuple[str, tuple[str, ...]]] = {
    exp.Mul: ("multiply", _TWO),
    exp.Div: ("divide", _TWO),
    exp.DPipe: ("join", _TWO),
    exp.Concat: ("concat", ("expressions",)),
    exp.Coalesce: ("coalesce", ("this", "expressions")),
    exp.Nullif: ("nullif", _TWO),
    exp.EQ: ("equal", _TWO),
    exp.NEQ: ("unequal", _TWO),
    exp.LT: ("less", _TWO),
    exp.LTE: ("less_or_equal", _TWO),
    exp.GT: ("greater", _TWO),
    exp.GTE: ("greater_or_equal", _TWO),
    exp.In: ("in", ("this", "expressions")),
    exp.And: ("and", _TWO),
    exp.Or: ("or", _TWO),
    exp.Not: ("not", ("this",)),
    exp.Abs: ("abs", ("this",)),
    exp.Sign: ("sign", ("this",)),
    exp.Round: ("round", ("this", "decimals")),
    exp.Length: ("length", ("this",)),
    exp.Left: ("left", _TWO),
    exp.Right: ("right", _TWO),
    exp.Replace: ("replace", ("this", "expression", "replacement")),
}
_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In, exp.Between)
_FLAGS = frozenset({"safe", "typed", "coalesce", "nested"})  # on which dialects differ: PostgreSQL's way is meant, and rendered
_TRIMS = {"": "trim", "BOTH": "trim", "LEADING": "ltrim", "TRAILING": "rtrim"}
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}
_PREFIXES = {TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE}
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
Find = Callable[[tuple[str, ...]], ReadColumn]
TOO_DEEP = f"is nested more than {DEPTH_MAXIMUM} deep"


def parsed(text: str, find: Find) -> Expression:
    """The tree of a text; `find` finds a column by its path. Raises: ExpressionError, RecursionError; what `find` raises."""
    if len(text) > LENGTH_MAXIMUM:
        raise ExpressionError(f"has {len(text):,} characters, of which at most {LENGTH_MAXIMUM:,} are allowed")
    try:
        depth = run = 0
        for token in sqlglot.tokenize(text, dialect="postgres"):  # before the parser, which calls itself for each level
            depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
            run = run + 1 if token.token_type in _PREFIXES else 0
            if depth + run > DEPTH_MAXIMUM:
                raise ExpressionError(TOO_DEEP)
        return _Reader(find).read(sqlglot.parse_one(text, dialect="postgres"))
    except SqlglotError as error:
        (first, *_) = getattr(error, "errors", None) or [{}]
        place = f" at line {first['line']}, column {first['col']}" if first.get("line") else ""
        raise ExpressionError(
            f"cannot be read{place}: {first.get('description') or 'it is empty, or has an open quote'}"
        ) from None


@dataclass(frozen=True, slots=True)
class _Reader:
    find: Find

    def read(self, node: exp.Expr) -> Expression:
        """The tree of a node. Raises: ExpressionError."""
        if (plain := _PLAIN.get(type(node))) is not None:
            return Operation(plain[0], self._operands(node, *plain[1]))
        match node:
            case exp.Paren():
                return self.read(_parts(node, "this")["this"])
            case exp.Column() | exp.Dot():
                return self.find(tuple(_names(node)))
            case exp.Literal() | exp.Boolean() | exp.Null():
                return _literal(node)
            case exp.Case():
                return self._case(node)
            case exp.Cast() if type(node) is exp.Cast:
                return self._cast(node)
            case exp.Trim() | exp.Substring() | exp.Extract():
                return self._function(node)
            case _:
                return self._operator(node)

    def _operator(self, node: exp.Expr) -> Expression:
        match node:
            case exp.Neg():
                (value,) = self._operands(node, "this")
                is_number = isinstance(value, Literal) and value.type in NUMBERS
                return Literal(-value.value) if is_number else Operation("negate", (value,))  # type: ignore[operator,union-attr]
            case exp.Add() | exp.Sub():
                return _sum(*self._operands(node, *_TWO), is_sum=isinstance(node, exp.Add))
            case exp.Is(expression=exp.Null()):
                is_null = Operation("is_null", self._operands(node, "this", but=("expression", "negate")))
                return Operation("not", (is_null,)) if node.args.get("negate") else is_null
            case exp.Between():
                value, low, high = self._operands(node, "this", "low", "high")
                return Operation(
                    "and", (Operation("greater_or_equal", (value, low)), Operation("less_or_equal", (value, high)))
                )
            case _:
                raise ExpressionError(f"has {_named(node)}, which is not allowed; allowed are {ALLOWED}")

    def _function(self, node: exp.Trim | exp.Substring | exp.Extract) -> Expression:
        match node:
            case exp.Trim():
                return Operation(_TRIMS[node.args.get("position") or ""], self._operands(node, "this", but=("position",)))
            case exp.Substring():
                value, *bounds = self._operands(node, "this", "start", "length")
                return Operation("substring", (value, *bounds, Literal(RESULT_LENGTH_MAXIMUM))[:3])
            case exp.Extract():
                (value,) = self._operands(node, "expression", but=("this",))
                part = _one_of("extract", node.this.name.lower(), (*PARTS_OF_DATE, *PARTS_OF_TIME))
                return Operation(f"extract_{part}", (value if part in PARTS_OF_TIME else _day(value),))

    def _operands(self, node: exp.Expr, *names: str, but: tuple[str, ...] = ()) -> tuple[Expression, ...]:
        """The trees of the parts that are called `names`; those called `but` are read elsewhere."""
        found = _parts(node, *names, *but)
        parts = [found[name] for name in names if name in found]
        listed = [one for part in parts for one in (part if isinstance(part, list) else [part])]
        is_operator = not isinstance(node, exp.And | exp.Or | exp.Not | exp.Func) or isinstance(node, exp.In)
        for one in listed:
            if is_operator and isinstance(one, (*_COMPARISONS, exp.And, exp.Or, exp.Not)):  # parsers differ in what binds first
                raise ExpressionError(f"has {_named(one)} as a part of {_named(node)}: put it in parentheses")
        return tuple(map(self.read, listed))

    def _case(self, node: exp.Case) -> Expression:
        found = _parts(node, "this", "ifs", "default")
        subject = self.read(found["this"]) if "this" in found else None
        arguments: list[Expression] = []
        for one in found["ifs"]:
            condition, value = map(self.read, (_parts(one, "this", "true")[name] for name in ("this", "true")))
            arguments += (condition if subject is None else Operation("equal", (subject, condition)), value)
        return Operation("case", (*arguments, self.read(found["default"]) if "default" in found else Literal(None)))

    def _cast(self, node: exp.Cast) -> Expression:
        inner, to = node.this, node.args["to"]
        target = to.this.value if type(to) is exp.DataType and not to.args.get("nested") else ""
        if target == "DATE" and type(inner) is exp.TimestampTrunc:
            (value,) = self._operands(inner, "this", but=("unit",))
            return Operation(f"first_of_{_one_of('date_trunc', inner.args['unit'].name.lower(), PERIODS)}", (_day(value),))
        (value,) = self._operands(node, "this", but=("to",))
        match target, value.type:
            case (("DATE" | "TIMESTAMP"), Type.TEXT) if isinstance(value, Literal):
                return _moment(target, str(value.value))
            case (("INT" | "BIGINT"), Type.WHOLE) | ("TEXT", Type.TEXT) | ("DATE", Type.DATE):
                return value
            case (("INT" | "BIGINT"), Type.DECIMAL):
                return Operation("whole", (value,))
            case "DECIMAL", (Type.WHOLE | Type.DECIMAL):
                return Operation("round", (value, Literal(_numeric(to).scale)))
            case "DECIMAL", Type.OPAQUE if isinstance(value, ReadColumn) and value.column_type.name.startswith("numeric"):
                return replace(value, column_type=_numeric(to))  # as `type` does for a column that is copied
            case "TEXT", Type.WHOLE:
                return Operation("digits", (value,))
            case "DATE", Type.TIMESTAMP:
                return _day(value)
            case _:
                raise ExpressionError(f"has a cast of {value.type} to {to.sql('postgres').lower()}; {_CASTS}")


def _sum(one: Expression, other: Expression, *, is_sum: bool) -> Expression:
    if one.type is Type.DATE and isinstance(other, Literal) and isinstance(other.value, int) and other.type is Type.WHOLE:
        return Operation("add_days", (one, Literal(other.value if is_sum else -other.value)))
    if not is_sum and one.type is other.type is Type.DATE:
        return Operation("days_between", (one, other))
    return Operation("add" if is_sum else "subtract", (one, other))


def _day(value: Expression) -> Expression:
    """The date of a timestamp; any other value as it is."""
    return Operation("date", (value,)) if value.type is Type.TIMESTAMP else value


def _one_of(function: str, part: str, parts: tuple[str, ...]) -> str:
    if part not in parts:
        raise ExpressionError(f"has {function} of '{part}', but it takes {', '.join(parts)}")
    return part


def _parts(node: exp.Expr, *names: str) -> dict[str, Any]:
    """The parts of a node by name. Raises: ExpressionError for a part that is not expected."""
    found = {name: part for name, part in node.args.items() if part not in (None, [], False)}
    for name in found:
        if name not in names and name not in _FLAGS:
            raise ExpressionError(f"has {_named(node)} with '{name}', which is not allowed")
    return found


def _names(node: exp.Expr) -> Iterator[str]:
    """The names of a path. PostgreSQL reads a name without quotes in lower case."""
    parts: list[exp.Expr] = []
    while type(node) is exp.Dot:
        parts.insert(0, node.expression)
        node = node.this
    parts = [*(node.parts if type(node) is exp.Column else [node]), *parts]
    for part in parts:
        if type(part) is not exp.Identifier:
            raise ExpressionError(f"has {_named(part)} in the path of a column, which consists of names")
        yield part.name if part.quoted else re.sub("[A-Z]+", lambda found: found[0].lower(), part.name)


def _literal(node: exp.Expr) -> Literal:
    if isinstance(node, exp.Null):
        return Literal(None)
    if isinstance(node, exp.Boolean):
        return Literal(bool(node.this))
    if node.is_string:
        return Literal(str(node.this))
    if (found := _NUMBER.fullmatch(str(node.this))) is None:
        raise ExpressionError(f"has the number {node.this}: write it in digits, such as 1000 or 0.05")
    return Literal(Decimal(found[0]) if found[2] else int(found[0]))


def _moment(target: str, text: str) -> Literal:
    written = _MOMENT.fullmatch(text)
    try:
        if written is not None and (target == "DATE") is (written[1] is None):
            return Literal((dt.date if target == "DATE" else dt.datetime).fromisoformat(text))
    except ValueError:
        pass
    form = "YYYY-MM-DD" if target == "DATE" else "YYYY-MM-DD HH:MM:SS"
    raise ExpressionError(f"has '{text}' as a {target.lower()}: write {form}")


def _numeric(to: exp.DataType) -> ColumnType:
    """The type numeric(p,s). Raises: ExpressionError."""
    try:
        precision, scale = (int(part.name) for part in to.expressions)
        return numeric(precision, scale)
    except ValueError:
        written = to.sql("postgres").lower()
        raise ExpressionError(
            f"has a cast to {written}: write numeric(p,s) of at most 18 digits, such as numeric(12,2)"
        ) from None


def _named(node: exp.Expr) -> str:
    """What a person calls a node."""
    if (construct := _CONSTRUCTS.get(type(node))) is not None:
        return construct
    if isinstance(node, exp.Func) and not isinstance(node, exp.Connector):
        return f"the function {(node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()}()"
    return f"`{node.key}`"
