"""A source in memory, for tests: what `Source` promises, without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pandas as pd

from contracts.column_types import TEXT
from contracts.contract import Contract
from contracts.expression_parts import columns_read
from contracts.expressions import Expression
from contracts.key_hashes import TableHashes
from contracts.messages import KeyRange, Role, Snapshot
from contracts.state import Checkpoint, SourceIdentity
from contracts.tables import Path, RemodelledTable, SourceTable
from services.ingestion.plan import Plan, Request, plan_run
from services.ingestion.source import BatchLimits, Page, SnapshotLostError, TablePart
from shared.clock import utc_now
from shared.codecs import codec_of
from shared.expressions.in_python import computed
from shared.key_hashes import sums_of, table_hashes
from shared.source_facts import SourceFacts, SourceTableFacts
from shared.source_keys import Key
from shared.testing.faults import Faults

IDENTITY = SourceIdentity(system_identifier=1, timeline=1, database_oid=1, statistics_reset="")
FIRST_XID = 1_000
ROW_BYTES = 100  # of every row, as CSV

Row = Mapping[str, Any]  # values in the form of shared.codecs; a column that is left out is NULL


@dataclass(frozen=True, slots=True)
class Version:
    """A row as transaction `xid` wrote it."""

    xid: int
    row: Row


@dataclass
class MemorySource:
    """A source whose rows a test writes, and whose identity, tables and behaviour it may change."""

    contract: Contract
    now: Callable[[], datetime] = utc_now
    identity: SourceIdentity = IDENTITY
    tables: dict[str, SourceTableFacts] = field(default_factory=dict)  # what the catalog records about each, by name
    faults: Faults = field(default_factory=Faults)  # of the method "open_snapshot"
    delay: timedelta = timedelta(0)  # until a snapshot is open
    opened: int = 0  # how many snapshots were asked for
    _next_xid: int = FIRST_XID
    _open: set[int] = field(default_factory=set)  # transactions that have not ended
    _rows: dict[str, dict[Key, Version]] = field(default_factory=dict)
    _exported: dict[str, MemorySnapshot] = field(default_factory=dict)  # those that are open, by name

    def __post_init__(self) -> None:
        """Begin with tables that have no rows."""
        self._rows = {table.name: {} for table in self.contract.source_tables}
        self.tables = {name: SourceTableFacts("as created", ROW_BYTES) for name in self._rows} | self.tables

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        """A transaction, whose writes appear when it commits at the end of the block."""
        xid = self._next_xid
        self._next_xid += 1
        self._open.add(xid)
        written = MemoryTransaction(self.contract)
        try:
            yield written
        finally:
            self._open.remove(xid)
        for table, key, row in written.writes:
            if row is None:
                self._rows[table].pop(key, None)
            else:
                self._rows[table][key] = Version(xid, row)

    @asynccontextmanager
    async def join_snapshot(self, exported: str) -> AsyncIterator[MemorySnapshot]:
        """See Source."""
        if exported not in self._exported:
            raise SnapshotLostError(exported)
        yield self._exported[exported]

    @asynccontextmanager
    async def open_snapshot(self, request: Request | None = None) -> AsyncIterator[MemorySnapshot]:  # noqa: ARG002 - the port's
        """See Source."""
        self.opened += 1
        await asyncio.sleep(self.delay.total_seconds())
        async with self.faults.call("open_snapshot"):
            horizon = min(self._open, default=self._next_xid)
            position = Snapshot(taken_at=self.now(), horizon=horizon, wal_position=f"0/{self._next_xid:X}")
            rows = {name: dict(versions) for name, versions in self._rows.items()}
            tables = {name: replace(one, row_count=len(rows[name])) for name, one in self.tables.items()}
            facts = SourceFacts(position, self._next_xid, self.identity, tables)
        snapshot = MemorySnapshot(self.contract, facts, rows, exported=self._exported)
        try:
            yield snapshot
        finally:
            self._exported.pop(snapshot.name, None)


@dataclass
class MemoryTransaction:
    """What a transaction writes: a row, or None for a deleted one, by table and key."""

    contract: Contract
    writes: list[tuple[str, Key, Row | None]] = field(default_factory=list)

    def put(self, table: str, *rows: Row) -> None:
        """Insert rows, or update those that have their keys."""
        for row in rows:
            self.writes.append((table, _key_of(self.contract.source_table(table), row), row))

    def delete(self, table: str, *keys: Key) -> None:
        """Delete rows; keys that have none are passed over."""
        self.writes += [(table, key, None) for key in keys]


@dataclass(frozen=True, slots=True)
class MemorySnapshot:
    """The rows of one instant."""

    contract: Contract
    facts: SourceFacts
    rows: Mapping[str, Mapping[Key, Version]]
    exported: dict[str, MemorySnapshot] = field(default_factory=dict, kw_only=True)  # those of the source, by name
    name: str = field(default_factory=lambda: str(uuid4()), kw_only=True)

    def plan(self, before: Checkpoint | None, request: Request, compare_keys_every: int) -> Plan:
        """See OpenSnapshot."""
        return plan_run(self.contract, self.facts, before, request, compare_keys_every)

    async def pages(self, plan: Plan, limits: BatchLimits, part: TablePart | None = None) -> AsyncGenerator[list[Page], None]:
        """See OpenSnapshot."""
        size = min(limits.rows, max(1, limits.byte_count // 2 // ROW_BYTES))
        everything = (TablePart(table, KeyRange()) for table in self.contract.source_tables if table.name not in plan.left_out)
        for one in everything if part is None else [part]:
            table, versions = one.table, self.rows[one.table.name]
            keys = [key for key in self._keys(one) if self._affected(plan, table, key, versions[key])]
            for start in range(0, len(keys), size):
                page = [versions[key].row for key in keys[start : start + size]]
                yield [_page(table, Role.BASE, plan, page), *self._partners(plan, table, page)]

    async def ranges(self, table: SourceTable, within: KeyRange, row_count: int) -> AsyncIterator[KeyRange]:
        """See OpenSnapshot."""
        after = within.after
        for key in self._keys(TablePart(table, within))[row_count - 1 :: row_count]:
            if key == within.until:
                break
            yield KeyRange(after=after, until=key)
            after = key
        yield KeyRange(after=after, until=within.until)

    async def export(self) -> str:
        """See OpenSnapshot."""
        self.exported[self.name] = self
        return self.name

    def _keys(self, part: TablePart) -> list[Key]:
        after, until = part.rows.after, part.rows.until
        keys = sorted(self.rows[part.table.name])
        return [key for key in keys if (after is None or key > after) and (until is None or key <= until)]

    async def key_hashes(self, plan: Plan, table: SourceTable, star: RemodelledTable | None = None) -> TableHashes:
        """See OpenSnapshot."""
        missing = {key for rows in plan.missing.get(table.name, ()) for key in self._keys(TablePart(table, rows))}
        versions = {key: one for key, one in self.rows[table.name].items() if key not in missing}
        unread = {key: one.row for key, one in versions.items() if not self._affected(plan, table, key, one)}
        keys = unread if star is None or star.where is None else _accepted(star.where, unread)
        return table_hashes(table.name, sums_of(keys), star_table=star.name if star else None, believe_empty=plan.believe_empty)

    async def is_empty(self, table: SourceTable) -> bool:
        """See OpenSnapshot."""
        return not self.rows[table.name]

    async def missing_keys(self, table: SourceTable, keys: Sequence[Key]) -> tuple[Key, ...]:
        """See OpenSnapshot."""
        return tuple(key for key in keys if key not in self.rows[table.name])

    async def completed(self, plan: Plan) -> None:
        """See OpenSnapshot."""

    def _affected(self, plan: Plan, table: SourceTable, key: Key, version: Version) -> bool:
        if plan.since is None or table.name in plan.full_tables or key in plan.reread.get(table.name, ()):
            return True
        if version.xid >= plan.since.horizon:
            return True
        for path in self.contract.paths_of(table.name):
            reference, partner = self._partner(path, version.row)
            if path[-1].table in plan.full_tables or (partner is not None and partner.xid >= plan.since.horizon):
                return True
            if plan.reads_orphans and reference is not None and partner is None:
                return True
        return False

    def _partners(self, plan: Plan, table: SourceTable, page: Sequence[Row]) -> Iterator[Page]:
        wanted: dict[str, set[Key]] = {}
        for path in self.contract.paths_of(table.name):
            keys = {key for row in page if (key := self._partner(path, row)[0]) is not None}
            wanted.setdefault(path[-1].table, set()).update(keys)
        for name, keys in wanted.items():
            if partners := [version.row for key, version in sorted(self.rows[name].items()) if key in keys]:
                yield _page(self.contract.source_table(name), Role.PARTNER, plan, partners)

    def _partner(self, path: Path, row: Row) -> tuple[Key | None, Version | None]:
        """The key to which the last step of a path from `row` refers, and the partner that has it; None for what is missing."""
        *before, join = path
        start = self._partner(tuple(before), row)[1] if before else Version(0, row)
        values = [start.row.get(name) for name in join.on] if start else []
        key = tuple(value for value in values if value is not None)
        return (key, self.rows[join.table].get(key)) if len(key) == len(join.on) else (None, None)


def _accepted(where: Expression, rows: Mapping[Key, Row]) -> list[Key]:
    series = {
        column: pd.Series([row.get(column.name) for row in rows.values()], dtype=codec_of(column.column_type).frame)
        for column in columns_read(where)
    }
    return [key for key, value in zip(rows, computed(where, series, len(rows)), strict=True) if value is True]


def _key_of(table: SourceTable, row: Row) -> Key:
    return tuple(row[name] for name in table.key)


def _page(table: SourceTable, role: Role, plan: Plan, rows: list[Row]) -> Page:
    types = table.extract_types | dict.fromkeys(plan.carried.get(table.name, ()), TEXT)
    if table.key_text:
        rows = [{**row, table.key_text: json.dumps(list(_key_of(table, row)))} for row in rows]
    frame = asyncio.get_running_loop().create_future()
    frame.set_result(
        pd.DataFrame(
            {name: pd.Series([row.get(name) for row in rows], dtype=codec_of(kind).frame) for name, kind in types.items()}
        )
    )
    return Page(table, role, types, len(rows), len(rows) * ROW_BYTES, frame)
