"""The last proof, kept in the landing bucket, so that `status` can say when the warehouse was proved last."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict

from contracts.objects import proof_key
from services.operator.proof.verdict import Verdict
from services.operator.system import System
from shared.stored_documents import read_stored


class ProofRecord(BaseModel):
    """What a proof of everything found. `taken_at` is the source's clock; `rows` were compared."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    taken_at: AwareDatetime
    is_equal: bool
    run: int | None
    rows: int
    different: int
    in_flight: int
    quarantined: int

    @classmethod
    def of(cls, verdict: Verdict) -> ProofRecord:
        """The verdict in numbers."""
        through = verdict.progress.consistent_through
        return cls(
            taken_at=verdict.taken_at,
            is_equal=verdict.is_equal,
            run=None if through is None else through.run,
            rows=sum(table.expected for table in verdict.tables),
            different=sum(table.different for table in verdict.tables),
            in_flight=verdict.in_flight,
            quarantined=verdict.quarantined,
        )


async def keep_record(system: System, record: ProofRecord) -> None:
    """Keep it as the last proof, and by its time."""
    settings = system.settings
    body = record.model_dump_json().encode()
    await system.objects.put(settings.landing_bucket, proof_key(settings.source_name, record.taken_at), body)
    await system.objects.put(settings.landing_bucket, proof_key(settings.source_name), body)


async def last_record(system: System) -> ProofRecord | None:
    """The last proof that was kept; None if there is none."""
    settings = system.settings
    bucket, key = settings.landing_bucket, proof_key(settings.source_name)
    found = await system.objects.read(bucket, key)
    if found is None:
        return None
    remedy = "run `starlift verify --record`, which replaces it"
    return read_stored(ProofRecord.model_validate_json, f"{bucket}/{key}", found.body, what="record of a proof", remedy=remedy)
