"""The history check: every version of a fact that a loaded batch brought is in the fact table once, and the newest is current.

The ledger says which batches were loaded, their objects in the processed bucket which versions they brought. Everything is
looked up in one snapshot of the warehouse, and no more than the rows of one group of batches is in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import Any

import asyncpg
from pydantic import BaseModel, computed_field, field_serializer

from contracts.proofs import HistoryBaseline
from contracts.tables import Fact
from contracts.warehouse import LEDGER
from services.operator.proof.actual import current_relation
from services.operator.proof.history_sql import FactHistorySql
from services.operator.proof.loaded import LoadedBatch, Texts, read_versions
from services.operator.system import System
from services.operator.wording import clock, counted, printable
from shared.errors import PermanentError
from shared.ledger import TABLE_BATCHES
from shared.postgres import read_in_parts

Group = list[tuple[LoadedBatch, list[Texts]]]  # batches, and the versions that each brought
GROUP_ROWS = 250_000  # of one fact in memory at once; a batch has no more
GROUP_BATCHES = 32  # objects read at once
LOOKED_UP_ROWS = 10_000  # in one statement
PREFETCH_ROWS = 1_000
NAMED_MAXIMUM = 10_000  # problems of one fact: the others are only counted
NO_RUN, EVER = -(2**63), datetime.min.replace(tzinfo=UTC)  # below and before every row


@unique
class Flaw(StrEnum):
    """What is wrong with a version."""

    LOST = "lost"  # a loaded batch brought it, and the table does not have it
    CHANGED = "changed"  # of a dimension: its columns are not what the batch brought
    DOUBLED = "doubled"  # several rows hold it
    UNKNOWN = "unknown"  # the fact table has it, and no batch that could be read brought it
    # Its row is of another run than the last that brought it, which of a data set with a version may well be.
    WRONG_RUN = "of a wrong run"
    NOT_CURRENT = "not current"  # it should be, and the view does not show it
    WRONGLY_CURRENT = "wrongly current"  # the view shows it, and should not


@dataclass(frozen=True, slots=True)
class FlawedVersion:
    """A version with a flaw."""

    flaw: Flaw
    key: Texts  # the texts of its key
    version: Texts  # the texts of its version columns
    detail: str = ""  # how the flaw shows

    def __str__(self) -> str:
        """Which version, what is wrong with it, and how that shows."""
        name = f"{', '.join(map(printable, self.key))} of {' '.join(map(printable, self.version))} is {self.flaw}"
        return f"{name} ({self.detail})" if self.detail else name


class FactHistory(BaseModel, frozen=True):
    """The history of one fact."""

    table: str
    rows: int  # of the fact table
    versions: int  # that loaded batches brought, each looked up in the table
    batches: int  # that brought them
    unread_batches: int  # whose object is gone: what they brought is not checked
    unread_until: datetime | None  # when the last of those was loaded, on the warehouse's clock
    flawed: int  # problems
    problems: tuple[FlawedVersion, ...]  # the first NAMED_MAXIMUM of them

    @property
    def sentence(self) -> str:
        """What was looked up, and what can't be any more."""
        looked_up = f"{counted(self.versions, 'version', 'versions')} of {counted(self.batches, 'batch', 'batches')}"
        sentence = f"{self.table} history: {looked_up} looked up in {counted(self.rows, 'row', 'rows')}"
        if self.unread_until is None:
            return sentence
        gone = counted(self.unread_batches, "batch", "batches")
        return f"{sentence}; the objects of {gone} are gone (the last was loaded {clock(self.unread_until)})"


class HistoryVerdict(BaseModel, frozen=True, serialize_by_alias=True):
    """The history of every fact that was checked."""

    begun_at: datetime | None = None  # when the history was started over, on the warehouse's clock; None if it never was
    facts: tuple[FactHistory, ...]  # in the order of the contract

    @field_serializer("facts")
    def _by_table(self, facts: tuple[FactHistory, ...]) -> dict[str, FactHistory]:
        return {fact.table: fact for fact in facts}

    @computed_field(alias="complete")  # type: ignore[prop-decorator]
    @property
    def is_complete(self) -> bool:
        """Whether every version that could be checked is there once, and the right ones are current."""
        return not any(fact.flawed for fact in self.facts)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, without its first words."""
        versions = counted(sum(fact.versions for fact in self.facts), "loaded version", "loaded versions")
        begun = f" since it was started over at {clock(self.begun_at)}" if self.begun_at else ""
        if self.is_complete:
            return f"{versions}{begun}, each there once, the newest current."
        flawed = counted(sum(fact.flawed for fact in self.facts), "problem", "problems")
        return f"{flawed}, {versions}{begun} looked up."


async def check_history(
    system: System, tables: Collection[str] = (), on_fact: Callable[[str], None] = lambda _: None
) -> HistoryVerdict:
    """Check every fact, or those named in `tables`. `on_fact` is called with the name of each before it is checked.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    baseline = await read_baseline(system)
    facts = []
    async with system.warehouse.transaction(isolation="repeatable_read", readonly=True) as warehouse:
        for fact in system.contract.facts:
            if not tables or fact.name in tables:
                on_fact(fact.name)
                facts.append(await _FactCheck(system, warehouse, fact, baseline).check())
    return HistoryVerdict(facts=tuple(facts), begun_at=None if baseline is None else baseline.begun_at)


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


