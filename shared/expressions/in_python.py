"""The values of expressions, in Python: exactly those that PostgreSQL computes (shared/expressions/in_sql.py). Pure.

Numbers are int and Decimal, dates are days and timestamps microseconds since 1970-01-01, and NULL is None. A Decimal's exponent
is PostgreSQL's display scale, on which the digits of a quotient depend.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pandas as pd

from contracts.column_types import MICROSECONDS_PER_DAY, ColumnType
from contracts.expressions import TEXT_LENGTH_MAXIMUM, Expression, Literal, Operation, ReadColumn, Type
from shared.codecs import codec_of
from shared.expressions import texts

_MICROSECONDS_PER_MINUTE = 60_000_000
_MICROSECONDS_PER_HOUR = 60 * _MICROSECONDS_PER_MINUTE
_EPOCH = dt.date(1970, 1, 1).toordinal()
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097  # after which the calendar repeats itself, days of the week included
_EXACT = decimal.Context(prec=200_000, rounding=ROUND_HALF_UP)  # more digits than any number of an expression has
_QUOTIENT_DIGITS, _QUOTIENT_SCALE_MAXIMUM, _DIGITS_PER_PLACE = 16, 1_000, 4  # PostgreSQL's (numeric.c, select_div_scale)
Values = list[Any]


def computed(expression: Expression, series: Mapping[ReadColumn, pd.Series], row_count: int) -> Values:
    """The value of an expression for each row, whose columns are given in their form in a data frame."""
    with decimal.localcontext(_EXACT):
        return _values(expression, {column: _read(column, one) for column, one in series.items()}, row_count)


def stored(values: Values, column_type: ColumnType) -> tuple[Values, list[bool]]:
    """Values in their form in a data frame of the type, rounded to its scale, and which of them do not fit it."""
    scale, fitting = column_type.scale, column_type.unscaled
    if fitting is None:
        return values, [False] * len(values)
    with decimal.localcontext(_EXACT):
        scaled = [None if value is None else int(_round(value, scale).scaleb(scale)) for value in values]
    unfit = [value is not None and value not in fitting for value in scaled]
    return [None if is_unfit else value for value, is_unfit in zip(scaled, unfit, strict=True)], unfit


def unreadable(column: ReadColumn, values: pd.Series) -> tuple[str, pd.Series] | None:
    """Why an expression does not compute with some values of a column, and which; None if it does with all."""
    if column.type in {Type.TEXT, Type.JSON}:
        return (
            f"reads '{column.name}', which is longer than {TEXT_LENGTH_MAXIMUM:,} characters",
            values.str.len() > TEXT_LENGTH_MAXIMUM,
        )
    limits = codec_of(column.column_type).limits
    if limits is None:
        return None
    return f"reads '{column.name}', which is outside the years 0001 to 9999", values.notna() & ~values.between(*limits).fillna(
        value=False
    )


def _read(column: ReadColumn, series: pd.Series) -> Values:
    values = [None if is_missing else value for value, is_missing in zip(series.tolist(), series.isna(), strict=True)]
    if column.type is Type.DECIMAL:
        return [None if value is None else Decimal(value).scaleb(-column.column_type.scale) for value in values]
    return values


def _values(expression: Expression, read: Mapping[ReadColumn, Values], row_count: int) -> Values:
    match expression:
        case ReadColumn():
            return read[expression]
        case Literal():
            return [_constant(expression)] * row_count
        case Operation(name, arguments):
            if name == "divide" and expression.type is Type.WHOLE:
                name = "divide_whole"
            rows = zip(*(_values(argument, read, row_count) for argument in arguments), strict=True)
            if (with_null := WITH_NULL.get(name)) is not None:
                return [with_null(*row) for row in rows]
            function = STRICT[name]
            return [None if None in row else function(*row) for row in rows]


def _constant(literal: Literal) -> Any:
    match literal.value:
        case dt.datetime() as moment:
            return (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)  # noqa: DTZ001 (the source's have no time zone)
        case dt.date() as day:
            return day.toordinal() - _EPOCH
        case value:
            return value


def _round(value: Decimal | int, scale: int) -> Decimal:
    """Half away from zero, as PostgreSQL rounds a numeric."""
    return Decimal(value).quantize(Decimal(1).scaleb(-scale))


def _quotient(one: Decimal | int, other: Decimal | int) -> Decimal:
    """A quotient with as many decimals as PostgreSQL's: 16 significant digits or more, and no fewer than its operands."""
    one, other = Decimal(one), Decimal(other)
    scales = [-int(value.as_tuple().exponent) for value in (one, other)]
    (place, first), (other_place, other_first) = _first_digit(one), _first_digit(other)
    place -= other_place + (first <= other_first)
    scale = min(max(_QUOTIENT_DIGITS - place * _DIGITS_PER_PLACE, *scales, 0), _QUOTIENT_SCALE_MAXIMUM)
    above, below = (
        int(abs(one).scaleb(scales[0])) * 10 ** (scale + scales[1]),
        int(abs(other).scaleb(scales[1])) * 10 ** scales[0],
    )
    digits = (2 * above + below) // (2 * below)
    return Decimal(-digits if (one < 0) is not (other < 0) else digits).scaleb(-scale)


