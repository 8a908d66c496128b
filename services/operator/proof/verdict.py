"""What a proof is asked, and what it found."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum, unique
from typing import Any

from services.operator.progress import Progress
from services.operator.proof.causes import Cause
from services.operator.proof.comparison import TableVerdict
from services.operator.proof.statements import BUCKETS


@dataclass(frozen=True, slots=True)
class Scope:
    """What to compare: all tables, or those named; of each the share `sample` of its rows, chosen by their keys.

    Rows in flight are compared again once a later run is loaded, within `settle`.
    """

    tables: tuple[str, ...] = ()
    sample: float = 1.0
    settle: timedelta = timedelta(0)

    @property
    def is_everything(self) -> bool:
        """Whether every row of every table is compared."""
        return not self.tables and self.sample == 1

    @property
    def buckets(self) -> int:
        """How many of the BUCKETS are compared; each row is in one."""
        return max(1, round(BUCKETS * self.sample))


EVERYTHING = Scope()


@unique
class Outcome(StrEnum):
    """The verdict as one word."""

    EQUAL = "equal"  # every row is right, apart from rows in flight and in quarantine
    DIFFERENT = "different"  # a loaded run should have brought rows that differ
    PENDING = "pending"  # rows differ for a known cause that the next run does not remove


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proof found: as of which run, at which time of the source, table by table.

    `sample` is the share of the rows that were compared; `settled_at` is when rows in flight were compared again, if they were.
    `standing` are causes that hold whether or not a row waits for them: missing batches, lost keys.
    """

    progress: Progress
    taken_at: dt.datetime
    tables: tuple[TableVerdict, ...]
    sample: float = 1.0
    settled_at: dt.datetime | None = None
    standing: tuple[Cause, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """DIFFERENT outranks PENDING, and while a row or a batch is stuck, nothing is EQUAL."""
        if any(table.different for table in self.tables):
            return Outcome.DIFFERENT
        return Outcome.PENDING if self.reasons else Outcome.EQUAL

    @property
    def is_equal(self) -> bool:
        """Whether the warehouse holds what it should, rows in flight and in quarantine aside."""
        return self.outcome is Outcome.EQUAL

    @property
    def in_flight(self) -> int:
        """How many rows differ because what brings them is on its way."""
        return sum(table.in_flight for table in self.tables)

    @property
    def stuck(self) -> int:
        """How many rows differ because what brings them is late or does not come by itself."""
        return sum(table.stuck for table in self.tables)

    @property
    def may_settle(self) -> bool:
        """Whether a run that is loaded in the next seconds may change the verdict."""
        return any(cause.may_pass for table in self.tables for cause in table.waiting)

    @property
    def reasons(self) -> dict[str, int]:
        """Each reason why rows are stuck with their number, including causes that no row waits for."""
        found = Counter({cause.reason: 0 for cause in self.standing if cause.is_stuck})
        for table in self.tables:
            for cause, count in table.waiting.items():
                if cause.is_stuck:
                    found[cause.reason] += count
        return dict(found)

    @property
    def quarantined(self) -> int:
        """Rows that differ because the warehouse can't hold them."""
        return sum(table.quarantined for table in self.tables)


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """For scripts: names are stable, times ISO 8601, keys and values in their canonical text."""
    through = verdict.progress.consistent_through
    return {
        "verdict": verdict.outcome.value,
        "equal": verdict.is_equal,
        "as_of_run": through.run if through else None,
        "taken_at": verdict.taken_at.isoformat(),
        "sample": verdict.sample,
        "settled_at": verdict.settled_at.isoformat() if verdict.settled_at else None,
        "overdue_batches": verdict.progress.overdue,
        "in_flight": verdict.in_flight,
        "stuck": verdict.stuck,
        "stuck_reasons": [{"reason": reason, "rows": count} for reason, count in verdict.reasons.items()],
        "quarantined": verdict.quarantined,
        "tables": {
            table.table: {
                "expected": table.expected,
                "actual": table.actual,
                "in_flight": table.in_flight,
                "stuck": table.stuck,
                "quarantined": table.quarantined,
                "different": table.different,
                "digest": table.digest,
                "differences": [
                    {
                        "kind": difference.kind.value,
                        "key": list(difference.key),
                        "columns": {
                            name: {"expected": expected, "actual": actual}
                            for name, (expected, actual) in difference.columns.items()
                        },
                    }
                    for difference in table.differences
                ],
            }
            for table in verdict.tables
        },
    }
