"""What a proof is asked, and what it found."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.operator.progress import OVERDUE, Progress
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
    def buckets(self) -> int:
        """How many of the BUCKETS are compared; each row is in one."""
        return max(1, round(BUCKETS * self.sample))


EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proof found: as of which run, at which time of the source, table by table.

    `sample` is the share of the rows that were compared; `settled_at` is when rows in flight were compared again, if they were.
    """

    progress: Progress
    taken_at: dt.datetime
    tables: tuple[TableVerdict, ...]
    sample: float = 1.0
    settled_at: dt.datetime | None = None

    @property
    def is_equal(self) -> bool:
        """Whether the warehouse holds what it should, rows in flight and in quarantine aside.

        Not while batches are overdue, or no run comes: rows would be in flight for ever.
        """
        return not self.progress.overdue and not self.is_stalled and all(table.is_equal for table in self.tables)

    @property
    def is_stalled(self) -> bool:
        """Whether rows are in flight and no run seems to come for them."""
        return bool(self.in_flight) and self.settled_at is None and self.silence > OVERDUE

    @property
    def silence(self) -> timedelta:
        """How old the last snapshot of a run was, by the source's clock; nothing before the first."""
        last = self.progress.checkpoint or self.progress.consistent_through
        return timedelta(0) if last is None else self.taken_at - last.snapshot.taken_at

    @property
    def in_flight(self) -> int:
        """Rows that differ because no loaded run could see them yet."""
        return sum(table.in_flight for table in self.tables)

    @property
    def quarantined(self) -> int:
        """Rows that differ because the warehouse can't hold them."""
        return sum(table.quarantined for table in self.tables)


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """For scripts: names are stable, times ISO 8601, keys and values in their canonical text."""
    through = verdict.progress.consistent_through
    return {
        "equal": verdict.is_equal,
        "as_of_run": through.run if through else None,
        "taken_at": verdict.taken_at.isoformat(),
        "sample": verdict.sample,
        "settled_at": verdict.settled_at.isoformat() if verdict.settled_at else None,
        "overdue_batches": verdict.progress.overdue,
        "stalled": verdict.is_stalled,
        "in_flight": verdict.in_flight,
        "quarantined": verdict.quarantined,
        "tables": {
            table.table: {
                "expected": table.expected,
                "actual": table.actual,
                "in_flight": table.in_flight,
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
