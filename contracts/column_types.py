"""The PostgreSQL types a contract may use, and what may become what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, unique

MICROSECONDS_PER_DAY = 86_400_000_000  # of the whole numbers that moments travel as
MAX_SCALED_DIGITS = 18  # the digits that every int64 can hold: an exact decimal travels as a scaled int64


@unique
class Kind(StrEnum):
    """Families of types; the values of a family have one physical form in Parquet."""

    INTEGER = "integer"
    BIGINT = "bigint"
    NUMERIC = "numeric"
    TEXT = "text"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    ENUM = "enum"
    TIMESTAMPTZ = "timestamptz"
    VERBATIM = "verbatim"  # any other type: it travels as the text that PostgreSQL makes of it and can read again


# The spellings of format_type(): names, quoted where necessary, with or without a schema; bounds; words; an array. They hold no
# semicolon, and no quote outside a quoted name, so none can end the statement that contains it.
_NAME = r'(?:[a-z_][a-z0-9_$]*|"(?:[^"\x00]|"")+")'
_TYPE_NAME = re.compile(rf"{_NAME}(\.{_NAME})?( [a-z]+)*(\(-?\w+(,-?\w+)*\))?( [a-z]+)*(\[\])?")
_DECIMAL_NAME = re.compile(r"numeric(\(\d+,-?\d+\))?")
_IN_A_SCHEMA = re.compile(rf"{_NAME}\.(?={_NAME})")


def is_same_type(one: str, other: str) -> bool:
    """Whether two spellings name one type; format_type() omits the schema of a type on the search path."""
    if _IN_A_SCHEMA.match(one) and _IN_A_SCHEMA.match(other):
        return one == other
    return _IN_A_SCHEMA.sub("", one, count=1) == _IN_A_SCHEMA.sub("", other, count=1)


@dataclass(frozen=True, slots=True)
class ColumnType:
    """One PostgreSQL type. A TIMESTAMP is without time zone and means UTC."""

    kind: Kind
    precision: int = 0  # of a NUMERIC: digits in all
    scale: int = 0  # of a NUMERIC: digits after the decimal point
    length: int = 0  # of a TEXT: the most code points; 0 if unbounded
    labels: tuple[str, ...] = ()  # of an ENUM: those known when the contract was written
    name: str = ""  # of a VERBATIM: the type as PostgreSQL's format_type() spells it

    def __post_init__(self) -> None:
        if self.kind is Kind.VERBATIM and not _TYPE_NAME.fullmatch(self.name):
            raise ValueError(
                f"'{self.name}' is not a type as written by format_type(), such as 'jsonb', 'integer[]' or 'public.citext'; "
                "copy the spelling from psql's \\d"
            )
        if self.kind is Kind.NUMERIC and not 0 < self.precision <= MAX_SCALED_DIGITS:
            raise ValueError(
                f"numeric({self.precision},{self.scale}) is beyond the {MAX_SCALED_DIGITS} digits that travel as a number; "
                f"declare a precision from 1 to {MAX_SCALED_DIGITS}, or verbatim('numeric({self.precision},{self.scale})')"
            )

    @property
    def sql(self) -> str:
        """The type as a warehouse column declares it. An enum becomes varchar: a new label must not stop a load."""
        if self.kind is Kind.NUMERIC:
            return f"numeric({self.precision},{self.scale})"
        if self.kind is Kind.ENUM:
            return "varchar"
        if self.kind is Kind.TEXT:
            return f"varchar({self.length})" if self.length else "varchar"
        return _SQL.get(self.kind, self.family)

    @property
    def unbounded_sql(self) -> str:
        """The type as SQL, without bounds: varchar(3) would cut a key to that of another row, numeric(5,2) refuse it."""
        return "text" if self.is_text else "numeric" if self.is_decimal else self.sql

    @property
    def family(self) -> str:
        """The type without its bounds."""
        return self.name or str(self.kind.value)

    @property
    def is_text(self) -> bool:
        """Whether the values are character strings."""
        return self.kind in {Kind.TEXT, Kind.ENUM}

    @property
    def is_verbatim(self) -> bool:
        """Whether the values travel as the texts that PostgreSQL makes of them."""
        return self.kind is Kind.VERBATIM

    @property
    def is_moment(self) -> bool:
        """Whether the values are dates or timestamps, which travel as whole numbers and identify a row as text."""
        return self.kind in {Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}

    @property
    def is_decimal(self) -> bool:
        """Whether the values are numerics: scaled whole numbers, or texts where they have no bounds or too many digits."""
        return self.kind is Kind.NUMERIC or (self.is_verbatim and _DECIMAL_NAME.fullmatch(self.name) is not None)

    @property
    def may_be_key(self) -> bool:
        """Whether values can identify a row: they order pages, and one text names all that are equal."""
        return self.is_whole_number or self.is_text or self.is_moment or self.is_decimal or self in {BOOLEAN, UUID}

    @property
    def is_whole_number(self) -> bool:
        """Whether a key holds the values as numbers; every other type it holds as the text that PostgreSQL renders."""
        return self.kind in {Kind.INTEGER, Kind.BIGINT}

    @property
    def unscaled(self) -> range | None:
        """The whole numbers that the values of a number type travel as; None for any other type."""
        bits = {Kind.INTEGER: 31, Kind.BIGINT: 63}.get(self.kind)
        if bits is not None:
            return range(-(2**bits), 2**bits)
        return range(1 - 10**self.precision, 10**self.precision) if self.kind is Kind.NUMERIC else None

    @property
    def travels_as_text(self) -> bool:
        """Whether the physical form of the values is a text; that of every other type is a whole number or a boolean."""
        return self.is_text or self.is_verbatim


_SQL = {Kind.TIMESTAMP: "timestamp(6)", Kind.TIMESTAMPTZ: "timestamp(6) with time zone"}

INTEGER = ColumnType(Kind.INTEGER)
BIGINT = ColumnType(Kind.BIGINT)
TEXT = ColumnType(Kind.TEXT)
BOOLEAN = ColumnType(Kind.BOOLEAN)
DATE = ColumnType(Kind.DATE)
TIME = ColumnType(Kind.TIME)
TIMESTAMP = ColumnType(Kind.TIMESTAMP)
TIMESTAMPTZ = ColumnType(Kind.TIMESTAMPTZ)
UUID = ColumnType(Kind.VERBATIM, name="uuid")
JSONB = ColumnType(Kind.VERBATIM, name="jsonb")
BYTEA = ColumnType(Kind.VERBATIM, name="bytea")


def numeric(precision: int, scale: int) -> ColumnType:
    """An exact decimal of `precision` digits, `scale` of them after the point."""
    return ColumnType(Kind.NUMERIC, precision=precision, scale=scale)


def varchar(length: int) -> ColumnType:
    """Text of at most `length` code points."""
    return ColumnType(Kind.TEXT, length=length)


def enum(*labels: str) -> ColumnType:
    """An enum with these labels."""
    return ColumnType(Kind.ENUM, labels=labels)


def verbatim(name: str) -> ColumnType:
    """Any type that both databases have, as format_type() spells it: 'inet', 'integer[]', 'extensions.citext', '"Role"[]'.

    Without bounds it accepts the type with any bounds: 'numeric' accepts numeric(20,2).
    """
    return ColumnType(Kind.VERBATIM, name=name)
