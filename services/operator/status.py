"""What an operator needs first. Parts are asked separately: one that does not answer in time is named, the rest is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from contracts.contract import Contract
from contracts.tables import Calendar, WarehouseTable
from services.operator.progress import Progress, read_progress
from services.operator.proof.record import ProofFailure, ProofRecord, last_failure, last_record
from services.operator.quarantine import quarantined
from services.operator.row_counts import RowCount, count_rows
from services.operator.system import OperatorSettings, System, open_system
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.lock_waits import LockWait, lock_waits
from shared.queue import Depth

LIMIT = timedelta(seconds=2)  # for all answers; with its start-up time the command takes three seconds
PROOF_IS_OLD = timedelta(hours=1)  # as the alarm on AWS: infra/topology.json, unproved_minutes
STALE = timedelta(minutes=30)  # likewise: silent_minutes

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the local stack. `alive_since` is None while it does not run, `waits_for` while it waits for nothing."""

    alive_since: datetime | None
    restarts: int = 0
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """One look at everything. A part that did not answer is empty or None, and `silent` holds its name and the reason.

    `rows` and `fresh` are by warehouse table, `fresh` in the source's time; `quarantined` rows are in quarantine now.
    `services` is None on AWS, where only ECS knows them. `reach` is the psql command that opens the star.
    """

    at: datetime
    queues: dict[str, Depth] = field(default_factory=dict)
    dead_letters: dict[str, Depth] = field(default_factory=dict)
    progress: Progress | None = None
    proof: ProofRecord | None = None
    proof_failure: ProofFailure | None = None
    rows: dict[str, RowCount] = field(default_factory=dict)
    fresh: dict[str, datetime | None] = field(default_factory=dict)
    quarantined: int | None = None
    lock_waits: tuple[LockWait, ...] = ()
    services: Mapping[str, Service] | None = None
    reach: str | None = None
    silent: dict[str, str] = field(default_factory=dict)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing needs a person."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What needs a person, one clause each."""
        return [*self._silences(), *self._of_services(), *self._of_queues(), *self._of_rows(), *self._of_proof()]

    def _silences(self) -> list[str]:
        reasons = dict.fromkeys(self.silent.values())
        return [f"{', '.join(part for part in self.silent if self.silent[part] == reason)}: {reason}" for reason in reasons]

    def _of_services(self) -> list[str]:
        services = (self.services or {}).items()
        dead = [f"{name} does not run" for name, service in services if service.alive_since is None]
        waiting = [f"{name} waits: {service.waits_for}" for name, service in services if service.waits_for is not None]
        # One load waits for another as long as that is at work, and for a comparison of keys.
        locked = [_clause(wait) for wait in self.lock_waits if not wait.is_for_ours_at_work]
        return [*dead, *waiting, *locked]

    def _of_queues(self) -> list[str]:
        counts = {name: depth.visible + depth.in_flight for name, depth in self.dead_letters.items()}
        return [f"dead letters of {name}: {count:,}" for name, count in counts.items() if count]

    def _of_rows(self) -> list[str]:
        if self.progress is None:
            return []
        found = [f"overdue batches: {self.progress.overdue:,}"] if self.progress.overdue else []
        fresh = self.progress.fresh_as_of
        if fresh is None:
            found.append("nothing is loaded yet")
        elif self.at - fresh > STALE and not self._is_just_read:
            found.append(f"the warehouse shows the source as of {(self.at - fresh).total_seconds() / 60:,.0f} min ago")
        return found

    def _of_proof(self) -> list[str]:
        """What is wrong with the last proof; a system that was never proved is not unhealthy for that."""
        found = [f"the last proof failed: {self.proof_failure.reason}"] if self.proof_failure else []
        if self.proof is not None and not self.proof.is_equal:
            found.append("the last proof did not find the warehouse equal")
        return [*found, "no regular proof has been made for more than an hour"] if self.is_proof_old else found

    @property
    def _is_just_read(self) -> bool:
        """Whether the rows of the last run are on their way; an idle source leaves no manifests, so a former one may be old."""
        progress = self.progress
        if progress is None or progress.checkpoint is None or progress.overdue:
            return False
        return self.at - progress.checkpoint.snapshot.taken_at <= STALE

    @property
    def waits_for_locks(self) -> list[str]:
        """Which sessions of Starlift wait for a lock, and who holds it, one clause each."""
        return [_clause(wait) for wait in self.lock_waits]

    @property
    def is_proof_old(self) -> bool:
        """Whether a regular series of proofs has stopped; a proof made by hand starts no series."""
        return self.proof is not None and self.proof.is_regular and self.at - self.proof.taken_at > PROOF_IS_OLD

    @property
    def held_back_s(self) -> float | None:
        """How long a transaction of the source has kept the horizon where it is; None if none does."""
        checkpoint = self.progress.checkpoint if self.progress else None
        if checkpoint is None or checkpoint.held_back_since is None:
            return None
        return round((checkpoint.snapshot.taken_at - checkpoint.held_back_since).total_seconds(), 3)

    def as_json(self) -> dict[str, Any]:
        """For scripts: names are stable, times are ISO 8601, and null means unknown."""
        services = None if self.services is None else {name: _as_json(service) for name, service in self.services.items()}
        return {
            "at": self.at.isoformat(),
            "healthy": self.is_healthy,
            "problems": self.problems,
            "silent": self.silent,
            "services": services,
            "queues": {name: asdict(depth) for name, depth in self.queues.items()},
            "dead_letters": {name: depth.visible + depth.in_flight for name, depth in self.dead_letters.items()},
            **self._progress_as_json(),
            "quarantined": self.quarantined,
            "proved": self.proof.model_dump(mode="json") if self.proof else None,
            "proof_failure": self.proof_failure.model_dump(mode="json") if self.proof_failure else None,
            "horizon_held_back_seconds": self.held_back_s,
            "lock_waits": self.waits_for_locks,
            "rows": {name: count.rows for name, count in self.rows.items()},
            "rows_estimated": [name for name, count in self.rows.items() if count.is_estimate],
            "tables_fresh_as_of": {name: moment.isoformat() if moment else None for name, moment in self.fresh.items()},
            "psql": self.reach,
        }

    def _progress_as_json(self) -> dict[str, Any]:
        progress = self.progress
        checkpoint = progress.checkpoint if progress else None
        consistent = progress.consistent_through if progress else None
        fresh = progress.fresh_as_of if progress else None
        return {
            "last_run": checkpoint.run if checkpoint else None,
            "last_run_at": checkpoint.started_at.isoformat() if checkpoint else None,
            "consistent_through": consistent.run if consistent else None,
            "missing_batches": [str(batch.data.batch_id) for batch in progress.missing] if progress else None,
            "overdue_batches": progress.overdue if progress else None,
            "superseded_batches": [str(batch.data.batch_id) for batch in progress.superseded] if progress else None,
            "fresh_as_of": fresh.isoformat() if fresh else None,
            "behind_seconds": round((self.at - fresh).total_seconds(), 3) if fresh else None,
            "new_columns": {name: list(columns) for name, columns in checkpoint.new_columns.items()} if checkpoint else {},
        }