@dataclass(slots=True)
class _FactCheck:
    """One fact in a snapshot of the warehouse, and what was found so far."""

    system: System
    warehouse: asyncpg.Connection
    fact: Fact
    baseline: HistoryBaseline | None  # where the checked history begins; None: with the ledger
    versions: int = 0
    batches: int = 0
    unread: list[datetime] = field(default_factory=list)  # when each batch whose object is gone was loaded
    problems: list[FlawedVersion] = field(default_factory=list)
    flawed: int = 0

    async def check(self) -> FactHistory:
        sql = self._sql
        for name in (self.system.contract.own(LEDGER), sql.table, current_relation(self.system.contract, self.fact)):
            if await self.warehouse.fetchval("SELECT to_regclass($1) IS NULL", name):
                raise PermanentError(f"the warehouse has no {name} yet; load it first: `starlift ingest --wait`")
        written = {row["batch"]: row["row_count"] for row in await self.warehouse.fetch(sql.rows_by_batch())}
        async for group in self._groups():
            await self._check_group(group, sum(written.get(batch.batch_id, 0) for batch, _ in group))
        await self._check_table()
        return FactHistory(
            table=self.fact.name,
            rows=sum(written.values()),
            versions=self.versions,
            batches=self.batches,
            unread_batches=len(self.unread),
            unread_until=max(self.unread, default=None),
            flawed=self.flawed,
            problems=tuple(self.problems),
        )

    @property
    def _sql(self) -> FactHistorySql:
        return FactHistorySql(self.system.contract, self.fact)

    @property
    def _since(self) -> tuple[int, datetime]:
        """The run and the time after which everything is checked."""
        return (NO_RUN, EVER) if self.baseline is None else (self.baseline.run, self.baseline.begun_at)

    async def _groups(self) -> AsyncIterator[Group]:
        """Every batch that can still be read, as many at once as there is room for in memory."""
        waiting: list[LoadedBatch] = []
        arguments = (self.system.store.source, self.fact.name, self._since[0])
        async for record in read_in_parts(
            self.warehouse, self.system.contract.own(TABLE_BATCHES), *arguments, rows=PREFETCH_ROWS
        ):
            batch = LoadedBatch(*record)
            if waiting and (
                len(waiting) == GROUP_BATCHES or sum(one.row_count for one in waiting) + batch.row_count > GROUP_ROWS
            ):
                yield await self._read(waiting)
                waiting = []
            waiting.append(batch)
        yield await self._read(waiting)

    async def _read(self, batches: Sequence[LoadedBatch]) -> Group:
        found = await asyncio.gather(*(read_versions(self.system.store, self.fact, batch) for batch in batches))
        pairs = list(zip(batches, found, strict=True))
        self.unread += [batch.loaded_at for batch, versions in pairs if versions is None]
        return [(batch, versions) for batch, versions in pairs if versions is not None]

    async def _check_group(self, group: Group, written: int) -> None:
        """Look up what the batches brought; what `written` rows say they are of them, and are not, came from elsewhere."""
        brought = [(batch, version) for batch, versions in group for version in versions]
        self.batches += len(group)
        self.versions += len(brought)
        elsewhere = 0
        for start in range(0, len(brought), LOOKED_UP_ROWS):
            chunk = brought[start : start + LOOKED_UP_ROWS]
            arguments = ([batch.batch_id for batch, _ in chunk], *_columns(version for _, version in chunk))
            rows = await self.warehouse.fetch(self._sql.versions_elsewhere(), *arguments)
            elsewhere += len(rows)
            for row in rows:  # no row of its own batch holds the version: fine if a later batch has replaced it
                batch, version = chunk[row["position"] - 1]
                detail = f"batch {batch.batch_id} of run {batch.run} brought it"
                if not row["rows_found"]:
                    self._add(Flaw.LOST, version, detail)
                elif row["run"] is not None and row["run"] < batch.run and not self.system.contract.version_of(self.fact):
                    self._add(Flaw.WRONG_RUN, version, f"{detail}, its row is of a batch of run {row['run']}")
        if written > len(brought) - elsewhere:
            arguments = ([batch.batch_id for batch, _ in group], *_columns(version for _, version in brought))
            await self._add_rows(
                Flaw.UNKNOWN, self._sql.strangers(), *arguments, detail=lambda row: f"batch {row['batch']} did not bring it"
            )

    async def _check_table(self) -> None:
        """What the table alone shows, also of batches that can't be read any more."""
        sql = self._sql
        await self._add_rows(
            Flaw.UNKNOWN, sql.rows_of_no_batch(), *self._since, detail=lambda row: f"the ledger has no batch {row['batch']}"
        )
        await self._add_rows(
            Flaw.WRONG_RUN,
            sql.wrong_runs(),
            detail=lambda row: f"_run is {row['found']}, its batch is of run {row['expected']}",
        )
        await self._add_rows(Flaw.DOUBLED, sql.doubled_versions(), detail=lambda row: f"{row['row_count']} rows contain it")
        async for row in read_in_parts(self.warehouse, sql.wrong_currents(), rows=PREFETCH_ROWS):
            self._add(Flaw.NOT_CURRENT if row["too_few"] > 0 else Flaw.WRONGLY_CURRENT, tuple(row)[: len(self.fact.identity)])

    async def _add_rows(self, flaw: Flaw, statement: str, *arguments: Any, detail: Callable[[asyncpg.Record], str]) -> None:
        async for row in read_in_parts(self.warehouse, statement, *arguments, rows=PREFETCH_ROWS):
            self._add(flaw, tuple(row)[: len(self.fact.identity)], detail(row))

    def _add(self, flaw: Flaw, identity: Texts, detail: str = "") -> None:
        self.flawed += 1
        if len(self.problems) < NAMED_MAXIMUM:
            keys = len(self.fact.key)
            self.problems.append(FlawedVersion(flaw, identity[:keys], identity[keys:], detail))


def _columns(versions: Iterable[Texts]) -> list[list[str]]:
    """One list for each column of the versions' names."""
    return [list(column) for column in zip(*versions, strict=True)]
