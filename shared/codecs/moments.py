"""The codecs of dates and times: whole numbers on the way."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from contracts.column_types import MICROSECONDS_PER_DAY
from shared.codecs.codec import Codec, LogicalType

_EPOCH = dt.date(1970, 1, 1)
_MIDNIGHT = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (the source's timestamps are without time zone)
# PostgreSQL goes on to the year 5874897; the calendar, and most readers of the warehouse, do not.
_FIRST_DAY, _LAST_DAY = (dt.date.min - _EPOCH).days, (dt.date.max - _EPOCH).days
_LAST_MOMENT = "290000-01-01"  # the microseconds since 1970 of PostgreSQL's last decades are more than 64 bits hold


class Date(Codec):
    """DATE."""

    accepted = re.compile(r"date")
    file = "Int32"  # a Parquet DATE is an INT32
    limits = _FIRST_DAY, _LAST_DAY
    logical = LogicalType("DATE", "DATE")
    stand_in = "date '0001-01-01'"
    key_form = "a date (YYYY-MM-DD)"

    def read(self, value: str) -> str:
        return f"CASE WHEN isfinite({value}) THEN {value} - date '1970-01-01' END"

    def defects(self, value: str) -> tuple[tuple[str, str], ...]:
        return ((f"NOT isfinite({value})", "infinite"),)

    def loaded(self, value: str) -> str:
        return f"(date '1970-01-01' + {value}::integer)"

    def shown(self, value: Any) -> Any:
        return _shown(int(value), 0, lambda moment: str(moment.date()))

    def parsed_key(self, text: str) -> int | str:
        return dt.date.fromisoformat(text).isoformat()


class Time(Codec):
    """TIME, without time zone."""

    accepted = re.compile(r"time(\(\d\))? without time zone")
    logical = LogicalType("TIME", "TIME_MICROS")
    stand_in = "time '00:00'"

    def read(self, value: str) -> str:
        return f"CASE WHEN {value} < time '24:00' THEN {_microseconds_of_day(value)} END"

    def defects(self, value: str) -> tuple[tuple[str, str], ...]:
        return ((f"{value} = time '24:00'", "24:00:00"),)  # PostgreSQL's last time of day, and no other system's

    def loaded(self, value: str) -> str:
        return f"(time '00:00' + {value} * interval '1 microsecond')"

    def shown(self, value: Any) -> Any:
        return _shown(0, int(value), lambda moment: str(moment.time()))


class Timestamp(Codec):
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
        return f"CASE WHEN {self._travels(value)} THEN {days} + {_microseconds_of_day(f'{value}::time')} END"

    def defects(self, value: str) -> tuple[tuple[str, str], ...]:
        too_late = f"isfinite({value}) AND NOT ({self._travels(value)})"
        return (f"NOT isfinite({value})", "infinite"), (too_late, "too late")

    def _travels(self, value: str) -> str:
        return f"isfinite({value}) AND {value} < '{_LAST_MOMENT}'"

    def loaded(self, value: str) -> str:
        """In two steps: PostgreSQL multiplies an interval by a double, in which 285 years of microseconds have no room."""
        days, rest = f"({value} / {MICROSECONDS_PER_DAY})", f"({value} % {MICROSECONDS_PER_DAY})"
        return f"(timestamp '1970-01-01' + {days} * interval '1 day' + {rest} * interval '1 microsecond')"

    def shown(self, value: Any) -> Any:
        return _shown(*divmod(int(value), MICROSECONDS_PER_DAY), str)

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

    def shown(self, value: Any) -> Any:
        return f"{super().shown(value)}+00"

    def parsed_key(self, text: str) -> int | str:
        moment = dt.datetime.fromisoformat(text)  # one without an offset is taken as UTC
        return f"{_spelled(moment.astimezone(dt.UTC) if moment.tzinfo else moment)}+00"


def _microseconds_of_day(value: str) -> str:
    return f"(date_part('epoch', {value}) * 1000000)::bigint"


def _shown(days: int, microseconds: int, spell: Callable[[dt.datetime], str]) -> str:
    try:
        return spell(_MIDNIGHT + dt.timedelta(days, 0, microseconds))
    except OverflowError:
        return f"{days} days and {microseconds} µs from 1970-01-01"


def _spelled(moment: dt.datetime) -> str:
    """As PostgreSQL spells it in a key list."""
    text = moment.replace(tzinfo=None).isoformat(sep=" ")
    return text.rstrip("0") if "." in text else text
