"""Which dead letters a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AwareDatetime, BaseModel, ConfigDict, field_validator

from contracts.messages import TYPE_PATTERN
from services.operator.dlq.letters import Letter

_AGO = re.compile(r"^(?P<count>[0-9]{1,6})(?P<unit>[smhd])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_RUNS = re.compile(r"^(?P<first>[0-9]{1,18})(\.\.(?P<last>[0-9]{1,18}))?$")


class WrongFilterError(Exception):
    """A filter can't be understood. Recovery: write it as the text says."""


class Filter(BaseModel):
    """All that is given must hold; what is None or empty is not asked.

    `ids` are beginnings of SQS's id or of the message's; `fingerprint` is a beginning, too. `type` is a message type, whole or
    its name alone. `runs` are the first and the last one. `since` (or later) and `until` (or earlier, and not then) are about
    the last failure. `where` is a JMESPath over {"body": …, "failure": …}; where it can't be computed, a letter does not match.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[str, ...] = ()
    fingerprint: str | None = None
    error: str | None = None
    type: str | None = None
    version: int | None = None
    runs: tuple[int, int] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    where: str | None = None
    replays: int | None = None
    max_replays: int | None = None

    @field_validator("where")
    @classmethod
    def _is_jmespath(cls, where: str | None) -> str | None:
        try:
            jmespath.compile(where or "@")
        except JMESPathError as error:
            reason = str(error).splitlines()[0]
            raise WrongFilterError(f"--where '{where}' is no JMESPath ({reason}); see jmespath.org") from error
        return where

    def matches(self, letter: Letter) -> bool:
        """Whether a command with this filter is about `letter`."""
        failure = letter.failure
        asked: list[tuple[Any, Callable[[], bool]]] = [
            (self.ids or None, lambda: any(_begins(letter, one) for one in self.ids)),
            (self.fingerprint, lambda: failure.fingerprint.startswith(str(self.fingerprint))),
            (self.error, lambda: failure.error_type == self.error),
            (self.type, lambda: self.type in _names_of(letter.type)),
            (self.version, lambda: _version(letter.type) == self.version),
            (self.runs, lambda: letter.run is not None and self._has_run(letter.run)),
            (self.since, lambda: self.since is not None and failure.last_failed_at >= self.since),
            (self.until, lambda: self.until is not None and failure.last_failed_at < self.until),
            (self.where, lambda: self._where_holds(letter)),
            (self.replays, lambda: failure.replays == self.replays),
            (self.max_replays, lambda: self.max_replays is not None and failure.replays <= self.max_replays),
        ]
        return all(holds() for given, holds in asked if given is not None)

    def _has_run(self, run: int) -> bool:
        return self.runs is not None and self.runs[0] <= run <= self.runs[1]

    def _where_holds(self, letter: Letter) -> bool:
        document = {"body": letter.document, "failure": letter.failure.model_dump(mode="json")}
        try:
            return bool(jmespath.search(self.where, document))
        except (JMESPathError, ValueError, TypeError, ArithmeticError):  # a slice of step zero, say, is none of its own errors
            return False


def read_moment(text: str, now: datetime) -> datetime:
    """A moment: `2h` is two hours before `now` (s, m, h, d), otherwise ISO 8601, UTC if it says no zone.

    Raises: WrongFilterError.
    """
    ago = _AGO.match(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise WrongFilterError(f"'{text}' is no time; write 90s, 15m, 2h, 3d, or 2026-11-05T08:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_runs(text: str) -> tuple[int, int]:
    """A run, or the first and the last of several: `17`, `17..21`. Raises: WrongFilterError."""
    runs = _RUNS.match(text)
    first, last = (int(runs["first"]), int(runs["last"] or runs["first"])) if runs else (1, 0)
    if first > last:
        raise WrongFilterError(f"'{text}' is no run; write 17, or 17..21 for several")
    return first, last


def _begins(letter: Letter, beginning: str) -> bool:
    return letter.id.startswith(beginning) or (letter.event_id or "").startswith(beginning)


def _names_of(kind: str | None) -> tuple[str, ...]:
    """What a person may call a type: whole, and its name alone."""
    found = TYPE_PATTERN.match(kind or "")
    return () if kind is None else (kind, found["name"]) if found else (kind,)


def _version(kind: str | None) -> int | None:
    found = TYPE_PATTERN.match(kind or "")
    return None if found is None else int(found["version"])
