"""Derived columns: a text, a declared type, and whether the values may be NULL. Limits keep each expression computable."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from contracts.expression_parts import nodes
from contracts.expression_text import DEPTH_MAXIMUM, TOO_DEEP, parsed
from contracts.expressions import (
    RESULT_LENGTH_MAXIMUM,
    TEXT_LENGTH_MAXIMUM,
    Expression,
    ExpressionError,
    Literal,
    Operation,
    ReadColumn,
    Type,
)

NODES_MAXIMUM = 200
_NUMBER_LENGTH = 20_000  # more digits than any number of a tree of this size has


def derived(text: str, find: Callable[[tuple[str, ...]], tuple[ReadColumn, bool]]) -> tuple[Expression, bool]:
    """The expression of a text, and whether it may be NULL; `find` finds a column by its path, and whether it may be NULL.

    Raises: ExpressionError; whatever `find` raises.
    """
    nullable: dict[tuple[str | None, str], bool] = {}

    def column(path: tuple[str, ...]) -> ReadColumn:
        found, nullable[found.lookup, found.name] = find(path)
        return found

    try:
        expression = checked(parsed(text, column))
    except RecursionError:
        raise ExpressionError(TOO_DEEP) from None
    return expression, may_be_null(expression, lambda column: nullable[column.lookup, column.name])


def checked(expression: Expression) -> Expression:
    """The expression. Raises: ExpressionError if it is too large."""
    if sum(1 for _ in islice(nodes(expression), NODES_MAXIMUM + 1)) > NODES_MAXIMUM:  # what CASE and BETWEEN repeat grows fast
        raise ExpressionError(f"has more than {NODES_MAXIMUM} operations, columns and literals")
    if _depth(expression) > DEPTH_MAXIMUM:
        raise ExpressionError(TOO_DEEP)
    longest = max(_length(node) for node in nodes(expression))
    if longest > RESULT_LENGTH_MAXIMUM:
        raise ExpressionError(
            f"could make a text of {longest:,} characters from texts of {TEXT_LENGTH_MAXIMUM:,}; "
            f"at most {RESULT_LENGTH_MAXIMUM:,} are allowed: shorten them by left()"
        )
    return expression


def _depth(expression: Expression) -> int:
    return 1 + max(map(_depth, expression.arguments), default=0) if isinstance(expression, Operation) else 1


def _length(expression: Expression) -> int:
    """The characters that the text which it makes may have; 0 of another value."""
    if expression.type is not Type.TEXT:
        return 0
    match expression:
        case ReadColumn():
            return TEXT_LENGTH_MAXIMUM
        case Literal(value=value):
            return len(str(value))
        case Operation("join" | "concat", arguments):
            return sum(map(_length, arguments))
        case Operation("replace", (first, Literal(value=old), Literal(value=new))):
            return _length(first) * max(1, -(-len(str(new)) // len(str(old))))
        case Operation("left" | "right", (first, Literal(value=int(count)))):
            return min(_length(first), count)
        case Operation("digits"):
            return _NUMBER_LENGTH
        case Operation("json_text"):
            return TEXT_LENGTH_MAXIMUM
        case Operation(_, arguments):
            return max(map(_length, arguments))


def may_be_null(expression: Expression, nullable: Callable[[ReadColumn], bool]) -> bool:
    """Whether an expression may be NULL, if the columns for which `nullable` is true may; true in doubt."""
    match expression:
        case ReadColumn():
            return nullable(expression)
        case Literal(value=value):
            return value is None
        case Operation("is_null" | "concat"):
            return False
        case Operation("nullif" | "json_part" | "json_text" | "array_length"):
            return True
        case Operation(name) if name.startswith("try_"):
            return True
        case Operation("coalesce", arguments):
            return all(may_be_null(one, nullable) for one in arguments)
        case Operation("case", arguments):
            return any(may_be_null(one, nullable) for one in (*arguments[1:-1:2], arguments[-1]))
        case Operation(_, arguments):
            return any(may_be_null(one, nullable) for one in arguments)
