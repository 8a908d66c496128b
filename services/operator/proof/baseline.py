"""Where the checked history begins after a fresh start, as after the ledger, or the objects it refers to, were lost."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict

from contracts.objects import history_key
from services.operator.progress import highest_run
from services.operator.proof.verify import Proof
from shared.stored_documents import read_stored


class Baseline(BaseModel):
    """Whatever runs up to `run` had loaded by `begun_at`, on the warehouse's clock, is accepted unchecked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    begun_at: AwareDatetime
    run: int


async def keep_baseline(proof: Proof) -> None:
    """Let the history begin now. Raises: DependencyDownError, PermanentError, TransientError."""
    highest = await highest_run(proof.objects, proof.landing_bucket, proof.source_name)
    async with proof.warehouse.connection() as warehouse:
        now = await warehouse.fetchval("SELECT clock_timestamp()")
    # After a lost state, runs are numbered from the milliseconds since 1970. The highest run in the facts may be made up.
    baseline = Baseline(begun_at=now, run=max(highest, int(now.timestamp() * 1000)))
    await proof.objects.put(proof.landing_bucket, history_key(proof.source_name), baseline.model_dump_json().encode())


async def read_baseline(proof: Proof) -> Baseline | None:
    """Where the history begins; None if it is checked as far back as the ledger goes."""
    bucket, key = proof.landing_bucket, history_key(proof.source_name)
    found = await proof.objects.read(bucket, key)
    if found is None:
        return None
    remedy = "run `starlift verify --history --begin-anew`, which replaces it"
    return read_stored(
        Baseline.model_validate_json, f"{bucket}/{key}", found.body, what="beginning of a history", remedy=remedy
    )
