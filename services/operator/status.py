"""What an operator wants to know first: queues, dead letters, the last run, rows per table, freshness."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.operator.progress import Progress, read_progress
from services.operator.proof.record import ProofRecord, last_record
from services.operator.quarantine import quarantined
from services.operator.system import System
from shared.queue import Depth
from shared.sql import quoted

PROOF_IS_OLD = timedelta(hours=1)  # as long as AWS waits with its alarm: infra/topology.json, unproved_minutes


@dataclass(frozen=True, slots=True)
class Status:
    """One look at everything. `rows` is None for a table that does not exist yet; `quarantined` rows are in quarantine now."""

    at: datetime
    queues: dict[str, Depth]
    dead_letters: dict[str, Depth]
    progress: Progress
    proof: ProofRecord | None
    rows: dict[str, int | None]
    quarantined: int = 0

    @property
    def is_healthy(self) -> bool:
        """Whether nothing waits for a person: overdue batches, dead letters, a proof that is not equal or not made any more."""
        return (
            not self.progress.overdue
            and (self.proof is None or self.proof.is_equal)
            and not self.is_proof_old
            and not any(depth.visible + depth.in_flight for depth in self.dead_letters.values())
        )

    @property
    def is_proof_old(self) -> bool:
        """Whether proofs used to be recorded and are no longer; who never records one is asked for none."""
        return self.proof is not None and self.at - self.proof.taken_at > PROOF_IS_OLD

    @property
    def held_back_s(self) -> float | None:
        """How long a transaction of the source has kept the horizon where it is; None if none does."""
        checkpoint = self.progress.checkpoint
        if checkpoint is None or checkpoint.held_back_since is None:
            return None
        return round((checkpoint.snapshot.taken_at - checkpoint.held_back_since).total_seconds(), 3)

    def as_json(self) -> dict[str, Any]:
        """For scripts: names are stable, times ISO 8601."""
        progress = self.progress
        checkpoint, consistent = progress.checkpoint, progress.consistent_through
        fresh = progress.fresh_as_of
        return {
            "at": self.at.isoformat(),
            "healthy": self.is_healthy,
            "queues": {name: asdict(depth) for name, depth in self.queues.items()},
            "dead_letters": {name: depth.visible + depth.in_flight for name, depth in self.dead_letters.items()},
            "last_run": checkpoint.run if checkpoint else None,
            "last_run_at": checkpoint.started_at.isoformat() if checkpoint else None,
            "consistent_through": consistent.run if consistent else None,
            "missing_batches": [str(batch.data.batch_id) for batch in progress.missing],
            "overdue_batches": progress.overdue,
            "superseded_batches": [str(batch.data.batch_id) for batch in progress.superseded],
            "fresh_as_of": fresh.isoformat() if fresh else None,
            "behind_seconds": round((self.at - fresh).total_seconds(), 3) if fresh else None,
            "quarantined": self.quarantined,
            "proved": self.proof.model_dump(mode="json") if self.proof else None,
            "horizon_held_back_seconds": self.held_back_s,
            "new_columns": {name: list(columns) for name, columns in checkpoint.new_columns.items()} if checkpoint else {},
            "rows": self.rows,
        }


async def read_status(system: System) -> Status:
    """Ask queues, buckets and warehouse. Raises: DependencyDownError, TransientError, PermanentError."""
    names = list(system.queues)
    depths = await asyncio.gather(*(queue.depth() for queue in (*system.queues.values(), *system.dead_letters.values())))
    settings = system.settings
    async with system.warehouse.connection() as warehouse:
        progress = await read_progress(system.objects, settings.landing_bucket, settings.source_name, warehouse)
        rows: dict[str, int | None] = {}
        for table in system.contract.warehouse_tables:
            name = quoted(system.contract.warehouse_schema, table.name)
            exists = await warehouse.fetchval("SELECT to_regclass($1) IS NOT NULL", name)
            rows[table.name] = await warehouse.fetchval(f"SELECT count(*) FROM {name}") if exists else None
    return Status(
        at=datetime.now(UTC),
        queues=dict(zip(names, depths[: len(names)], strict=True)),
        dead_letters=dict(zip(names, depths[len(names) :], strict=True)),
        progress=progress,
        proof=await last_record(system),
        rows=rows,
        quarantined=len(await quarantined(system)),
    )
