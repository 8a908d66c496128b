"""What a run has to read, decided from what the last run left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from contracts.contract import Contract
from contracts.messages import IngestSourceData, KeyRange, LookUpKeysData, Mode, RowsOf, Snapshot
from contracts.state import Checkpoint, DatasetState
from contracts.tables import Drift, SourceTable
from shared.codecs import codec_of
from shared.errors import PermanentError
from shared.source_facts import SourceFacts, distrust, redefined, versionless
from shared.source_keys import Key, misspelled_column

Request = IngestSourceData | LookUpKeysData

COMPARE_KEYS_EVERY = 10  # runs: ten minutes on the shipped schedule


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads of each source table, and why."""

    contract: Contract
    since: Snapshot | None  # read what changed since this snapshot; None: every row of every table
    full_tables: frozenset[str]  # tables read in full whatever changed
    reasons: tuple[str, ...] = ()  # for each full read that no ordinary run makes
    redefined: frozenset[str] = frozenset()  # tables whose rows may have changed without a new transaction id
    # Left to the next run. 0: this run compares the keys of every table; None: the next one has to.
    runs_since_comparison: int | None = 0
    reread: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)  # rows asked for, by table: read whether changed or not
    looked_up: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)  # rows whose absence is reported, by table
    believe_empty: bool = False  # a table without rows is really empty
    # To a question of loading. Such a run compares only the keys of redefined tables: where every run reads a table in full,
    # each answer would lead to the next question.
    is_answer: bool = False
    carried: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # columns that the contract lacks, by table
    shared: frozenset[str] = frozenset()  # large tables, which are read in parts (services/ingestion/chunks.py)
    # Of an unfinished load, by table: ranges of which every row is read, beside what changed (services/ingestion/resume.py).
    missing: Mapping[str, tuple[KeyRange, ...]] = field(default_factory=dict)
    # Of a source of files or of an API (services/ingestion/delivered_source.py):
    datasets: Mapping[str, DatasetState] = field(default_factory=dict)  # as the run leaves them, by name
    may_wait: bool = False  # whether deliveries may wait that the run does not take

    @property
    def is_full(self) -> bool:
        """Whether every row of every table is read."""
        return self.since is None

    @property
    def every_row(self) -> Plan:
        """The plan to read every row, of a part of a table for example."""
        return replace(self, since=None, missing={})

    @property
    def left_out(self) -> frozenset[str]:
        """The tables of which no row is read except in parts."""
        return self.shared if self.is_full else frozenset()

    @property
    def reads_orphans(self) -> bool:
        """Whether rows without their partner are read: deleting a partner changes no row that refers to it."""
        return not self.is_full and self.runs_since_comparison == 0

    @property
    def compared_tables(self) -> tuple[SourceTable, ...]:
        """The tables whose keys are compared, for rows that have gone without a trace. Only those a star table is made of."""
        everything = {table.name for table in self.contract.source_tables}
        due = self.redefined if self.is_answer else everything if self.runs_since_comparison == 0 else self.full_tables
        return tuple(
            table for table in self.contract.source_tables if table.name in due and self.contract.remodelled_from(table.name)
        )


def plan_run(
    contract: Contract, now: SourceFacts, before: Checkpoint | None, request: Request, compare_keys_every: int
) -> Plan:
    """Plan a full read if the last position cannot be trusted; otherwise what changed, and each redefined table in full.

    A table whose rows' transaction ids the role may not read is read in full by every run. Keys are compared for every table
    read in full, and for all tables in every `compare_keys_every`th run (0: only if asked for); an answer to loading
    compares only what was redefined.

    Raises: PermanentError for a key that the contract does not know.
    """
    carried = {
        table.name: tuple(name for name in now.tables[table.name].new_columns if name not in now.tables[table.name].unreadable)
        for table in contract.source_tables
        if table.drift is Drift.CARRY
    }
    command = None if isinstance(request, LookUpKeysData) else request  # None: the run answers loading
    asked = ("asked for",) if command is not None and command.mode is Mode.FULL else ()
    doubts = ("first run",) if before is None else _doubts(contract, now, before)
    everything = frozenset(table.name for table in contract.source_tables)
    changed = everything if before is None or doubts else redefined(now, before)
    common = Plan(
        contract,
        since=None,
        full_tables=everything,
        reasons=(*asked, *doubts),
        redefined=changed,
        looked_up=keys_asked_for(contract, request.rows) if isinstance(request, LookUpKeysData) else {},
        believe_empty=request.believe_empty,
        is_answer=command is None,
        carried=carried,
    )
    if before is None or asked or doubts:
        return common
    runs_since = None if before.runs_since_key_comparison is None else before.runs_since_key_comparison + 1
    is_due = compare_keys_every > 0 and (runs_since is None or runs_since >= compare_keys_every)
    return replace(
        common,
        since=before.snapshot,
        full_tables=changed | versionless(now),
        reasons=tuple(f"the definition of '{name}' changed" for name in sorted(changed)),
        runs_since_comparison=0 if command is not None and (command.compare_keys or is_due) else runs_since,
        reread={} if command is None else keys_asked_for(contract, command.reread),
    )


def _doubts(contract: Contract, now: SourceFacts, before: Checkpoint) -> tuple[str, ...]:
    """Why the position of the last run means nothing for this source; usually no reason."""
    changed = ("the contract changed",) if before.contract != contract.fingerprint else ()
    return (*changed, *distrust(now, before))


def keys_asked_for(contract: Contract, asked: Iterable[RowsOf]) -> dict[str, tuple[Key, ...]]:
    """The keys asked for, by table. Raises: PermanentError for one that no row can have, without its values."""
    tables = {table.name: table for table in contract.source_tables}
    keys: dict[str, tuple[Key, ...]] = {}
    for rows in asked:
        table = tables.get(rows.table)
        if table is None or any(len(key) != len(table.key) for key in rows.keys):
            raise PermanentError(
                f"'{rows.table}' with keys of that length is not in contract '{contract.name}'; correct the command"
            )
        for number, key in enumerate(rows.keys, start=1):
            if (name := misspelled_column(table, key)) is not None:
                raise PermanentError(
                    f"a key of '{rows.table}' is not as PostgreSQL spells it (number {number} of {len(rows.keys)} in the "
                    f"command): '{name}' is {codec_of(table.column(name).type).key_form}; correct the command"
                )
        if rows.keys:
            keys[rows.table] = keys.get(rows.table, ()) + rows.keys
    return keys
