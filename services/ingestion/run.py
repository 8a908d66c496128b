"""One run, and the documents that it leaves behind. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from contracts.messages import BatchIngested, BatchIngestedData, Extract, IngestSource, LookUpKeys, Mode, RowsOf, Trigger
from contracts.objects import ObjectRef, SourceKeys
from contracts.state import Checkpoint, Manifest, UnfinishedLoad
from services.ingestion.plan import Plan
from shared.envelope import caused_by
from shared.source_facts import SourceFacts

EVENT_SOURCE = "starlift/ingestion"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a source, from its open snapshot to its end."""

    number: int  # orders runs, and versions of rows: see services/ingestion/lease.py
    command: IngestSource | LookUpKeys  # what asked for the run
    started_at: datetime  # before the snapshot was opened
    before: Checkpoint | None  # what the last completed run left; None in the first run
    facts: SourceFacts
    plan: Plan
    object_keys: SourceKeys

    def batch_ingested(
        self,
        index: int,
        extracts: tuple[Extract, ...] = (),
        hashes: ObjectRef | None = None,
        gone: tuple[RowsOf, ...] = (),
        *,
        is_answer: bool = False,
        is_last: bool = False,
    ) -> BatchIngested:
        """The event that announces batch `index`; one that `is_answer` answers the command."""
        batch_id = self.object_keys.batch(self.number, index).batch_id
        data = BatchIngestedData(
            source_name=self.object_keys.source,
            run=self.number,
            batch_id=batch_id,
            index=index,
            is_last=is_last,
            snapshot=self.facts.snapshot,
            extracts=extracts,
            hashes=hashes,
            gone=gone,
            answers=self.command.id if is_answer else None,
        )
        return BatchIngested(**caused_by(self.command, EVENT_SOURCE, subject=batch_id, name="batch_ingested"), data=data)

    def leaves_manifest(self, batches: Sequence[BatchIngested]) -> bool:
        """Whether the run leaves a manifest. An empty run for which no command waits leaves only its checkpoint."""
        return bool(batches) or self.trigger is Trigger.OPERATOR

    @property
    def trigger(self) -> Trigger | None:
        """Who asked for the run; None for loading, by a question."""
        return self.command.data.trigger if isinstance(self.command, IngestSource) else None

    @property
    def rest_of_command(self) -> IngestSource | None:
        """What another run is to do: take the next delivery. None if nothing can wait, or loading asked."""
        if not self.plan.may_wait or not isinstance(self.command, IngestSource):
            return None
        done = {"mode": Mode.CHANGES, "compare_keys": False, "reread": ()}
        return self.command.model_copy(update={"data": self.command.data.model_copy(update=done)})

    def manifest(self, batches: Sequence[BatchIngested], completed_at: datetime) -> Manifest:
        """Every batch of the run, as it was announced."""
        return Manifest(
            source_name=self.object_keys.source,
            run=self.number,
            requested_by=self.command.id,
            trigger=self.trigger,
            snapshot=self.facts.snapshot,
            completed_at=completed_at,
            is_full=self.plan.is_full,
            redefined=self.plan.redefined,
            is_followed=self.rest_of_command is not None,
            batches=tuple(batches),
        )

    def checkpoint(self, compared: Collection[str]) -> Checkpoint:
        """What the run leaves to the next one; `compared` are the tables whose keys were compared."""
        due = {table.name for table in self.plan.compared_tables}
        known = self.before.datasets if self.before else {}
        return Checkpoint(
            run=self.number,
            started_at=self.started_at,
            snapshot=self.facts.snapshot,
            identity=self.facts.identity,
            contract=self.plan.contract.fingerprint,
            tables={name: table.fingerprint for name, table in self.facts.tables.items()},
            runs_since_key_comparison=self.plan.runs_since_comparison,
            new_columns={name: table.described_columns for name, table in self.facts.tables.items() if table.new_columns},
            empty_tables=(self.known_empty - due) | due.difference(compared),
            held_back_since=held_back_since(self.facts, self.before),
            datasets={
                name: state.model_copy(update={"tagged_run": known[name].whole_run if name in known else None})
                for name, state in self.plan.datasets.items()
            },
            may_wait=self.plan.may_wait,
        )

    def unfinished(self, load: UnfinishedLoad | None) -> UnfinishedLoad:
        """The load that the next run continues if this one is killed; `load` is the one that this run continues."""
        if load is None:
            return UnfinishedLoad(checkpoint=self.checkpoint(frozenset()), runs=(self.number,))
        return UnfinishedLoad(checkpoint=load.checkpoint, runs=(*load.runs, self.number))

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
