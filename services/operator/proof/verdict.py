"""What a proof is asked and what it found, as data: `--json` prints these models as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, Field, computed_field, field_serializer

from contracts.proofs import Outcome
from services.operator.progress import Progress
from services.operator.proof.canonical import BUCKETS
from services.operator.proof.row_comparison import Cause, Difference, TableFindings
from services.operator.wording import clock, counted, reasons_in_words


@dataclass(frozen=True, slots=True)
class Scope:
    """What to compare."""

    tables: tuple[str, ...] = ()  # warehouse tables; none: all
    sample: float = 1.0  # the share of each table's rows, chosen by their keys
    settle: timedelta = timedelta(0)  # how long to wait for a later run, after which rows in flight are compared again

    @property
    def is_everything(self) -> bool:
        """Whether every row of every table is compared."""
        return not self.tables and self.sample == 1

    @property
    def buckets(self) -> int:
        """How many of the BUCKETS are compared; each row is in one."""
        return max(1, round(BUCKETS * self.sample))


EVERYTHING = Scope()


class TableVerdict(BaseModel, frozen=True, from_attributes=True):
    """What the comparison of one warehouse table found, in rows."""

    table: str
    expected: int  # rows that the source says there should be
    actual: int  # rows that the warehouse has
    in_flight: int  # rows that wait for something that is on its way
    stuck: int  # rows that wait for something that is late or needs a person
    quarantined: int  # rows that the warehouse could not hold
    different: int  # rows that differ for no known cause
    unnamed: int = Field(0, exclude=True)  # those of `different` that are beyond the limit of `differences`
    digest: str  # a hash over all compared rows of the source; empty for the calendar
    differences: tuple[Difference, ...]  # in the order of the keys


class Verdict(BaseModel, frozen=True, serialize_by_alias=True, validate_by_name=True):
    """What a proof found."""

    outcome: Outcome = Field(alias="verdict")
    as_of_run: int | None  # the run up to which the warehouse holds everything; None before the first load
    taken_at: datetime  # the moment of the source's snapshot, on its clock
    # Of data sets, when the last delivery that counts was taken: the star is compared with what was delivered until then, and
    # not with where that came from. None for a database, and before the first delivery.
    delivered_until: datetime | None = None
    sample: float  # the share of the rows that was compared
    settled_at: datetime | None  # when rows in flight were compared again, on the source's clock; None if they were not
    overdue_batches: int  # announced more than five minutes ago and not loaded
    in_flight: int  # rows, over all tables
    stuck: int  # rows, over all tables
    # What rows are stuck for and what to do, with their number: 0 where none is seen to wait for a missing batch or key.
    reasons: dict[str, int] = Field(alias="stuck_reasons")
    quarantined: int  # rows, over all tables
    tables: tuple[TableVerdict, ...]  # in the order of the contract

    @field_serializer("tables")
    def _by_table(self, tables: tuple[TableVerdict, ...]) -> dict[str, TableVerdict]:
        return {found.table: found for found in tables}

    @field_serializer("reasons")
    def _listed(self, reasons: dict[str, int]) -> list[dict[str, str | int]]:
        return [{"reason": reason, "rows": rows} for reason, rows in reasons.items()]

    @computed_field(alias="equal")  # type: ignore[prop-decorator]
    @property
    def is_equal(self) -> bool:
        """Whether the warehouse holds what it should, apart from rows in flight and in quarantine."""
        return self.outcome is Outcome.EQUAL

    @property
    def rows(self) -> int:
        """How many rows of the source were compared."""
        return sum(table.expected for table in self.tables)

    @property
    def different(self) -> int:
        """How many rows differ for no known cause."""
        return sum(table.different for table in self.tables)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, whose first word is the outcome."""
        as_of = "before any load" if self.as_of_run is None else f"as of run {self.as_of_run}"
        aside = f"{counted(self.in_flight, 'row', 'rows')} in flight, {self.quarantined:,} in quarantine"
        if self.settled_at is not None:
            aside += f" (rows in flight were compared again at {clock(self.settled_at)})"
        if self.sample < 1:
            aside += f"; a sample of {self.sample:.2%} of the rows"
        at = clock(self.taken_at)
        if self.delivered_until is not None:
            at += f" with what was delivered until {clock(self.delivered_until)}"
        reasons = "".join(f"; {reason}" for reason in reasons_in_words(self.reasons))
        match self.outcome:
            case Outcome.EQUAL:
                return f"EQUAL {as_of}: {self.rows:,} rows compared at {at}, {aside}."
            case Outcome.PENDING:
                stuck = counted(self.stuck, "row", "rows")
                return f"PENDING {as_of}: {stuck} stuck, {self.rows:,} compared at {at}, {aside}{reasons}."
            case Outcome.DIFFERENT:
                stuck = f"{self.stuck:,} stuck, " if self.stuck else ""
                return f"DIFFERENT {as_of}: {self.different:,} of {self.rows:,} rows differ at {at}, {stuck}{aside}{reasons}."


def judge(
    progress: Progress,
    taken_at: datetime,
    findings: Collection[TableFindings],
    *,
    sample: float = 1.0,
    settled_at: datetime | None = None,
    delivered_until: datetime | None = None,
    standing_causes: Iterable[Cause] = (),
) -> Verdict:
    """The verdict: DIFFERENT outranks PENDING, and while a row or a batch is stuck, nothing is EQUAL.

    `standing_causes` are causes that hold whether or not a row is seen to wait for them: missing batches, lost keys.
    """
    reasons = Counter({cause.reason: 0 for cause in standing_causes if cause.is_stuck})
    for found in findings:
        for cause, rows in found.waiting.items():
            if cause.is_stuck:
                reasons[cause.reason] += rows
    outcome = Outcome.PENDING if reasons else Outcome.EQUAL
    if any(found.different for found in findings):
        outcome = Outcome.DIFFERENT
    return Verdict(
        outcome=outcome,
        as_of_run=progress.consistent_through.run if progress.consistent_through else None,
        taken_at=taken_at,
        delivered_until=delivered_until,
        sample=sample,
        settled_at=settled_at,
        overdue_batches=progress.overdue,
        in_flight=sum(found.in_flight for found in findings),
        stuck=sum(found.stuck for found in findings),
        reasons=dict(reasons),
        quarantined=sum(found.quarantined for found in findings),
        tables=tuple(TableVerdict.model_validate(found) for found in findings),
    )
