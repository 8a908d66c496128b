"""From the text of a derived column to the tree of contracts/expressions.py, by sqlglot's parser of PostgreSQL's SQL. Pure.

Only what is listed here gets through: a node of any other kind is refused, and so is one with a part that is not read here.
Nothing that runs is made from the text, or by sqlglot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from contracts.expression_words import literal, moment, named, names_of, numeric_type
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
    "columns, literals, + - * / ||, = <> < <= > >=, AND, OR, NOT, IS NULL, IN, BETWEEN, CASE, ->, ->>, AT TIME ZONE 'UTC', "
    "casts to integer, bigint, numeric(p,s), text and date, TRY_CAST of a text, and the functions abs, array_length, "
    "cardinality, coalesce, concat, date_trunc, extract, left, length, ltrim, nullif, replace, right, round, rtrim, sign, "
    "substring and trim"
)
_CASTS = (
    "allowed are casts of a number or a text to integer, bigint and numeric(p,s), of a whole number to text, of a timestamp or "
    "a text to date, and of a literal to date and timestamp"
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
# Flags on which dialects differ: PostgreSQL's way is meant, and rendered.
_FLAGS = frozenset({"safe", "typed", "coalesce", "nested", "only_json_types"})
_TRIMS = {"": "trim", "BOTH": "trim", "LEADING": "ltrim", "TRAILING": "rtrim"}
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}
_PREFIXES = {TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE}
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
                return self.find(tuple(names_of(node)))
            case exp.Literal() | exp.Boolean() | exp.Null():
                return literal(node)
            case exp.Case():
                return self._case(node)
            case exp.Cast() if type(node) in {exp.Cast, exp.TryCast}:
                return self._cast(node)
            case exp.Trim() | exp.Substring() | exp.Extract() | exp.ArraySize() | exp.Anonymous():
                return self._function(node)
            case exp.JSONExtract() | exp.JSONExtractScalar():
                return self._json(node)
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
            case exp.AtTimeZone():
                zone = node.args["zone"]
                if isinstance(zone, exp.Literal) and zone.is_string and zone.name.upper() == "UTC":
                    return Operation("at_utc", self._operands(node, "this", but=("zone",)))
                raise ExpressionError("has AT TIME ZONE with something else than 'UTC': the rules of other zones change")
            case exp.Between():
                value, low, high = self._operands(node, "this", "low", "high")
                return Operation(
                    "and", (Operation("greater_or_equal", (value, low)), Operation("less_or_equal", (value, high)))
                )
            case _:
                raise _not_allowed(node)

    def _function(self, node: exp.Expr) -> Expression:
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
            case exp.ArraySize(expression=exp.Literal(this="1", is_string=False)):
                return Operation("array_length", self._operands(node, "this", but=("expression",)))
            case exp.Anonymous() if node.name.lower() == "cardinality":
                return Operation("cardinality", self._operands(node, "expressions", but=("this",)))
            case _:
                raise _not_allowed(node)

    def _json(self, node: exp.JSONExtract | exp.JSONExtractScalar) -> Expression:
        (document,) = self._operands(node, "this", but=("expression",))
        match node.expression:
            case exp.JSONPath(expressions=[_, exp.JSONPathKey(this=str(place))]):
                found = Literal(place)
            case exp.JSONPath(expressions=[_, exp.JSONPathSubscript(this=int(number))]):
                found = Literal(number)
            case exp.Neg(this=exp.Literal(is_string=False) as number) if number.name.isdecimal():
                found = Literal(-int(number.name))
            case other:
                raise ExpressionError(f"has {named(other)} behind -> or ->>, which take a literal: a key or a place")
        return Operation("json_text" if isinstance(node, exp.JSONExtractScalar) else "json_part", (document, found))

    def _operands(self, node: exp.Expr, *names: str, but: tuple[str, ...] = ()) -> tuple[Expression, ...]:
        """The trees of the parts that are called `names`; those called `but` are read elsewhere."""
        found = _parts(node, *names, *but)
        parts = [found[name] for name in names if name in found]
        listed = [one for part in parts for one in (part if isinstance(part, list) else [part])]
        is_operator = not isinstance(node, exp.And | exp.Or | exp.Not | exp.Func) or isinstance(node, exp.In)
        for one in listed:
            if is_operator and isinstance(one, (*_COMPARISONS, exp.And, exp.Or, exp.Not)):  # parsers differ in what binds first
                raise ExpressionError(f"has {named(one)} as a part of {named(node)}: put it in parentheses")
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
        if value.type is Type.TEXT and (spelled := _spelled(node, target, value)) is not None:
            return spelled
        match target, value.type:
            case (("DATE" | "TIMESTAMP"), Type.TEXT) if isinstance(value, Literal):
                return moment(target, str(value.value))
            case (("INT" | "BIGINT"), Type.WHOLE) | ("TEXT", Type.TEXT) | ("DATE", Type.DATE):
                return value
            case (("INT" | "BIGINT"), Type.DECIMAL):
                return Operation("whole", (value,))
            case "DECIMAL", (Type.WHOLE | Type.DECIMAL):
                return Operation("round", (value, Literal(numeric_type(to).scale)))
            case "DECIMAL", Type.OPAQUE if isinstance(value, ReadColumn) and value.column_type.name.startswith("numeric"):
                return replace(value, column_type=numeric_type(to))  # as `type` does for a column that is copied
            case "TEXT", Type.WHOLE:
                return Operation("digits", (value,))
            case "DATE", Type.TIMESTAMP:
                return _day(value)
            case _:
                raise ExpressionError(f"has a cast of {value.type} to {to.sql('postgres').lower()}; {_CASTS}")


def _spelled(node: exp.Cast, target: str, value: Expression) -> Expression | None:
    """What a text spells that is cast to a number or a date; None for every other cast."""
    how = "try_cast" if type(node) is exp.TryCast else "cast"
    match target:
        case "INT" | "BIGINT":
            return Operation(f"{how}_whole", (value,))
        case "DECIMAL":
            return Operation("round", (Operation(f"{how}_decimal", (value,)), Literal(numeric_type(node.args["to"]).scale)))
        case "DATE" if how == "try_cast" or not isinstance(value, Literal):
            return Operation(f"{how}_date", (value,))
        case _:
            return None


def _not_allowed(node: exp.Expr) -> ExpressionError:
    return ExpressionError(f"has {named(node)}, which is not allowed; allowed are {ALLOWED}")


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
            raise ExpressionError(f"has {named(node)} with '{name}', which is not allowed")
    return found
