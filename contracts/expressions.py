"""The expressions of derived columns and filters: a small tree whose types are checked, whatever text it was made from.

Everything here is total: each operation has a value, or NULL, for every input, because the proof is one statement over the
whole source and must never raise. Hence numbers are exact and have no bounds within an expression (a bigint does not overflow
in the middle of one): only the declared type of the column bounds what is stored, and a value that does not fit sends its row
to quarantine. The other limits here keep texts below what PostgreSQL can hold, and dates within its calendar.

contracts/expression_text.py makes trees of texts, shared/expressions/in_python.py computes their values, and in_sql.py renders
them as SQL. An operation may be in RULES only while a property test shows that the two agree.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum, unique

from contracts.column_types import MAX_SCALED_DIGITS, ColumnType, Kind

TEXT_LENGTH_MAXIMUM = 100_000  # characters of a text that an expression reads; a row with a longer one goes to quarantine
RESULT_LENGTH_MAXIMUM = 80 * TEXT_LENGTH_MAXIMUM  # four bytes each: below the 32 MiB of a value
DIGITS_MAXIMUM = 38  # of a literal
PARTS_OF_DATE, PARTS_OF_TIME, PERIODS = (
    ("year", "quarter", "month", "day", "dow"),
    ("hour", "minute"),
    ("month", "quarter", "year"),
)
PARSED_DIGITS_MAXIMUM = 30  # of a number that is read from a text, before the point and behind it
DAYS_MAXIMUM = 36_525  # of a literal added to a date: as many as a tree is deep stay within PostgreSQL's calendar


class ExpressionError(ValueError):
    """An expression breaks a rule; the text is the end of a sentence about it."""


@unique
class Type(StrEnum):
    """What an expression may be."""

    WHOLE = "a whole number"
    DECIMAL = "a decimal"
    TEXT = "a text"
    BOOLEAN = "a boolean"
    DATE = "a date"
    TIMESTAMP = "a timestamp"
    INSTANT = "a timestamptz"
    JSON = "a jsonb value"
    ARRAY = "an array"
    OPAQUE = "a value of another type"  # which may only be compared with NULL
    NULL = "NULL"


_OF_KIND = {
    Kind.INTEGER: Type.WHOLE,
    Kind.BIGINT: Type.WHOLE,
    Kind.NUMERIC: Type.DECIMAL,
    Kind.TEXT: Type.TEXT,
    Kind.ENUM: Type.TEXT,
    Kind.BOOLEAN: Type.BOOLEAN,
    Kind.DATE: Type.DATE,
    Kind.TIMESTAMP: Type.TIMESTAMP,
    Kind.TIMESTAMPTZ: Type.INSTANT,
}
# Arrays of these types separate elements by commas; those of a box, and of some types of extensions, by other signs.
_ARRAY_NAME = re.compile(
    r"(smallint|integer|bigint|numeric|real|double precision|text|varchar|character varying|character|char|boolean|date|time|"
    r"timestamp|timestamptz|timestamp with(out)? time zone|interval|uuid|jsonb?|inet|cidr|bytea)(\([0-9,]+\))?(\[\])+"
)
NUMBERS = frozenset({Type.WHOLE, Type.DECIMAL})


def type_of(column_type: ColumnType) -> Type:
    """What the values of a column are in an expression."""
    if column_type.name == "jsonb":
        return Type.JSON
    return Type.ARRAY if _ARRAY_NAME.fullmatch(column_type.name) else _OF_KIND.get(column_type.kind, Type.OPAQUE)


@dataclass(frozen=True, slots=True)
class ReadColumn:
    """A column that an expression reads: of the base row, or of the row of a lookup."""

    lookup: str | None  # None: the base row
    name: str
    column_type: ColumnType  # as it travels

    @property
    def type(self) -> Type:
        """What its values are."""
        return type_of(self.column_type)


Value = bool | int | Decimal | str | dt.date | dt.datetime | None


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; an integer is a whole number, a Decimal a decimal with the digits that it was written with."""

    value: Value

    def __post_init__(self) -> None:
        if isinstance(self.value, str) and "\x00" in self.value:
            raise ExpressionError("has a text that contains the character NUL, which PostgreSQL cannot hold")
        if self.type in NUMBERS and sum(map(str.isdigit, self.sql_number)) > DIGITS_MAXIMUM:
            raise ExpressionError(f"has a number of more than {DIGITS_MAXIMUM} digits")

    @property
    def sql_number(self) -> str:
        """A number in digits."""
        return f"{self.value:f}" if isinstance(self.value, Decimal) else str(self.value)

    @property
    def type(self) -> Type:
        """What the value is."""
        match self.value:
            case None:
                return Type.NULL
            case bool():
                return Type.BOOLEAN
            case int():
                return Type.WHOLE
            case Decimal():
                return Type.DECIMAL
            case str():
                return Type.TEXT
            case dt.datetime():
                return Type.TIMESTAMP
            case dt.date():
                return Type.DATE


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of RULES on its arguments. Raises: ExpressionError if it does not take them."""

    name: str
    arguments: tuple[Expression, ...]
    type: Type = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if (found := _result(self.name, self.arguments)) is None:
            given, rule = ", ".join(argument.type for argument in self.arguments), RULES[self.name]
            raise ExpressionError(f"has `{rule.spelling or self.name}` with {given}, but it takes {_takes_text(rule)}")
        object.__setattr__(self, "type", found)


Expression = ReadColumn | Literal | Operation
Arguments = tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """What an operation takes and gives."""

    arguments: tuple[frozenset[Type] | range, ...]  # the types of each; a range: a literal, a whole number in it
    result: Type | None = None  # None: the common type of its arguments
    are_alike: bool = False  # whether its arguments have a common type
    repeats: bool = False  # whether the last one may be repeated
    spelling: str = ""  # where a person does not write it as a function of its name
    hint: str = ""


def common_type(arguments: Arguments) -> Type | None:
    """The type that PostgreSQL finds for one of these values: a decimal if any number is one. None if they are of several."""
    types = {argument.type for argument in arguments}
    if types and types <= NUMBERS:
        return Type.DECIMAL if Type.DECIMAL in types else Type.WHOLE
    return types.pop() if len(types) == 1 and types <= ORDINARY else None


def _result(name: str, given: Arguments) -> Type | None:
    """The type of what an operation gives; None if it does not take these arguments."""
    rule = RULES[name]
    if name == "case":
        *_, otherwise = given
        conditions, values = given[:-1:2], (*given[1:-1:2], otherwise)
        is_fitting = len(given) % 2 == 1 and all(one.type is Type.BOOLEAN for one in conditions)
        return common_type(tuple(one for one in values if one.type is not Type.NULL)) if is_fitting else None
    wanted = rule.arguments + rule.arguments[-1:] * (len(given) - len(rule.arguments) if rule.repeats else 0)
    if len(given) != len(wanted) or not all(map(_takes, wanted, given)):
        return None
    if name == "divide" and not (
        isinstance(given[1], Operation) and given[1].name == "nullif" and _takes(range(1), given[1].arguments[1])
    ):
        return None
    if name.startswith("json") and given[1].type is Type.WHOLE and not _takes(_PLACES, given[1]):
        return None
    if (name == "replace" and given[1] == Literal("")) or (
        name in _OF_LITERALS and not all(isinstance(one, Literal) for one in given[1:])
    ):
        return None
    alike = common_type(given) if rule.result is None or rule.are_alike else rule.result
    return alike and (rule.result or alike)


def _takes(wanted: frozenset[Type] | range, given: Expression) -> bool:
    if isinstance(wanted, range):
        return isinstance(given, Literal) and given.type is Type.WHOLE and given.value in wanted
    return given.type in wanted


def _takes_text(rule: Rule) -> str:
    names = {NUMBERS: "a number", ORDINARY: "a value", _ORDERED: "a number, date, timestamp or boolean"}
    texts = [
        f"a literal from {wanted.start} to {wanted.stop - 1}"
        if isinstance(wanted, range)
        else names.get(wanted) or " or ".join(sorted(wanted))
        for wanted in rule.arguments
    ]
    return ", ".join(texts) + (", …" if rule.repeats else "") + (", of one type" if rule.are_alike else "") + rule.hint


ORDINARY = frozenset(Type) - {Type.OPAQUE, Type.NULL, Type.JSON, Type.ARRAY}
_OF_LITERALS = frozenset({"in", "replace", "json_part", "json_text"})
_BOOLEAN, _DATE, _MOMENT, _TEXT, _WHOLE, _INSTANT, _JSON, _ARRAY = (
    frozenset({one})
    for one in (Type.BOOLEAN, Type.DATE, Type.TIMESTAMP, Type.TEXT, Type.WHOLE, Type.INSTANT, Type.JSON, Type.ARRAY)
)
_ORDERED = ORDINARY - _TEXT
_PLACES = range(-(2**31), 2**31)  # of elements
_LENGTHS, _POSITIONS = range(RESULT_LENGTH_MAXIMUM + 1), range(1, RESULT_LENGTH_MAXIMUM + 1)
_PLACE = " as a literal: a key, or the place of an element"
_MISSING = " (not NULL: IS NULL; not a text for a date: DATE '2026-01-31')"
_COLLATED = " (the order of texts depends on a collation)"


def _ordered(spelling: str) -> Rule:
    return Rule((_ORDERED, _ORDERED), Type.BOOLEAN, are_alike=True, spelling=spelling, hint=_COLLATED)


RULES: Mapping[str, Rule] = {
    "add": Rule((NUMBERS, NUMBERS), spelling="+", hint="; or a date and a literal number of days"),
    "subtract": Rule((NUMBERS, NUMBERS), spelling="-", hint="; or two dates, or a date and a literal number of days"),
    "multiply": Rule((NUMBERS, NUMBERS), spelling="*"),
    "divide": Rule((NUMBERS, NUMBERS), spelling="/", hint=", the second as NULLIF(…, 0)"),
    "negate": Rule((NUMBERS,), spelling="-"),
    "abs": Rule((NUMBERS,)),
    "sign": Rule((NUMBERS,), Type.DECIMAL),
    "round": Rule((NUMBERS, range(MAX_SCALED_DIGITS + 1)), Type.DECIMAL),
    "whole": Rule((NUMBERS,), Type.WHOLE, spelling="a cast to integer"),
    "digits": Rule((_WHOLE,), Type.TEXT, spelling="a cast to text"),
    "join": Rule((_TEXT, _TEXT), Type.TEXT, spelling="||", hint=" (of a whole number: number::text)"),
    "concat": Rule((_TEXT,), Type.TEXT, repeats=True),
    "length": Rule((_TEXT,), Type.WHOLE),
    "left": Rule((_TEXT, _LENGTHS), Type.TEXT),
    "right": Rule((_TEXT, _LENGTHS), Type.TEXT),
    "substring": Rule((_TEXT, _POSITIONS, _LENGTHS), Type.TEXT),
    "trim": Rule((_TEXT,), Type.TEXT),
    "ltrim": Rule((_TEXT,), Type.TEXT),
    "rtrim": Rule((_TEXT,), Type.TEXT),
    "replace": Rule(
        (_TEXT, _TEXT, _TEXT), Type.TEXT, hint=", of which the second and the third are literals, and the second is not empty"
    ),
    "coalesce": Rule((ORDINARY,), are_alike=True, repeats=True),
    "nullif": Rule((ORDINARY, ORDINARY), are_alike=True),
    "case": Rule((_BOOLEAN, ORDINARY), repeats=True, spelling="CASE", hint=": booleans as conditions, and values of one type"),
    "equal": Rule((ORDINARY, ORDINARY), Type.BOOLEAN, are_alike=True, spelling="=", hint=_MISSING),
    "unequal": Rule((ORDINARY, ORDINARY), Type.BOOLEAN, are_alike=True, spelling="<>", hint=_MISSING),
    "less": _ordered("<"),
    "less_or_equal": _ordered("<="),
    "greater": _ordered(">"),
    "greater_or_equal": _ordered(">="),
    "in": Rule(
        (ORDINARY, ORDINARY), Type.BOOLEAN, are_alike=True, repeats=True, spelling="IN", hint=", all but the first as literals"
    ),
    "is_null": Rule((frozenset(Type),), Type.BOOLEAN, spelling="IS NULL"),
    "and": Rule((_BOOLEAN, _BOOLEAN), Type.BOOLEAN, spelling="AND"),
    "or": Rule((_BOOLEAN, _BOOLEAN), Type.BOOLEAN, spelling="OR"),
    "not": Rule((_BOOLEAN,), Type.BOOLEAN, spelling="NOT"),
    "add_days": Rule((_DATE, range(-DAYS_MAXIMUM, DAYS_MAXIMUM + 1)), Type.DATE, spelling="+ or -"),
    "days_between": Rule((_DATE, _DATE), Type.WHOLE, spelling="-"),
    "date": Rule((_MOMENT,), Type.DATE, spelling="a cast to date"),
    "at_utc": Rule((_INSTANT,), Type.TIMESTAMP, spelling="AT TIME ZONE"),
    "json_part": Rule((_JSON, _TEXT | _WHOLE), Type.JSON, spelling="->", hint=_PLACE),
    "json_text": Rule((_JSON, _TEXT | _WHOLE), Type.TEXT, spelling="->>", hint=_PLACE),
    "array_length": Rule((_ARRAY,), Type.WHOLE, hint=" and 1, the first dimension"),
    "cardinality": Rule((_ARRAY,), Type.WHOLE),
    # What a text spells, or NULL. Where the first three find nothing in a text, the row is refused: see misspelled().
    **{f"{how}_whole": Rule((_TEXT,), Type.WHOLE, spelling=f"{how} to integer") for how in ("cast", "try_cast")},
    **{f"{how}_decimal": Rule((_TEXT,), Type.DECIMAL, spelling=f"{how} to numeric") for how in ("cast", "try_cast")},
    **{f"{how}_date": Rule((_TEXT,), Type.DATE, spelling=f"{how} to date") for how in ("cast", "try_cast")},
    **{f"extract_{part}": Rule((_DATE,), Type.DECIMAL, spelling=f"extract({part} …)") for part in PARTS_OF_DATE},
    **{f"extract_{part}": Rule((_MOMENT,), Type.DECIMAL, spelling=f"extract({part} …)") for part in PARTS_OF_TIME},
    **{f"first_of_{part}": Rule((_DATE,), Type.DATE, spelling=f"date_trunc('{part}', …)::date") for part in PERIODS},
}
