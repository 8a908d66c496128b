"""What the history check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique
from typing import Any

NAMED_MAXIMUM = 10_000  # problems of one fact: the others are only counted

Texts = tuple[str, ...]


@unique
class Flaw(StrEnum):
    """What is wrong with a version."""

    LOST = "lost"  # a loaded batch brought it, and the fact table does not have it
    DOUBLED = "doubled"  # several rows hold it
    UNKNOWN = "unknown"  # the fact table has it, and no batch that could be read brought it
    WRONG_RUN = "of a wrong run"  # its row is of another run than the last that brought it
    NOT_CURRENT = "not current"  # it should be, and the view does not show it
    WRONGLY_CURRENT = "wrongly current"  # the view shows it, and should not


@dataclass(frozen=True, slots=True)
class Problem:
    """A version with a flaw, named by the texts of its key and of its version columns."""

    flaw: Flaw
    key: Texts
    version: Texts
    detail: str = ""


@dataclass
class FactHistory:
    """The history of one fact: `rows` of its table, `versions` of `batches` that were looked up in it.

    `unread` batches have no object any more, the last of which was loaded at `unread_until`: what they brought is not checked.
    `problems` are named up to NAMED_MAXIMUM; `unnamed` counts the rest.
    """

    table: str
    rows: int = 0
    versions: int = 0
    batches: int = 0
    unread: int = 0
    unread_until: datetime | None = None
    problems: list[Problem] = field(default_factory=list)
    unnamed: int = 0

    @property
    def flawed(self) -> int:
        """How many problems there are."""
        return len(self.problems) + self.unnamed

    def add(self, problem: Problem) -> None:
        """One more."""
        if len(self.problems) < NAMED_MAXIMUM:
            self.problems.append(problem)
        else:
            self.unnamed += 1

    def passes_over(self, loaded_at: datetime) -> None:
        """One batch more that can't be read."""
        self.unread += 1
        self.unread_until = max(self.unread_until or loaded_at, loaded_at)


@dataclass(frozen=True, slots=True)
class HistoryVerdict:
    """The history of every fact; `begun_at` is when it was started over, if it was."""

    facts: tuple[FactHistory, ...]
    begun_at: datetime | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every version that could be checked is there once, and the right ones are current."""
        return not any(fact.flawed for fact in self.facts)


def history_as_json(verdict: HistoryVerdict) -> dict[str, Any]:
    """For scripts: names are stable, times ISO 8601, keys and versions in their canonical text."""
    return {
        "complete": verdict.is_complete,
        "begun_at": verdict.begun_at.isoformat() if verdict.begun_at else None,
        "facts": {
            fact.table: {
                "rows": fact.rows,
                "versions": fact.versions,
                "batches": fact.batches,
                "unread_batches": fact.unread,
                "unread_until": fact.unread_until.isoformat() if fact.unread_until else None,
                "flawed": fact.flawed,
                "problems": [
                    {
                        "flaw": problem.flaw.value,
                        "key": list(problem.key),
                        "version": list(problem.version),
                        "detail": problem.detail,
                    }
                    for problem in fact.problems
                ],
            }
            for fact in verdict.facts
        },
    }