def _clause(wait: LockWait) -> str:
    return f"session {wait.waiting} of Starlift waits for a lock of {wait}"


def _as_json(service: Service) -> dict[str, Any]:
    since = service.alive_since
    return {
        "alive_since": since.isoformat() if since else None,
        "restarts": service.restarts,
        "waits_for": service.waits_for,
    }


async def look(settings: OperatorSettings, limit: timedelta = LIMIT) -> Status:
    """Ask every part over the network. A part that does not answer within `limit` is left out."""
    asking = Asking(limit)
    async with AsyncExitStack() as stack:
        system = await asking.answer("queues, warehouse", stack.enter_async_context(open_system(settings)))
        return Status(datetime.now(UTC), silent=asking.silent) if system is None else await read_status(system, asking)


async def read_status(system: System, asking: Asking) -> Status:
    """The answers of queues, buckets and warehouse that came in time."""
    depths, progress, rows, held, proof, waits = await asyncio.gather(
        asking.answer("queues", _depths(system)),
        asking.answer("progress", _progress(system, asking.limit / 2)),
        asking.answer("rows", _rows(system, asking.limit / 2)),
        asking.answer("quarantine", quarantined(system)),
        asking.answer("proof", _last_proof(system)),
        asking.answer("locks", _lock_waits(system)),
    )
    if waits:  # only waits that last: our own statements have just waited as well, and loads briefly wait for each other
        again = await asking.answer("locks", _lock_waits(system)) or []
        waits = [wait for wait in waits if wait in again]
    queues, dead_letters = depths or ({}, {})
    return Status(
        at=datetime.now(UTC),
        queues=queues,
        dead_letters=dead_letters,
        progress=progress,
        proof=proof[0] if proof else None,
        proof_failure=proof[1] if proof else None,
        rows=rows or {},
        fresh=freshness(system.contract, progress) if progress else {},
        quarantined=None if held is None else len(held),
        lock_waits=tuple(waits or ()),
        silent=asking.silent,
    )


