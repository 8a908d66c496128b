"""What is kept of proofs in the landing bucket: the last one, why it failed, and where the checked history begins."""

from __future__ import annotations

from contextlib import suppress

from contracts.proofs import HistoryBaseline, ProofFailure, ProofRecord
from services.operator.proof.verdict import Verdict
from services.operator.system import System
from shared.clock import utc_now
from shared.stored_documents import DamagedDocumentError

REMEDY = "run `starlift verify`, which replaces it"


async def keep_verdict(system: System, verdict: Verdict, *, is_regular: bool) -> ProofRecord:
    """Keep a verdict on everything as the last proof and under its time. A regular series stays one after a proof by hand."""
    store = system.store
    with suppress(DamagedDocumentError):  # it is replaced
        before = await last_record(system)
        is_regular = is_regular or (before is not None and before.is_regular)
    record = ProofRecord(
        taken_at=verdict.taken_at,
        outcome=verdict.outcome,
        run=verdict.as_of_run,
        rows=verdict.rows,
        different=verdict.different,
        in_flight=verdict.in_flight,
        quarantined=verdict.quarantined,
        stuck=verdict.stuck,
        reasons=verdict.reasons,
        is_regular=is_regular,
    )
    await store.write_document(store.keys.proof(record.taken_at), record)
    await store.write_document(store.keys.last_proof, record)
    await keep_failure(system, None)
    return record


async def keep_failure(system: System, reason: str | None) -> None:
    """Keep the reason why a proof of everything failed; None once one has succeeded."""
    await system.store.write_document(system.store.keys.proof_failure, ProofFailure(failed_at=utc_now(), reason=reason))


async def last_record(system: System) -> ProofRecord | None:
    """The last proof that was kept; None if there is none."""
    key = system.store.keys.last_proof
    return await system.store.read_document(key, ProofRecord, what="record of a proof", remedy=REMEDY)


async def last_failure(system: System) -> ProofFailure | None:
    """Why the last proof failed; None if it did not, or if there was none."""
    key = system.store.keys.proof_failure
    failure = await system.store.read_document(key, ProofFailure, what="record of a proof", remedy=REMEDY)
    return failure if failure is not None and failure.reason is not None else None


async def keep_baseline(system: System) -> None:
    """Let the checked history begin now. Raises: DependencyDownError, PermanentError, TransientError."""
    highest = await system.store.highest_run()
    async with system.warehouse.connection() as warehouse:
        now = await warehouse.fetchval("SELECT clock_timestamp()")
    # After a lost state, runs are numbered from the milliseconds since 1970. The highest run in the facts may be made up.
    baseline = HistoryBaseline(begun_at=now, run=max(highest, int(now.timestamp() * 1000)))
    await system.store.write_document(system.store.keys.history, baseline)


async def read_baseline(system: System) -> HistoryBaseline | None:
    """Where the history begins; None if it is checked as far back as the ledger goes."""
    remedy = "run `starlift verify --history --begin-anew`, which replaces it"
    key = system.store.keys.history
    return await system.store.read_document(key, HistoryBaseline, what="beginning of a history", remedy=remedy)
