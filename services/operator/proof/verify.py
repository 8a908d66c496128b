"""The proof: both databases in one snapshot each, compared table by table.

The warehouse's snapshot is opened first and shows how far it has come (N); the source's follows. Each side hashes its rows by
bucket, and only buckets that differ are compared row by row. A row that differs is *in flight* when it was written after the
horizon of the last run: the next one brings it, and once that is loaded the row is compared again, and counts as different if
it still differs. A row is *stuck* when what brings it is late or does not come by itself (causes.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta

from contracts.proofs import ProofFailure, ProofRecord
from contracts.tables import WarehouseTable
from contracts.warehouse import PROOF_LOCK
from services.operator.errors import OperatorError
from services.operator.progress import read_progress
from services.operator.proof.look import Look, open_look
from services.operator.proof.table_comparison import compare_again, compare_table
from services.operator.proof.verdict import EVERYTHING, Scope, Verdict, judge
from services.operator.star_keys import table_named
from services.operator.system import System
from shared.clock import pause, utc_now
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.ledger import last_comparisons
from shared.stored_documents import DamagedDocumentError

REMEDY = "run `starlift verify`, which replaces it"
_CLASSED = (DependencyDownError, PermanentError, TransientError)


@dataclass(frozen=True, slots=True)
class Proof:
    """A verdict, and the error that kept it from being recorded, if one did."""

    verdict: Verdict
    not_kept: DependencyDownError | PermanentError | TransientError | None = None


async def verify_and_keep(
    system: System, scope: Scope = EVERYTHING, *, is_regular: bool, on_table: Callable[[str], None] = lambda _: None
) -> Proof:
    """Verify, and keep the verdict on the whole star, or why there is none, for `starlift status`.

    `is_regular`: a schedule makes the proof, which fails if it can't be kept or another one is under way. Raises: as `verify`.
    """
    try:
        async with _alone(system, waits=not is_regular) if scope.is_everything else nullcontext():
            verdict = await verify(system, scope, on_table)
    except OperatorError:
        raise
    except Exception as error:  # a proof that can't be made must not fail silently, whatever the error
        if scope.is_everything:
            with suppress(*_CLASSED):
                reason = str(error) if isinstance(error, _CLASSED) else f"unexpected {type(error).__name__}; see the log"
                await keep_failure(system, reason)
        raise
    if scope.is_everything:
        try:
            await keep_verdict(system, verdict, is_regular=is_regular)
        except _CLASSED as error:
            if is_regular:
                raise
            return Proof(verdict, not_kept=error)
    return Proof(verdict)


@asynccontextmanager
async def _alone(system: System, *, waits: bool) -> AsyncIterator[None]:
    """Hold the lock of the star's proofs: each reads both databases from end to end, and two at once would only slow both.

    Raises: OperatorError if another proof holds it and this one does not wait for its turn.
    """
    lock, clock = system.contract.own_lock(PROOF_LOCK), asyncio.get_running_loop().time
    began = clock()
    async with system.warehouse.transaction(readonly=True) as warehouse:
        while not await warehouse.fetchval("SELECT pg_try_advisory_xact_lock($1)", lock):
            if not waits:
                raise OperatorError(
                    "another proof of this star is under way; if the schedule makes them, let more time pass between two of "
                    "them"
                )
            await asyncio.sleep(pause(clock() - began).total_seconds())  # `status` reports a session that waits for a lock
        yield


async def verify(system: System, scope: Scope = EVERYTHING, on_table: Callable[[str], None] = lambda _: None) -> Verdict:
    """Compare the star with the source. `on_table` is called with the name of each table before it is compared.

    Raises: OperatorError; DependencyDownError, PermanentError, TransientError.
    """
    async with open_look(system) as look:
        findings = []
        for table in chosen_tables(system, scope):
            on_table(table.name)
            findings.append(await compare_table(look, table, scope.buckets))
    last, settled_at = look, None
    may_settle = any(cause.may_pass for found in findings for cause in found.waiting)
    if may_settle and await wait_for_later_run(system, look, scope.settle):
        async with open_look(system) as again:
            findings = await compare_again(look, again, findings, scope.buckets)
        last, settled_at = again, again.taken_at
    for found in findings:
        found.quarantined += last.unreadable.get(found.table, 0)
    return judge(
        last.progress,
        look.taken_at,
        findings,
        sample=scope.sample,
        settled_at=settled_at,
        delivered_until=look.delivered.until if look.delivered is not None else None,
        standing_causes=last.standing_causes,
    )


def chosen_tables(system: System, scope: Scope) -> list[WarehouseTable]:
    """The tables to compare, in the contract's order. Raises: OperatorError for a name that the contract does not have."""
    named = [table_named(system.contract, name) for name in scope.tables]
    return [table for table in system.contract.warehouse_tables if not named or table in named]


async def wait_for_later_run(system: System, look: Look, limit: timedelta) -> bool:
    """Wait until a run that began after `look` is loaded and its questions are answered; False if `limit` passes first."""
    since, clock = look.through or 1, asyncio.get_running_loop().time
    began = clock()
    try:
        async with asyncio.timeout(limit.total_seconds()):
            while True:
                async with system.warehouse.transaction(readonly=True) as warehouse:
                    progress = await read_progress(system, warehouse, since=since)
                    comparisons = await last_comparisons(warehouse, system.contract)
                is_answered = all(one.is_answered for one in comparisons.values() if one.run > look.begun)
                if progress.loaded > look.begun and is_answered:
                    return True
                await asyncio.sleep(pause(clock() - began).total_seconds())
    except TimeoutError:
        return False


async def keep_verdict(system: System, verdict: Verdict, *, is_regular: bool) -> ProofRecord:
    """Keep a verdict on everything as the last proof and under its time. A regular series stays one after a proof by hand."""
    store = system.store
    with suppress(DamagedDocumentError):  # it is replaced
        before = await last_record(system)
        is_regular = is_regular or (before is not None and before.is_regular)
    record = ProofRecord(
        taken_at=verdict.taken_at,
        delivered_until=verdict.delivered_until,
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