class Asking:
    """Questions that share one deadline; `silent` maps each part without an answer to the reason."""

    def __init__(self, limit: timedelta) -> None:
        self.silent: dict[str, str] = {}
        self.limit = limit
        self._deadline = asyncio.get_running_loop().time() + limit.total_seconds()

    async def answer(self, part: str, work: Awaitable[Answer]) -> Answer | None:
        """Return the answer, or None if there is none.

        A query that does not answer is abandoned, not awaited: asyncpg ends a cancelled query only when the server agrees.
        """
        asking = asyncio.ensure_future(work)
        await asyncio.wait([asking], timeout=max(0, self._deadline - asyncio.get_running_loop().time()))
        if not asking.done():
            asking.add_done_callback(
                lambda given_up: given_up.cancelled() or given_up.exception()
            )  # or asyncio reports it as lost
            asking.cancel()
            self.silent[part] = f"no answer within {self.limit.total_seconds():g} s"
            return None
        try:
            return asking.result()
        except (DependencyDownError, TransientError, PermanentError) as error:
            self.silent[part] = str(error)
            return None


async def _depths(system: System) -> tuple[dict[str, Depth], dict[str, Depth]]:
    names = list(system.queues)
    depths = await asyncio.gather(*(queue.depth() for queue in (*system.queues.values(), *system.dead_letters.values())))
    return dict(zip(names, depths[: len(names)], strict=True)), dict(zip(names, depths[len(names) :], strict=True))


async def _progress(system: System, limit: timedelta) -> Progress:
    async with system.warehouse.transaction(readonly=True) as warehouse:
        await warehouse.execute(f"SET LOCAL lock_timeout = {int(limit / timedelta(milliseconds=1))}")
        return await read_progress(system.store, warehouse)


async def _rows(system: System, limit: timedelta) -> dict[str, RowCount]:
    async with system.warehouse.connection() as warehouse:
        return await count_rows(warehouse, system.contract, limit)


async def _last_proof(system: System) -> tuple[ProofRecord | None, ProofFailure | None]:
    return await last_record(system), await last_failure(system)


async def _lock_waits(system: System) -> list[LockWait]:
    async with system.warehouse.connection() as warehouse:
        return await lock_waits(warehouse)


def freshness(contract: Contract, progress: Progress) -> dict[str, datetime | None]:
    """The time up to which a table shows every commit; a missing batch counts only for the tables of its extracts and keys."""
    late = {extract.table for batch in progress.missing for extract in batch.data.extracts}
    late |= {keys.table for batch in progress.missing for keys in batch.data.keys}
    whole = progress.consistent_through
    newest = progress.checkpoint.snapshot.taken_at if progress.checkpoint and whole else None

    def is_late(table: WarehouseTable) -> bool:
        return bool(late) if isinstance(table, Calendar) else bool(late & {table.source, *(one.table for one in table.lookups)})

    return {table.name: progress.fresh_as_of if is_late(table) else newest for table in contract.warehouse_tables}
