"""What a run has to read, decided from what the last run left. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from contracts.contract import Contract
from contracts.drift import Drift
from contracts.messages import IngestSourceData, Mode
from contracts.state import Checkpoint
from contracts.tables import SourceTable
from services.ingestion.selection import Key, Selection
from shared.errors import PermanentError
from shared.source_snapshot import SourceSnapshot, distrust, redefined, versionless

COMPARE_KEYS_EVERY = 10  # runs: ten minutes on the shipped schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read, and the reason for each full read: one for the whole source, or one per table.

    `runs_since_comparison` is what this run leaves to the next: 0 if it compares the keys of every table, not only of those
    that it reads in full. `redefined` are the tables any of whose rows may have changed without a new transaction id.
    """

    selection: Selection
    reasons: tuple[str, ...]
    runs_since_comparison: int | None = 0
    redefined: frozenset[str] = frozenset()

    @property
    def compared_tables(self) -> tuple[SourceTable, ...]:
        """The tables whose rows may have gone without a trace. Only those that a star table is made of."""
        selection = self.selection
        return tuple(
            table
            for table in selection.contract.source_tables
            if (self.runs_since_comparison == 0 or table.name in selection.full_tables)
            and selection.contract.remodelled_from(table.name)
        )


def plan_run(
    contract: Contract, now: SourceSnapshot, before: Checkpoint | None, wish: IngestSourceData, compare_keys_every: int
) -> Plan:
    """Plan a full read if the last horizon can't be trusted; otherwise what changed, and each redefined table in full.

    A table whose rows' transaction ids the role may not read is read in full by every run.

    Keys are compared for every table read in full, and for all in every `compare_keys_every`th run (0: only if asked for).
    """
    everything = frozenset(table.name for table in contract.source_tables)
    carried = {
        table.name: tuple(name for name in now.tables[table.name].new_columns if name not in now.tables[table.name].unreadable)
        for table in contract.source_tables
        if table.drift is Drift.CARRY
    }
    asked = ["asked for"] if wish.mode is Mode.FULL else []
    doubts = ["first run"] if before is None else _doubts(contract, now, before)
    changed = everything if before is None or doubts else redefined(now, before)
    if before is None or asked or doubts:
        return Plan(Selection(contract, everything, None, carried=carried), (*asked, *doubts), redefined=changed)
    reasons = tuple(f"the definition of '{name}' changed" for name in sorted(changed))
    ago = None if before.runs_since_comparison is None else before.runs_since_comparison + 1
    is_due = compare_keys_every > 0 and (ago is None or ago >= compare_keys_every)
    if wish.compare_keys or is_due:
        ago = 0
    selection = Selection(
        contract,
        changed | versionless(now),
        before.snapshot.horizon,
        orphans=ago == 0,
        reread=_reread(contract, wish),
        carried=carried,
    )
    return Plan(selection, reasons, ago, changed)


def held_back_since(now: SourceSnapshot, before: Checkpoint | None) -> datetime | None:
    """Since when the horizon stands behind a transaction that does not end, as far as runs have seen it; mostly never."""
    if now.snapshot.horizon == now.next_xid:
        return None
    if before is None or before.snapshot.horizon != now.snapshot.horizon:
        return now.snapshot.taken_at
    return before.held_back_since or before.snapshot.taken_at


def _reread(contract: Contract, wish: IngestSourceData) -> dict[str, tuple[Key, ...]]:
    """The rows that were asked for. Raises: PermanentError for a table or a key that the contract does not have."""
    tables = {table.name: table for table in contract.source_tables}
    for rows in wish.reread:
        table = tables.get(rows.table)
        if table is None or any(len(key) != len(table.key) for key in rows.keys):
            raise PermanentError(
                f"'{rows.table}' with keys of that length is not in contract '{contract.name}'; correct the command"
            )
    return {rows.table: rows.keys for rows in wish.reread if rows.keys}


def _doubts(contract: Contract, now: SourceSnapshot, before: Checkpoint) -> list[str]:
    """Why the horizon of the run before says nothing about this source."""
    anew = ["the contract changed"] if before.contract != contract.fingerprint else []
    return [*anew, *distrust(now, before)]
