"""Expressions as SQL over the source, from the checked tree alone: names are quoted and literals escaped. Pure text.

Whole numbers are numerics of scale 0, so that nothing overflows, and texts have the collation "C", so that `=` compares their
bytes. Every statement that contains a value has to exclude `unreadable` rows first, for which PostgreSQL might raise.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from contracts.column_types import ColumnType, Kind
from contracts.contract import Contract
from contracts.expression_parts import columns_computed, columns_read, misspelled
from contracts.expressions import PARSED_DIGITS_MAXIMUM, TEXT_LENGTH_MAXIMUM, Expression, Literal, Operation, ReadColumn, Type
from contracts.tables import RemodelledTable
from shared.codecs import codec_of
from shared.codecs.codec import VALUE_BYTES_MAXIMUM
from shared.equality import source_value
from shared.sql import literal

Reader = Callable[[ReadColumn], str]  # the SQL for a column's value, a text in its compared form
_FIRST_MOMENT, _AFTER_LAST = "'0001-01-01'", "'10000-01-01'"


def _spelled(pattern: str) -> str:
    """A number that a text spells. The text is computed once, although it is compared first."""
    pattern = pattern.replace("%d", str(PARSED_DIGITS_MAXIMUM))
    return f"(SELECT CASE WHEN v ~ '{pattern}' THEN v::numeric END FROM (SELECT btrim({{0}}, ' ') AS v OFFSET 0) AS s)"


# The last day of a month is that before the first of the next one.
_DATE = (
    "(SELECT CASE WHEN v ~ '^[0-9]{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$' AND v !~ '^0000' THEN "
    "CASE WHEN substr(v, 9)::integer <= EXTRACT(day FROM "
    "make_date(substr(v, 1, 4)::integer, substr(v, 6, 2)::integer, 1) + interval '1 month' - interval '1 day') "
    "THEN make_date(substr(v, 1, 4)::integer, substr(v, 6, 2)::integer, substr(v, 9)::integer) END END "
    "FROM (SELECT {0} AS v OFFSET 0) AS s)"
)

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
    "is_null": "({0} IS NOT DISTINCT FROM NULL)",  # to IS NULL, a row whose fields are all NULL is NULL
    "and": "({0} AND {1})",
    "or": "({0} OR {1})",
    "not": "(NOT {0})",
    "add_days": "({0} + {1}::integer)",
    "days_between": "({0} - {1})::numeric",
    "date": "({0})::date",
    "at_utc": "({0} AT TIME ZONE 'UTC')",
    "array_length": "array_length({0}, 1)::numeric",
    "cardinality": "cardinality({0})::numeric",
    **{f"{how}_whole": _spelled("^[+-]?[0-9]{{1,%d}}$") for how in ("cast", "try_cast")},
    **{f"{how}_decimal": _spelled("^[+-]?[0-9]{{1,%d}}(\\.[0-9]{{1,%d}})?$") for how in ("cast", "try_cast")},
    **{f"{how}_date": _DATE for how in ("cast", "try_cast")},
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
        case Operation("json_part" | "json_text" as name, (document, Literal(place))):
            sign = "->" if name == "json_part" else "->>"
            return f"({rendered(document, read)} {sign} {literal(place) if isinstance(place, str) else f'({place})'})"
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
        case Kind.DATE | Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return value, f"({value} >= {_FIRST_MOMENT} AND {value} < {_AFTER_LAST})"
        case _:
            return value, "true"


def is_accepted(contract: Contract, table: RemodelledTable, alias: str) -> str:
    """Whether the filter of `table` accepts the base row called `alias`; never NULL.

    A row with a value that the filter does not read is accepted: its batch refuses it, and the star keeps what it has. Of a
    value that is only compared with NULL nothing is read, and every value that cannot travel is one.
    """
    if table.where is None:
        return "true"

    def read(column: ReadColumn) -> str:
        return source_value(contract, table.source, column.name, alias)

    obstacles = [condition for column in columns_computed(table.where) for condition in _obstacles(column, read(column))]
    unread, accepted = _any(obstacles), rendered(table.where, read)
    if spelled := [rendered(condition, read) for condition in misspelled(table.where).values()]:
        accepted = f"CASE WHEN {_any(spelled)} THEN true ELSE {accepted} END"
    return f"CASE WHEN {unread} THEN true ELSE coalesce({accepted}, false) END"


def unreadable(expression: Expression, read: Reader) -> str:
    """Whether an expression reads a value that cannot travel, or is beyond what expressions compute with; never NULL.

    Also whether a text is misspelled that it casts, which is asked only of texts that it reads.
    """
    valued = columns_computed(expression)
    obstacles = [
        one for column in columns_read(expression) for one in _obstacles(column, read(column), is_computed=column in valued)
    ]
    spelled = [rendered(condition, read) for condition in misspelled(expression).values()]
    return f"CASE WHEN {_any(obstacles)} THEN true ELSE {_any(spelled)} END" if spelled else _any(obstacles)


def _any(conditions: Sequence[str]) -> str:
    return f"coalesce({' OR '.join(conditions)}, false)" if conditions else "false"


def _obstacles(column: ReadColumn, value: str, *, is_computed: bool = True) -> list[str]:
    codec = codec_of(column.column_type)
    found = [condition for condition, _ in codec.defects(value)]
    if is_computed and column.type in {Type.TEXT, Type.JSON}:
        return [*found, f"length(({value})::text) > {TEXT_LENGTH_MAXIMUM}"]
    if is_computed and codec.limits is not None:
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
