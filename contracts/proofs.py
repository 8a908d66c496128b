"""What is kept of proofs, as JSON in the landing bucket; the keys are in contracts/objects.py."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Any

from pydantic import AwareDatetime, BaseModel, computed_field, model_validator


@unique
class Outcome(StrEnum):
    """A verdict as one word."""

    EQUAL = "equal"  # every row is right, apart from rows in flight and in quarantine
    DIFFERENT = "different"  # a loaded run should have brought rows that differ
    PENDING = "pending"  # rows differ for a known cause that the next run does not remove


class ProofRecord(BaseModel, frozen=True, extra="ignore"):
    """What a proof of everything found. Kept as the last proof, and under its time."""

    taken_at: AwareDatetime  # the moment of the source's snapshot, on its clock
    delivered_until: AwareDatetime | None = None  # of data sets: when the last delivery that counted was taken
    outcome: Outcome
    run: int | None  # the run up to which the warehouse held everything; None before the first load
    rows: int  # that were compared
    different: int  # rows that differed for no known cause
    in_flight: int  # rows that waited for something on its way
    quarantined: int  # rows that the warehouse could not hold
    stuck: int = 0  # rows that waited for something that was late or needed a person
    reasons: dict[str, int] = {}  # why rows were stuck, with the number of rows
    is_regular: bool = True  # whether a schedule makes the proofs, so that `status` reports when they stop

    @model_validator(mode="before")
    @classmethod
    def _from_an_earlier_build(cls, stored: Any) -> Any:
        """Read a record of an earlier build, which knows only equal and different."""
        if isinstance(stored, dict) and "outcome" not in stored and "is_equal" in stored:
            return stored | {"outcome": Outcome.EQUAL if stored["is_equal"] else Outcome.DIFFERENT}
        return stored

    @computed_field  # type: ignore[prop-decorator]  # for scripts that read it in `status --json`
    @property
    def is_equal(self) -> bool:
        """Whether the warehouse equalled the source."""
        return self.outcome is Outcome.EQUAL


class ProofFailure(BaseModel, frozen=True, extra="ignore"):
    """The last proof of everything that failed."""

    failed_at: AwareDatetime  # on the clock of the machine that made it
    reason: str | None  # None once a proof succeeds again


class HistoryBaseline(BaseModel, frozen=True, extra="ignore"):
    """Where the checked history begins after a fresh start, as after the ledger, or the objects it refers to, were lost."""

    begun_at: AwareDatetime  # the warehouse's clock
    run: int  # whatever runs up to this one had loaded by then is accepted unchecked
