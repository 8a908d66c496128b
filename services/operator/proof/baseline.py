"""Where the checked history begins after a fresh start, as after the ledger, or the objects it refers to, were lost."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.operator.proof.verify import Proof


class Baseline(BaseModel):
    """Whatever runs up to `run` had loaded by `begun_at`, on the warehouse's clock, is accepted unchecked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    begun_at: AwareDatetime
    run: int


async def keep_baseline(proof: Proof) -> None:
    """Let the history begin now. Raises: DependencyDownError, PermanentError, TransientError."""
    highest = await proof.store.highest_run()
    async with proof.warehouse.connection() as warehouse:
        now = await warehouse.fetchval("SELECT clock_timestamp()")
    # After a lost state, runs are numbered from the milliseconds since 1970. The highest run in the facts may be made up.
    baseline = Baseline(begun_at=now, run=max(highest, int(now.timestamp() * 1000)))
    await proof.store.write_document(proof.store.keys.history, baseline)


async def read_baseline(proof: Proof) -> Baseline | None:
    """Where the history begins; None if it is checked as far back as the ledger goes."""
    remedy = "run `starlift verify --history --begin-anew`, which replaces it"
    return await proof.store.read_document(proof.store.keys.history, Baseline, what="beginning of a history", remedy=remedy)
