"""The proof: both databases in one snapshot each, compared table by table.

The warehouse's snapshot is opened first and shows how far it has come (N); the source's follows. Each side hashes its rows by
bucket, and only buckets that differ are looked at row by row. A row that differs is *in flight* when it was written after the
horizon of the last run: the next one brings it, and once that is loaded the row is compared again, and counts as different if
it still differs. A row is *stuck* when what brings it is late or does not come by itself (causes.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from contracts.tables import WarehouseTable
from services.operator.errors import OperatorError
from services.operator.progress import read_progress
from services.operator.proof.look import Look, open_look
from services.operator.proof.records import keep_failure, keep_verdict
from services.operator.proof.table_comparison import compare_again, compare_table
from services.operator.proof.verdict import EVERYTHING, Scope, Verdict, judge
from services.operator.star_keys import table_named
from services.operator.system import System
from shared.errors import DependencyDownError, PermanentError, TransientError

SETTLE_POLL = timedelta(milliseconds=500)
_CLASSED = (DependencyDownError, PermanentError, TransientError)


@dataclass(frozen=True, slots=True)
class Proof:
    """A verdict, and the error that kept it from being recorded, if one did."""

    verdict: Verdict
    not_kept: DependencyDownError | PermanentError | TransientError | None = None


async def prove(
    system: System, scope: Scope = EVERYTHING, *, is_regular: bool, on_table: Callable[[str], None] = lambda _: None
) -> Proof:
    """Compare as `verify` does, and keep the verdict on the whole star, or why there is none, for `starlift status`.

    `is_regular`: a schedule makes the proof, which fails if it can't be kept. Raises: as `verify`.
    """
    try:
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
    if may_settle and await later_run_is_loaded(system, look, scope.settle):
        async with open_look(system) as again:
            findings = await compare_again(look, again, findings, scope.buckets)
        last, settled_at = again, again.taken_at
    return judge(last.progress, look.taken_at, findings, sample=scope.sample, settled_at=settled_at, standing=last.standing)


def chosen_tables(system: System, scope: Scope) -> list[WarehouseTable]:
    """The tables to compare, in the contract's order. Raises: OperatorError for a name that the contract does not have."""
    named = [table_named(system.contract, name) for name in scope.tables]
    return [table for table in system.contract.warehouse_tables if not named or table in named]


async def later_run_is_loaded(system: System, look: Look, limit: timedelta) -> bool:
    """Whether, within `limit`, a run that began after `look` is in the warehouse."""
    since = look.through or 1
    try:
        async with asyncio.timeout(limit.total_seconds()):
            while True:
                async with system.warehouse.transaction(readonly=True) as warehouse:
                    progress = await read_progress(system, warehouse, since=since)
                if progress.loaded > look.begun:
                    return True
                await asyncio.sleep(SETTLE_POLL.total_seconds())
    except TimeoutError:
        return False
