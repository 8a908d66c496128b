"""What a codec is: the forms of one column type's values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from contracts.column_types import ColumnType
from shared.source_types import SourceType

MIB = 1024 * 1024
ASCII_SPACE = " \t\n\r\v\f"  # what PostgreSQL ignores around numbers, booleans and moments
VALUE_BYTES_MAXIMUM = 32 * MIB  # of the text that a value travels as; a bytea is written in hexadecimal, two characters a byte


def narrowed(values: Any, form: str) -> Any:
    """An array of whole numbers in a shorter form. Raises: OverflowError instead of cutting a number off."""
    found = values.astype(form)
    if (found != values).any():
        raise OverflowError(f"a whole number has no room in {form[-1]} bytes")
    return found


@dataclass(frozen=True, slots=True)
class LogicalType:
    """What a number in a Parquet file means to its readers, in the words of parquet.thrift."""

    name: str  # of the union LogicalType
    converted: str  # its older twin, a ConvertedType
    is_utc: bool = False


@dataclass(frozen=True)
class Codec:
    """The forms of one column type's values. A kind of type overrides the forms that are not those of a plain number."""

    type: ColumnType

    accepted: ClassVar[re.Pattern[str]]  # the types of the source, as format_type() spells them
    frame: ClassVar[Any] = "Int64"  # pandas' type in a data frame (Any: the stubs of pandas want literals)
    file: ClassVar[Any] = "Int64"  # pandas' type from which a Parquet file is written
    staged: ClassVar[str] = "bigint"  # SQL type in a staging table: one that COPY loads fast
    logical: ClassVar[LogicalType | None] = None  # in a Parquet file; None where the physical type says all
    limits: ClassVar[tuple[int, int] | None] = None  # the least and the greatest number that the star may hold
    read_sql: ClassVar[str] = "{0}"  # on the source, for {0}: the form in which it travels
    defect_sql: ClassVar[tuple[tuple[str, str], ...]] = ()  # when {0} can't travel, and what it then is
    loaded_sql: ClassVar[str] = "{0}"  # on the warehouse, for the staged form {0}: the value

    @property
    def stand_in(self) -> str | None:
        """As SQL, what an inferred member has in a column that may not be NULL; None if the type has no such value."""
        return "0"

    @property
    def is_wide(self) -> bool:
        """Whether a value may be large."""
        return False

    @property
    def key_form(self) -> str:
        """What a person types as a value of a key, in a sentence."""
        return "a text in UTF-8 without a NUL"

    def accepts(self, found: SourceType) -> bool:
        """Whether values of a column of the source can be carried; of an unbounded numeric, the ones that fit."""
        return not found.is_enum and self.accepted.fullmatch(found.name) is not None

    def byte_count(self, value: str) -> str:
        """SQL for the bytes of the text that the SQL `value`, of whatever type, travels as; asked before the text is made.

        A text above 1 GiB makes PostgreSQL fail the statement. It knows the length of a text or a bytea without reading the
        value. For any other type it has to make the text, unless the stored value alone is above the limit: ROW() holds it
        uncompressed.
        """
        made_from = f"pg_column_size(ROW({value}))"
        return f"CASE WHEN {made_from} <= {VALUE_BYTES_MAXIMUM} THEN octet_length({value}::text) ELSE {made_from} END"

    def read(self, value: str) -> str:
        """SQL on the source for the form in which `value` travels; NULL for a value that can't travel, which has a defect."""
        return self.read_sql.format(value)

    def defects(self, value: str) -> list[tuple[str, str]]:
        """Conditions as SQL on the source under which `value` can't travel, each with what the value then is."""
        return [(condition.format(value), what) for condition, what in self.defect_sql]

    def loaded(self, value: str) -> str:
        """SQL on the warehouse for the value whose staged form is `value`."""
        return self.loaded_sql.format(value)

    def binary(self, values: Any) -> list[Any]:
        """The bytes that COPY in binary form takes for the column's type, as arrays that stand side by side.

        `values` is an array of the whole numbers of a data frame. Only for types that don't travel as text.
        Raises: OverflowError for a number that the type can't hold.
        """
        return [values.astype(">i8")]

    def key_text(self, value: str) -> str:
        """SQL for the text that names `value` in a key: equal values have one text. Whole numbers stay numbers."""
        return f"{value}::text"

    def sought(self, value: Any) -> str:
        """A value of a data frame as SQL that the source compares with a column."""
        return self.loaded(str(value))

    def shown(self, value: Any) -> Any:
        """A value of a data frame that is not NULL, as a person writes it: a JSON value."""
        return str(value)

    @property
    def delivered_form(self) -> str:
        """What a text of a file or of an API has to be, in a sentence."""
        return self.key_form

    def delivered(self, text: str) -> Any:
        """The value in a data frame that a text of a file or of an API means: the one that PostgreSQL reads in it.

        Raises: ValueError for a text that PostgreSQL refuses, rounds, or reads as its settings say.
        """
        return self.parsed_key(text)

    def delivered_all(self, texts: Sequence[str]) -> Sequence[Any]:
        """As `delivered`, for many texts. Raises: ValueError or OverflowError if one has no value, or is spelled unusually."""
        known = {text: self.delivered(text) for text in set(texts)}  # columns repeat their values
        return [known[text] for text in texts]

    def spelled_key(self, value: Any) -> int | str:
        """A value of a data frame that is not NULL, as a key holds it."""
        return self.parsed_key(str(self.shown(value)))

    def parsed_key(self, text: str) -> int | str:
        """A value of a key that a person has typed, as questions hold it. Raises: ValueError if it is not a `key_form`."""
        text.encode()
        if "\x00" in text:
            raise ValueError(text)
        return text

    def may_be_key(self, value: int | str) -> bool:
        """Whether a key may have this value: PostgreSQL's own spelling of one, since another would not equal the row's."""
        try:
            return self.parsed_key(str(value)) == value
        except ValueError:
            return False
