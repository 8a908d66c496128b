"""The last proof, kept in the landing bucket so that `status` can show its result, or why it failed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, computed_field, model_validator

from services.operator.proof.verdict import Outcome, Verdict
from services.operator.system import System
from shared.clock import utc_now
from shared.stored_documents import DamagedDocumentError

Stored = TypeVar("Stored", bound=BaseModel)


class ProofRecord(BaseModel):
    """What a proof of everything found. `taken_at` is the source's clock; `rows` were compared.

    `reasons` maps each reason why rows are stuck to their number. `is_regular`: a schedule makes the proofs, and `status`
    reports when they stop.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    taken_at: AwareDatetime
    outcome: Outcome
    run: int | None
    rows: int
    different: int
    in_flight: int
    quarantined: int
    stuck: int = 0
    reasons: dict[str, int] = {}
    is_regular: bool = True

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_build(cls, stored: Any) -> Any:
        """Read a record of an earlier build, which knows only equal and different."""
        if isinstance(stored, dict) and "outcome" not in stored and "is_equal" in stored:
            return stored | {"outcome": Outcome.EQUAL if stored["is_equal"] else Outcome.DIFFERENT}
        return stored

    @computed_field  # type: ignore[prop-decorator]  # for scripts that read it in `status --json`
    @property
    def is_equal(self) -> bool:
        """Whether the warehouse equalled the source."""
        return self.outcome is Outcome.EQUAL

    @classmethod
    def of(cls, verdict: Verdict, *, is_regular: bool) -> ProofRecord:
        """The verdict in numbers."""
        through = verdict.progress.consistent_through
        return cls(
            taken_at=verdict.taken_at,
            outcome=verdict.outcome,
            run=None if through is None else through.run,
            rows=sum(table.expected for table in verdict.tables),
            different=sum(table.different for table in verdict.tables),
            in_flight=verdict.in_flight,
            quarantined=verdict.quarantined,
            stuck=verdict.stuck,
            reasons=verdict.reasons,
            is_regular=is_regular,
        )


class ProofFailure(BaseModel):
    """A proof of everything that failed, and why; None once one succeeds again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    failed_at: AwareDatetime
    reason: str | None


async def keep_record(system: System, verdict: Verdict, *, is_regular: bool) -> ProofRecord:
    """Keep a verdict on everything as the last proof and under its time. A regular series stays one after a proof by hand."""
    store = system.store
    with suppress(DamagedDocumentError):  # it is replaced
        before = await last_record(system)
        is_regular = is_regular or (before is not None and before.is_regular)
    record = ProofRecord.of(verdict, is_regular=is_regular)
    await store.write_document(store.keys.proof(record.taken_at), record)
    await store.write_document(store.keys.last_proof, record)
    await _keep_failure(system, None)
    return record


async def keep_failure(system: System, reason: str) -> None:
    """Keep the reason why a proof of everything failed."""
    await _keep_failure(system, reason)


async def last_record(system: System) -> ProofRecord | None:
    """The last proof that was kept; None if there is none."""
    return await _read(system, system.store.keys.last_proof, ProofRecord)


async def last_failure(system: System) -> ProofFailure | None:
    """Why the last proof failed; None if it did not, or if there was none."""
    failure = await _read(system, system.store.keys.proof_failure, ProofFailure)
    return failure if failure is not None and failure.reason is not None else None


async def _read(system: System, key: str, model: type[Stored]) -> Stored | None:
    remedy = "run `starlift verify`, which replaces it"
    return await system.store.read_document(key, model, what="record of a proof", remedy=remedy)


async def _keep_failure(system: System, reason: str | None) -> None:
    failure = ProofFailure(failed_at=utc_now(), reason=reason)
    await system.store.write_document(system.store.keys.proof_failure, failure)
