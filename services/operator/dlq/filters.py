"""Which dead letters a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jmespath
from jmespath.exceptions import ArityError, JMESPathError, UnknownFunctionError
from pydantic import AwareDatetime, BaseModel, Field, field_validator

from contracts.messages import TYPE_PATTERN
from services.operator.dlq.letters import Letter
from services.operator.errors import UsageError

_AGO = re.compile(r"^(?P<count>[0-9]{1,6})(?P<unit>[smhd])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_RUNS = re.compile(r"^(?P<first>[0-9]{1,18})(\.\.(?P<last>[0-9]{1,18}))?$")
_BARE_NUMBER = re.compile(r"[<>=]\s*-?[0-9]|(^|[\s(,])-?[0-9][0-9.]*\s*[<>=!]")


class WrongFilterError(UsageError):
    """A filter can't be understood. Recovery: write it as the text says."""


class Filter(BaseModel, frozen=True, extra="forbid"):
    """Every condition that is given must hold. The descriptions are the help of the command's options."""

    ids: tuple[str, ...] = Field((), description="Beginning of a letter's or a message's id; repeatable.")
    fingerprint: str | None = Field(None, description="Beginning of a failure's fingerprint.")
    error: str | None = Field(None, description="Type of the error, such as SourceMismatchError.")
    type: str | None = Field(None, description="Type of the message: batch_ingested, or starlift.batch_ingested.v1.")
    version: int | None = Field(None, description="Version of the message's type.")
    runs: tuple[int, int] | None = Field(None, description="A run, such as 17, or a range of runs, such as 17..21.")
    since: AwareDatetime | None = Field(
        None, description="Last failed at or after this time: 15m, 2h or 3d ago, or in ISO 8601."
    )
    until: AwareDatetime | None = Field(None, description="Last failed before this time.")
    # A letter for which it can't be computed does not match.
    where: str | None = Field(None, description="JMESPath over body and failure, in single quotes: 'body.data.index > `3`'.")
    replays: int | None = Field(None, description="Replayed exactly this many times.")
    max_replays: int | None = Field(None, description="Replayed at most this many times.")
    loaded: bool = Field(
        default=False, description="Only letters whose batch has been loaded since."
    )  # looking.py asks the ledger

    @field_validator("where")
    @classmethod
    def _is_jmespath(cls, where: str | None) -> str | None:
        try:
            jmespath.compile(where or "@")
        except JMESPathError as error:
            raise _wrong_where(where, str(error).splitlines()[0]) from error
        except RecursionError:
            raise _wrong_where(where, "it is nested too deeply") from None
        return where

    def matches(self, letter: Letter) -> bool:
        """Whether every condition on the letter itself holds. Raises: WrongFilterError."""
        failure, found = letter.failure, TYPE_PATTERN.match(letter.type or "")
        conditions: list[tuple[Any, Callable[[Any], bool]]] = [
            (self.ids or None, lambda ids: letter.id.startswith(ids) or (letter.event_id or "").startswith(ids)),
            (self.fingerprint, failure.fingerprint.startswith),
            (self.error, lambda error: failure.error_type == error),
            (self.type, lambda kind: kind in (letter.type, found and found["name"])),
            (self.version, lambda version: found is not None and int(found["version"]) == version),
            (self.runs, lambda runs: letter.run is not None and runs[0] <= letter.run <= runs[1]),
            (self.since, lambda since: failure.last_failed_at >= since),
            (self.until, lambda until: failure.last_failed_at < until),
            (self.where, lambda where: _holds(where, letter)),
            (self.replays, lambda replays: failure.replays == replays),
            (self.max_replays, lambda replays: failure.replays <= replays),
        ]
        return all(holds(asked) for asked, holds in conditions if asked is not None)


def _holds(where: str, letter: Letter) -> bool:
    document = {"body": letter.document, "failure": letter.failure.model_dump(mode="json")}
    try:
        return bool(jmespath.search(where, document))
    except (UnknownFunctionError, ArityError) as error:  # wrong for every letter, and known only when it is computed
        raise _wrong_where(where, str(error)) from error
    except (JMESPathError, ValueError, TypeError, ArithmeticError):  # a slice of step zero, say, is not one of its own errors
        return False


def _wrong_where(where: str | None, why: str) -> WrongFilterError:
    hint = "write numbers in backticks: '… > `3`'" if _BARE_NUMBER.search(where or "") else "see jmespath.org"
    return WrongFilterError(f"--where '{where}' is not JMESPath ({why}); {hint}")


def read_filter(given: dict[str, Any], now: datetime) -> Filter:
    """The filter that a person has written, by the options' names. Raises: WrongFilterError."""
    for name, value in given.items():
        if value == "" or (isinstance(value, list) and "" in value):  # an unset variable of a script must not mean all letters
            raise WrongFilterError(f"the value of --{name.rstrip('s')} is empty; leave the option out, or give it one")
    read = {name: value for name, value in given.items() if value not in (None, [])}
    read |= {name: read_moment(read[name], now) for name in ("since", "until") if name in read}
    if "runs" in read:
        read["runs"] = read_runs(read["runs"])
    return Filter(**read)


def read_moment(text: str, now: datetime) -> datetime:
    """A moment: `2h` is two hours before `now` (s, m, h, d), otherwise ISO 8601, in UTC unless it has a zone.

    Raises: WrongFilterError.
    """
    ago = _AGO.match(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise WrongFilterError(f"'{text}' is not a time; write 90s, 15m, 2h, 3d, or 2026-11-05T08:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_runs(text: str) -> tuple[int, int]:
    """A run, or the first and the last of several: `17`, `17..21`. Raises: WrongFilterError."""
    runs = _RUNS.match(text)
    first, last = (int(runs["first"]), int(runs["last"] or runs["first"])) if runs else (1, 0)
    if first > last:
        raise WrongFilterError(f"'{text}' is not a run; write 17, or 17..21 for several")
    return first, last