def _first_digit(value: Decimal) -> tuple[int, int]:
    """The place and the value of the first digit that is not zero, of a number with 10,000 as its base; of zero, zero."""
    if not value:
        return 0, 0
    place = value.adjusted() // _DIGITS_PER_PLACE
    return place, int(abs(value).scaleb(-place * _DIGITS_PER_PLACE))


def _whole_quotient(one: int, other: int) -> int:
    """Towards zero."""
    return abs(one) // abs(other) * (1 if (one < 0) is (other < 0) else -1)


def _date(days: int) -> tuple[dt.date, int]:
    """The date, in years that Python has, and the years to add."""
    cycles, rest = divmod(days + _EPOCH - 1, _CYCLE_DAYS)
    return dt.date.fromordinal(rest + 1), cycles * _CYCLE_YEARS


def _year(days: int) -> int:
    """The year as PostgreSQL extracts it: before the year 1 comes -1."""
    date, years = _date(days)
    year = date.year + years
    return year if year > 0 else year - 1


def _first_of(months: int) -> Callable[[int], int]:
    """The first day of the period of that many months that a day is in."""

    def first(days: int) -> int:
        date, _ = _date(days)
        start = date.replace(month=(date.month - 1) // months * months + 1, day=1)
        return days - (date - start).days

    return first


def _and(one: bool | None, other: bool | None) -> bool | None:  # noqa: FBT001
    return False if one is False or other is False else None if one is None or other is None else True


def _or(one: bool | None, other: bool | None) -> bool | None:  # noqa: FBT001
    return True if one is True or other is True else None if one is None or other is None else False


def _case(*arguments: Any) -> Any:
    pairs = zip(arguments[:-1:2], arguments[1:-1:2], strict=True)
    return next((value for condition, value in pairs if condition is True), arguments[-1])


# Operations that see NULL.
WITH_NULL: Mapping[str, Callable[..., Any]] = {
    "concat": lambda *texts: "".join(text for text in texts if text is not None),
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "nullif": lambda one, other: None if one is not None and one == other else one,
    "case": _case,
    "is_null": lambda value: value is None,
    "and": _and,
    "or": _or,
}
# Operations that give NULL if an argument is NULL.
STRICT: Mapping[str, Callable[..., Any]] = {
    "add": lambda one, other: one + other,
    "subtract": lambda one, other: one - other,
    "multiply": lambda one, other: one * other,
    "divide": _quotient,
    "divide_whole": _whole_quotient,
    "negate": lambda value: -value,
    "abs": abs,
    "sign": lambda value: (value > 0) - (value < 0),
    "round": _round,
    "whole": lambda value: int(_round(value, 0)),
    "digits": str,
    "join": lambda one, other: one + other,
    "length": len,
    "left": lambda text, count: text[:count],
    "right": lambda text, count: text[-count:] if count else "",
    "substring": lambda text, start, count: text[start - 1 :][:count],
    "trim": lambda text: text.strip(" "),
    "ltrim": lambda text: text.lstrip(" "),
    "rtrim": lambda text: text.rstrip(" "),
    "replace": lambda text, old, new: text.replace(old, new),
    "equal": lambda one, other: one == other,
    "unequal": lambda one, other: one != other,
    "less": lambda one, other: one < other,
    "less_or_equal": lambda one, other: one <= other,
    "greater": lambda one, other: one > other,
    "greater_or_equal": lambda one, other: one >= other,
    "in": lambda value, *among: value in among,
    "not": lambda value: not value,
    "add_days": lambda days, count: days + count,
    "days_between": lambda one, other: one - other,
    "date": lambda moment: moment // MICROSECONDS_PER_DAY,
    "at_utc": lambda instant: instant,
    "json_part": texts.json_part,
    "json_text": texts.json_text,
    "array_length": texts.array_length,
    "cardinality": texts.cardinality,
    **dict.fromkeys(("cast_whole", "try_cast_whole"), texts.whole),
    **dict.fromkeys(("cast_decimal", "try_cast_decimal"), texts.decimal),
    **dict.fromkeys(("cast_date", "try_cast_date"), texts.date),
    "extract_year": _year,
    "extract_quarter": lambda days: (_date(days)[0].month + 2) // 3,
    "extract_month": lambda days: _date(days)[0].month,
    "extract_day": lambda days: _date(days)[0].day,
    "extract_dow": lambda days: _date(days)[0].isoweekday() % 7,
    "extract_hour": lambda moment: moment % MICROSECONDS_PER_DAY // _MICROSECONDS_PER_HOUR,
    "extract_minute": lambda moment: moment % _MICROSECONDS_PER_HOUR // _MICROSECONDS_PER_MINUTE,
    "first_of_month": _first_of(1),
    "first_of_quarter": _first_of(3),
    "first_of_year": _first_of(12),
}
