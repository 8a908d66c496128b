"""Every form in which the values of a column type travel: a new kind of type is one more class here.

A value is read by SQL on the source (`read`, `defects`), held in a data frame (`frame`, `limits`), written to a Parquet file
(`file`, `logical`) and to a staging table (`staged`), and turned into the star's value by SQL on the warehouse (`loaded`), or
copied into the star at once (`binary`). In a data frame a value is a whole number unless it is a text or a boolean:

    INTEGER, BIGINT   Int64
    NUMERIC(p, s)     Int64, the value times 10^s
    DATE              Int64, days since 1970-01-01
    TIME              Int64, microseconds since midnight
    TIMESTAMP         Int64, microseconds since 1970-01-01 00:00 UTC
    TIMESTAMPTZ       likewise
    BOOLEAN           boolean
    TEXT, ENUM        object: str, or None for NULL ('' stays '')
    VERBATIM          likewise: the text that PostgreSQL makes of the value

The proof has its own SQL for the values of each kind, on purpose: it would not see a mistake that it shared. It asks a codec
only how large a value is (`byte_count`, `is_wide`) and, for what an expression reads, whether it can travel (`defects`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from contracts.column_types import ColumnType, Kind
from shared.codecs.codec import Codec
from shared.codecs.moments import Date, Time, Timestamp, Timestamptz
from shared.codecs.numeric import Bigint, Integer, Numeric
from shared.codecs.plain import Boolean, Enum, Text, Verbatim

_CODECS: Mapping[Kind, type[Codec]] = {
    Kind.INTEGER: Integer,
    Kind.BIGINT: Bigint,
    Kind.NUMERIC: Numeric,
    Kind.TEXT: Text,
    Kind.BOOLEAN: Boolean,
    Kind.DATE: Date,
    Kind.TIME: Time,
    Kind.TIMESTAMP: Timestamp,
    Kind.ENUM: Enum,
    Kind.TIMESTAMPTZ: Timestamptz,
    Kind.VERBATIM: Verbatim,
}


@cache
def codec_of(column_type: ColumnType) -> Codec:
    """The codec of a column type."""
    return _CODECS[column_type.kind](column_type)
