"""What an expression consists of: its nodes, the columns that it reads, and the texts that it casts. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.expressions import Expression, Operation, ReadColumn, Type

_ANY_FORM = frozenset({Type.OPAQUE, Type.INSTANT, Type.JSON, Type.ARRAY})
_CASTS = frozenset({"cast_whole", "cast_decimal", "cast_date"})


def nodes(expression: Expression) -> Iterator[Expression]:
    """Every node of a tree, each before its arguments."""
    yield expression
    if isinstance(expression, Operation):
        for argument in expression.arguments:
            yield from nodes(argument)


def columns_read(expression: Expression) -> tuple[ReadColumn, ...]:
    """The columns that an expression reads, each once, in their order."""
    return tuple(dict.fromkeys(node for node in nodes(expression) if isinstance(node, ReadColumn)))


def columns_computed(expression: Expression) -> frozenset[ReadColumn]:
    """The columns that an expression does more with than to compare them with NULL."""
    if isinstance(expression, Operation):
        compared = expression.arguments[0] if expression.name == "is_null" else None
        parts = () if isinstance(compared, ReadColumn) else expression.arguments
        return frozenset().union(*map(columns_computed, parts))
    return frozenset({expression}) if isinstance(expression, ReadColumn) else frozenset()


def needs_form(expression: Expression, column: ReadColumn) -> bool:
    """Whether a column has to travel in the form of its own type: what is only compared with NULL may as well be a text."""
    return column in columns_computed(expression) or column.type not in _ANY_FORM


def misspelled(expression: Expression) -> dict[Operation, Operation]:
    """The casts of texts, each with the condition, which is never NULL, that its text does not spell what it is cast to."""
    casts = (node for node in nodes(expression) if isinstance(node, Operation) and node.name in _CASTS)
    return {
        cast: Operation("and", (Operation("is_null", (cast,)), Operation("not", (Operation("is_null", cast.arguments),))))
        for cast in casts
    }
