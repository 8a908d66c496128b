"""Expressions as SQL over the source, from the checked tree alone: names are quoted and literals escaped. Pure text.

Whole numbers are numerics of scale 0, so that nothing overflows, and texts have the collation "C", so that `=` compares their
bytes. Every statement that contains a value has to exclude `unreadable` rows first, for which PostgreSQL might raise.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

from contracts.column_types import ColumnType, Kind
from contracts.contract import Contract
from contracts.expressions import TEXT_LENGTH_MAXIMUM, Expression, Literal, Operation, ReadColumn, Type, columns_read
from contracts.tables import RemodelledTable
from shared.codecs import codec_of
from shared.codecs.codec import VALUE_BYTES_MAXIMUM
from shared.equality import source_value
from shared.sql import literal

Reader = Callable[[ReadColumn], str]  # the SQL for a column's value, a text in its compared form
_FIRST_MOMENT, _AFTER_LAST = "'0001-01-01'", "'10000-01-01'"

RENDERED: Mapping[str, str] = {
    "add": "({0} + {1})",
    "subtract": "({0} - {1})",
    "multiply": "({0} * {1})",
    "divide": "({0} / {1})",
    "divide_whole": "div({0}, {1})",
    "negate": "(- {0})",
    "abs": "abs({0})",
    "sign": "sign({0})",
    "round": "round({0}, {1}::integer)",
    "whole": "round({0}, 0)",
    "digits": "({0})::text",
    "join": "({0} || {1})",
    "length": "length({0})::numeric",
    "left": "left({0}, {1}::integer)",
    "right": "right({0}, {1}::integer)",
    "substring": "substr({0}, {1}::integer, {2}::integer)",
    "trim": "btrim({0}, ' ')",
    "ltrim": "ltrim({0}, ' ')",
    "rtrim": "rtrim({0}, ' ')",
    "replace": "replace({0}, {1}, {2})",
    "nullif": "NULLIF({0}, {1})",
    "equal": "({0} = {1})",
    "unequal": "({0} <> {1})",
    "less": "({0} < {1})",
    "less_or_equal": "({0} <= {1})",
    "greater": "({0} > {1})",
    "greater_or_equal": "({0} >= {1})",
    "is_null": "({0} IS NULL)",
    "and": "({0} AND {1})",
    "or": "({0} OR {1})",
    "not": "(NOT {0})",
    "add_days": "({0} + {1}::integer)",
    "days_between": "({0} - {1})::numeric",
    "date": "({0})::date",
    **{
        f"extract_{part}": f"EXTRACT({part} FROM ({{0}})::timestamp)::numeric"
        for part in ("year", "quarter", "month", "day", "dow", "hour", "minute")
    },
    **{f"first_of_{part}": f"date_trunc('{part}', ({{0}})::timestamp)::date" for part in ("month", "quarter", "year")},
}


def rendered(expression: Expression, read: Reader) -> str:
    """The value of an expression as SQL; a whole number is a numeric."""
    match expression:
        case ReadColumn():
            return _column(expression, read(expression))
        case Literal():
            return _literal(expression)
        case Operation("case", arguments):
            *parts, otherwise = [rendered(argument, read) for argument in arguments]
            pairs = zip(parts[::2], parts[1::2], strict=True)
            return f"CASE {' '.join(f'WHEN {condition} THEN {value}' for condition, value in pairs)} ELSE {otherwise} END"
        case Operation("in", (value, *among)):
            return f"({rendered(value, read)} IN ({', '.join(rendered(one, read) for one in among)}))"
        case Operation("concat" | "coalesce" as name, arguments):
            return f"{name}({', '.join(rendered(argument, read) for argument in arguments)})"
        case Operation("divide", arguments, type=Type.WHOLE):
            return RENDERED["divide_whole"].format(*(rendered(argument, read) for argument in arguments))
        case Operation(name, arguments):
            return RENDERED[name].format(*(rendered(argument, read) for argument in arguments))


def stored(value: str, column_type: ColumnType) -> tuple[str, str]:
    """A computed value in its type, rounded to its scale, and the condition that it fits; otherwise the value may raise."""
    match column_type.kind:
        case Kind.INTEGER | Kind.BIGINT:
            bound = 2**31 if column_type.kind is Kind.INTEGER else 2**63
            return (
                f"round({value}, 0)::{column_type.sql}",
                f"round({value}, 0) BETWEEN -{bound}::numeric AND {bound - 1}::numeric",
            )
        case Kind.NUMERIC:
            bound = 10 ** (column_type.precision - column_type.scale)
            rounded = f"round({value}, {column_type.scale})"
            return f"{rounded}::{column_type.sql}", f"abs({rounded}) < {bound}::numeric"
        case Kind.TEXT:
            return f"{value}", f"length({value}) <= {column_type.length}" if column_type.length else "true"
        case Kind.DATE | Kind.TIMESTAMP:
            return value, f"({value} >= {_FIRST_MOMENT} AND {value} < {_AFTER_LAST})"
        case _:
            return value, "true"


def is_accepted(contract: Contract, table: RemodelledTable, alias: str) -> str:
    """Whether the filter of `table` accepts the base row called `alias`; never NULL.

    A row with a value that the filter does not read is accepted: its batch refuses it, and the star keeps what it has. Of a
    value that can only be compared with NULL nothing is read, and every value that cannot travel is one.
    """
    if table.where is None:
        return "true"

    def read(column: ReadColumn) -> str:
        return source_value(contract, table.source, column.name, alias)

    known = [column for column in columns_read(table.where) if column.type is not Type.OPAQUE]
    return f"CASE WHEN {_any_obstacle(known, read)} THEN true ELSE coalesce({rendered(table.where, read)}, false) END"


def unreadable(expression: Expression, read: Reader) -> str:
    """Whether an expression reads a value that cannot travel, or is beyond what expressions read; never NULL."""
    return _any_obstacle(columns_read(expression), read)


def _any_obstacle(found: Iterable[ReadColumn], read: Reader) -> str:
    conditions = [condition for column in found for condition in _obstacles(column, read(column))]
    return f"coalesce({' OR '.join(conditions)}, false)" if conditions else "false"


def _obstacles(column: ReadColumn, value: str) -> list[str]:
    codec = codec_of(column.column_type)
    found = [condition for condition, _ in codec.defects(value)]
    if column.type is Type.TEXT:
        return [*found, f"length({value}) > {TEXT_LENGTH_MAXIMUM}"]
    if column.type is not Type.OPAQUE and codec.limits is not None:
        return [*found, f"{value} < {_FIRST_MOMENT}", f"{value} >= {_AFTER_LAST}"]
    return [*found, f"{codec.byte_count(value)} > {VALUE_BYTES_MAXIMUM}"] if codec.is_wide else found


def _column(column: ReadColumn, value: str) -> str:
    match column.type:
        case Type.WHOLE:
            return f"({value})::numeric"
        case Type.DECIMAL:
            return f"({value})::{column.column_type.sql}"
        case Type.TEXT:
            return f'(({value})::text COLLATE "C")'
        case _:
            return f"({value})"


def _literal(constant: Literal) -> str:
    match constant.value:
        case None:
            return "NULL"
        case bool():
            return str(constant.value).lower()
        case int() | Decimal():
            return f"({constant.sql_number})::numeric"
        case str():
            return f"{literal(constant.value)}::text"
        case dt.datetime():
            return f"timestamp '{constant.value.isoformat(sep=' ')}'"
        case dt.date():
            return f"date '{constant.value.isoformat()}'"
