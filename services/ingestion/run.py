"""One run, and the documents that it leaves behind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from contracts.messages import BatchIngested, BatchIngestedData, Extract, IngestSource, KeyList, Trigger
from contracts.objects import SourceKeys
from contracts.state import Checkpoint, Manifest
from services.ingestion.plan import Plan
from shared.envelope import caused_by
from shared.source_facts import SourceFacts

EVENT_SOURCE = "starlift/ingestion"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a source, from its open snapshot to its end."""

    number: int  # orders runs, and versions of rows: see services/ingestion/lease.py
    command: IngestSource  # what asked for the run
    started_at: datetime  # before the snapshot was opened
    before: Checkpoint | None  # what the last completed run left; None in the first run
    facts: SourceFacts
    plan: Plan
    object_keys: SourceKeys

    def batch_ingested(
        self, index: int, extracts: tuple[Extract, ...], key_lists: tuple[KeyList, ...] = (), *, is_last: bool = False
    ) -> BatchIngested:
        """The event that announces batch `index`."""
        batch_id = self.object_keys.batch(self.number, index).batch_id
        data = BatchIngestedData(
            source_name=self.object_keys.source,
            run=self.number,
            batch_id=batch_id,
            index=index,
            is_last=is_last,
            snapshot=self.facts.snapshot,
            extracts=extracts,
            keys=key_lists,
        )
        return BatchIngested(**caused_by(self.command, EVENT_SOURCE, subject=batch_id, name="batch_ingested"), data=data)

    def leaves_manifest(self, batches: Sequence[BatchIngested]) -> bool:
        """Whether the run leaves a manifest. An empty run for which no command waits leaves only its checkpoint."""
        return bool(batches) or self.command.data.trigger is Trigger.OPERATOR

    def manifest(self, batches: Sequence[BatchIngested], completed_at: datetime) -> Manifest:
        """Every batch of the run, as it was announced."""
        return Manifest(
            source_name=self.object_keys.source,
            run=self.number,
            requested_by=self.command.id,
            trigger=self.command.data.trigger,
            snapshot=self.facts.snapshot,
            completed_at=completed_at,
            is_full=self.plan.is_full,
            redefined=self.plan.redefined,
            batches=tuple(batches),
        )

    def checkpoint(self, batches: Sequence[BatchIngested]) -> Checkpoint:
        """What the run leaves to the next one."""
        due = {table.name for table in self.plan.compared_tables}
        compared = {keys.table for batch in batches for keys in batch.data.keys}
        return Checkpoint(
            run=self.number,
            started_at=self.started_at,
            snapshot=self.facts.snapshot,
            identity=self.facts.identity,
            contract=self.plan.contract.fingerprint,
            tables={name: table.fingerprint for name, table in self.facts.tables.items()},
            runs_since_comparison=self.plan.runs_since_comparison,
            new_columns={name: table.described_columns for name, table in self.facts.tables.items() if table.new_columns},
            empty_tables=(self.known_empty - due) | (due - compared),
            held_back_since=held_back_since(self.facts, self.before),
        )

    @property
    def known_empty(self) -> frozenset[str]:
        """The tables that had no row when their keys should last have been compared."""
        return self.before.empty_tables if self.before else frozenset()


def held_back_since(now: SourceFacts, before: Checkpoint | None) -> datetime | None:
    """When a transaction that is still open began to hold the horizon back, as far as runs have seen it; usually None."""
    if now.snapshot.horizon == now.next_xid:
        return None
    if before is None or before.snapshot.horizon != now.snapshot.horizon:
        return now.snapshot.taken_at
    return before.held_back_since or before.snapshot.taken_at
