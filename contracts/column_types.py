"""The PostgreSQL types a contract may use, and what may become what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

MAX_SCALED_DIGITS = 18  # the digits that every int64 can hold: an exact decimal travels as a scaled int64


@unique
class Kind(StrEnum):
    """Families of types; one value of a family has one physical form in Parquet."""

    INTEGER = "integer"
    BIGINT = "bigint"
    NUMERIC = "numeric"
    TEXT = "text"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    ENUM = "enum"


@dataclass(frozen=True, slots=True)
class ColumnType:
    """One PostgreSQL type.

    `precision` and `scale` belong to NUMERIC (digits in all, digits behind the point), `length` to a bounded TEXT, `labels` to
    ENUM. A TIMESTAMP is without time zone and means UTC.
    """

    kind: Kind
    precision: int = 0
    scale: int = 0
    length: int = 0
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind is Kind.NUMERIC and not 0 < self.precision <= MAX_SCALED_DIGITS:
            raise ValueError(
                f"numeric({self.precision},{self.scale}) is beyond the {MAX_SCALED_DIGITS} digits that travel exactly; "
                f"declare a precision from 1 to {MAX_SCALED_DIGITS}"
            )

    @property
    def sql(self) -> str:
        """The type as a warehouse column declares it; an enum becomes varchar there, a new label must not stop a load."""
        if self.kind is Kind.NUMERIC:
            return f"numeric({self.precision},{self.scale})"
        if self.kind is Kind.ENUM:
            return "varchar"
        if self.kind is Kind.TEXT:
            return f"varchar({self.length})" if self.length else "varchar"
        if self.kind is Kind.TIMESTAMP:
            return "timestamp(6)"
        return str(self.kind.value)

    @property
    def is_text(self) -> bool:
        """Whether the values are character strings."""
        return self.kind in {Kind.TEXT, Kind.ENUM}


INTEGER = ColumnType(Kind.INTEGER)
BIGINT = ColumnType(Kind.BIGINT)
TEXT = ColumnType(Kind.TEXT)
BOOLEAN = ColumnType(Kind.BOOLEAN)
DATE = ColumnType(Kind.DATE)
TIME = ColumnType(Kind.TIME)
TIMESTAMP = ColumnType(Kind.TIMESTAMP)


def numeric(precision: int, scale: int) -> ColumnType:
    """An exact decimal of `precision` digits, `scale` of them behind the point."""
    return ColumnType(Kind.NUMERIC, precision=precision, scale=scale)


def varchar(length: int) -> ColumnType:
    """Text of at most `length` code points."""
    return ColumnType(Kind.TEXT, length=length)


def enum(*labels: str) -> ColumnType:
    """An enum; the labels are those known when the contract was written."""
    return ColumnType(Kind.ENUM, labels=labels)
