"""The codecs of dates and times: whole numbers on the way."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from typing import Any

from contracts.column_types import MICROSECONDS_PER_DAY
from shared.codecs.codec import ASCII_SPACE, Codec, LogicalType, narrowed

_EPOCH = dt.date(1970, 1, 1)
_MIDNIGHT = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (the source's timestamps are without time zone)
# PostgreSQL's dates reach the year 5874897; those of the calendar, and of most readers of the warehouse, do not.
_FIRST_DAY, _LAST_DAY = (dt.date.min - _EPOCH).days, (dt.date.max - _EPOCH).days
_MICROSECONDS_OF_DAY = "(date_part('epoch', {0}) * 1000000)::bigint"  # of a time


# The days from Python's epoch to that of PostgreSQL's binary formats, 2000-01-01.
_EPOCH_DAYS = (dt.date(2000, 1, 1) - _EPOCH).days

# What Python has no date for. No row of the star has such a key, but one of the source may.
_BEYOND_PYTHON = re.compile(r"-?infinity|\d{5,7}-[-0-9 :.+]+( BC)?|\d{4}-[-0-9 :.+]+ BC", re.ASCII)

# Of what PostgreSQL reads as a date and a time, the spellings that don't depend on its settings and that it need not round.
_DAY, _TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(?::\d\d(?:\.\d{1,6}0{0,6})?)?"
_DATE_TEXT, _TIME_TEXT = re.compile(_DAY, re.ASCII), re.compile(_TIME, re.ASCII)
_TIMESTAMP_TEXT = re.compile(rf"{_DAY}(?:[T ]{_TIME} ?(?:[Zz]|[+-](?:0\d|1[0-5])(?::?[0-5]\d)?)?)?", re.ASCII)
_BETWEEN_DIGITS = str.maketrans("", "", "-T:.\n")
_MICROSECOND = dt.timedelta(microseconds=1)


class Moment(Codec):
    """A date or a timestamp."""

    def may_be_key(self, value: int | str) -> bool:
        return _BEYOND_PYTHON.fullmatch(str(value)) is not None or super().may_be_key(value)


class Date(Moment):
    """DATE."""

    accepted = re.compile(r"date")
    file = "Int32"  # a Parquet DATE is an INT32
    limits = _FIRST_DAY, _LAST_DAY
    logical = LogicalType("DATE", "DATE")
    stand_in = "date '0001-01-01'"
    key_form = "a date (YYYY-MM-DD)"
    read_sql = "CASE WHEN isfinite({0}) THEN {0} - date '1970-01-01' END"
    defect_sql = (("NOT isfinite({0})", "infinite"),)
    loaded_sql = "(date '1970-01-01' + {0}::integer)"

    def binary(self, values: Any) -> list[Any]:
        return [narrowed(values - _EPOCH_DAYS, ">i4")]

    def shown(self, value: Any) -> Any:
        return _shown(int(value), 0, lambda moment: str(moment.date()))

    def parsed_key(self, text: str) -> int | str:
        return dt.date.fromisoformat(text).isoformat()

    def delivered(self, text: str) -> Any:
        return (dt.date.fromisoformat(_matching(_DATE_TEXT, text)[0]) - _EPOCH).days


class Time(Codec):
    """TIME, without time zone."""

    accepted = re.compile(r"time(\(\d\))? without time zone")
    logical = LogicalType("TIME", "TIME_MICROS")
    stand_in = "time '00:00'"
    read_sql = f"CASE WHEN {{0}} < time '24:00' THEN {_MICROSECONDS_OF_DAY} END"
    defect_sql = (("{0} = time '24:00'", "24:00:00"),)  # PostgreSQL's last time of day, and no other system's
    loaded_sql = "(time '00:00' + {0} * interval '1 microsecond')"
    delivered_form = "a time of day (HH:MM:SS)"

    def delivered(self, text: str) -> Any:
        time = dt.time.fromisoformat(_matching(_TIME_TEXT, text)[0])
        return ((time.hour * 60 + time.minute) * 60 + time.second) * 1_000_000 + time.microsecond

    def shown(self, value: Any) -> Any:
        return _shown(0, int(value), lambda moment: str(moment.time()))


class Timestamp(Moment):
    """TIMESTAMP, without time zone: UTC."""

    accepted = re.compile(r"timestamp(\(\d\))? without time zone")
    limits = _FIRST_DAY * MICROSECONDS_PER_DAY, (_LAST_DAY + 1) * MICROSECONDS_PER_DAY - 1
    logical = LogicalType("TIMESTAMP", "TIMESTAMP_MICROS")
    stand_in = "timestamp '0001-01-01'"
    key_form = "a timestamp (YYYY-MM-DD HH:MM:SS)"

    def read(self, value: str) -> str:
        """Whole days as integers, the rest as the time of day: exact in every version of PostgreSQL.

        date_part('epoch') of a timestamp is a double that loses microseconds after the year 2242, and EXTRACT is slow (numeric)
        since version 14.
        """
        days = f"({value}::date - date '1970-01-01')::bigint * {MICROSECONDS_PER_DAY}"
        return f"CASE WHEN {_travels(value)} THEN {days} + {_MICROSECONDS_OF_DAY.format(f'{value}::time')} END"

    def defects(self, value: str) -> list[tuple[str, str]]:
        too_late = f"isfinite({value}) AND NOT ({_travels(value)})"
        return [(f"NOT isfinite({value})", "infinite"), (too_late, "too late")]

    def loaded(self, value: str) -> str:
        """In two steps: PostgreSQL multiplies an interval by a double, which is exact for 285 years of microseconds only."""
        days, rest = f"({value} / {MICROSECONDS_PER_DAY})", f"({value} % {MICROSECONDS_PER_DAY})"
        return f"(timestamp '1970-01-01' + {days} * interval '1 day' + {rest} * interval '1 microsecond')"

    def binary(self, values: Any) -> list[Any]:
        return [(values - _EPOCH_DAYS * MICROSECONDS_PER_DAY).astype(">i8")]

    def shown(self, value: Any) -> Any:
        return _shown(*divmod(int(value), MICROSECONDS_PER_DAY), str)

    def delivered(self, text: str) -> Any:
        """See Codec. It is UTC; any other time zone PostgreSQL would ignore."""
        moment = _delivered_moment(text)
        if moment.utcoffset():
            raise ValueError("a timestamp without time zone has no offset")
        return (moment.replace(tzinfo=None) - _MIDNIGHT) // _MICROSECOND

    def delivered_all(self, texts: Sequence[str]) -> Sequence[Any]:
        """See Codec. numpy reads texts that are no timestamps; those that it spells as they were are."""
        import numpy as np  # noqa: PLC0415 (a tenth of a second for every command)

        spelled = "\n".join(texts).replace(" ", "T")
        if not spelled.translate(_BETWEEN_DIGITS).isdecimal() or spelled.count("-") > 2 * len(texts):  # numpy warns of offsets
            raise ValueError("unusual")
        found = np.array(spelled.split("\n"), dtype="datetime64[us]")
        unit: Any = "us" if "." in spelled else "s"
        numbers: list[Any] = found.astype("int64").tolist()
        if "\n".join(np.datetime_as_string(found, unit=unit)) != spelled or min(numbers, default=0) < self.limits[0]:
            raise ValueError("unusual")
        return numbers

    def parsed_key(self, text: str) -> int | str:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            raise ValueError("a timestamp without time zone has no offset")
        return _spelled(moment)


class Timestamptz(Timestamp):
    """TIMESTAMPTZ."""

    accepted = re.compile(r"timestamp(\(\d\))? with time zone")
    logical = LogicalType("TIMESTAMP", "TIMESTAMP_MICROS", is_utc=True)
    stand_in = "timestamptz '0001-01-01 00:00+00'"
    key_form = "a timestamptz (YYYY-MM-DD HH:MM:SS)"

    def read(self, value: str) -> str:
        return super().read(f"({value} AT TIME ZONE 'UTC')")

    def loaded(self, value: str) -> str:
        return f"({super().loaded(value)} AT TIME ZONE 'UTC')"

    def delivered_all(self, texts: Sequence[str]) -> Sequence[Any]:
        return Codec.delivered_all(self, texts)

    @property
    def delivered_form(self) -> str:
        return "a timestamp with its time zone, such as 2026-11-01T09:30:00Z"

    def delivered(self, text: str) -> Any:
        """See Codec. Without a time zone it would be a moment of that of the reader."""
        moment = _delivered_moment(text)
        if moment.tzinfo is None:
            raise ValueError("a timestamp with time zone has an offset")
        return (moment - _MIDNIGHT.replace(tzinfo=dt.UTC)) // _MICROSECOND

    def shown(self, value: Any) -> Any:
        return f"{super().shown(value)}+00"

    def parsed_key(self, text: str) -> int | str:
        moment = dt.datetime.fromisoformat(text)  # one without an offset is taken as UTC
        return f"{_spelled(moment.astimezone(dt.UTC) if moment.tzinfo else moment)}+00"


def _matching(spelling: re.Pattern[str], text: str) -> re.Match[str]:
    """The spelling of a date or a time, without the white space that PostgreSQL ignores. Raises: ValueError."""
    match = spelling.fullmatch(text.strip(ASCII_SPACE))
    if match is None:
        raise ValueError(text)
    return match


def _delivered_moment(text: str) -> dt.datetime:
    day, _, rest = _matching(_TIMESTAMP_TEXT, text)[0].replace("T", " ").partition(" ")
    return dt.datetime.fromisoformat(f"{day}T{rest.replace(' ', '').upper()}" if rest else day)


def _travels(value: str) -> str:
    """Whether the microseconds of a timestamp fit into 64 bits: those of PostgreSQL's last decades do not."""
    return f"isfinite({value}) AND {value} < '290000-01-01'"


def _shown(days: int, microseconds: int, spell: Callable[[dt.datetime], str]) -> str:
    try:
        return spell(_MIDNIGHT + dt.timedelta(days, 0, microseconds))
    except OverflowError:
        return f"{days} days and {microseconds} µs from 1970-01-01"


def _spelled(moment: dt.datetime) -> str:
    """As PostgreSQL spells it in a key."""
    text = moment.replace(tzinfo=None).isoformat(sep=" ")
    return text.rstrip("0") if "." in text else text
