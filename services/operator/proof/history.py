"""The history check: every version of a fact that a loaded batch brought is in the fact table once, and the newest is current.

The ledger says which batches were loaded, their objects in the processed bucket which versions they brought. All looks at the
warehouse are of one snapshot, and no more than the rows of one group of batches is in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from contracts.contract import Contract
from contracts.tables import Fact
from contracts.warehouse import LEDGER
from services.operator.proof.baseline import Baseline, read_baseline
from services.operator.proof.cursor import read_in_parts
from services.operator.proof.history_statements import (
    LoadedBatch,
    doubled_versions,
    rows_by_batch,
    rows_of_no_batch,
    strangers,
    versions_elsewhere,
    wrong_currents,
    wrong_runs,
)
from services.operator.proof.history_verdict import FactHistory, Flaw, HistoryVerdict, Problem, Texts
from services.operator.proof.verify import Proof
from services.operator.proof.visible import relation
from shared.errors import PermanentError
from shared.ledger import TABLE_BATCHES
from shared.sql import quoted

Group = list[tuple[LoadedBatch, list[Texts]]]  # batches, and the versions that each brought
GROUP_ROWS = 250_000  # of one fact in memory at once; a batch has no more
GROUP_BATCHES = 32  # objects read at once
LOOKED_UP_ROWS = 10_000  # in one statement
PREFETCH_ROWS = 1_000
NO_RUN, EVER = -(2**63), datetime.min.replace(tzinfo=UTC)  # below and before every row


async def check_history(
    proof: Proof, tables: Collection[str] = (), on_fact: Callable[[str], None] = lambda _: None
) -> HistoryVerdict:
    """The history of every fact, or of those named in `tables`. `on_fact` is told of each before it is checked.

    Raises: DependencyDownError, PermanentError, TransientError.
    """
    baseline = await read_baseline(proof)
    async with proof.warehouse.transaction(isolation="repeatable_read", readonly=True) as warehouse:
        facts = []
        for table in proof.contract.warehouse_tables:
            if isinstance(table, Fact) and (not tables or table.name in tables):
                on_fact(table.name)
                facts.append(await _History(proof, warehouse, table, FactHistory(table.name), baseline).check())
    return HistoryVerdict(tuple(facts), None if baseline is None else baseline.begun_at)


@dataclass(frozen=True, slots=True)
class _History:
    """One fact in a snapshot of the warehouse, what was found, and where the checked history begins, if not with the ledger."""

    proof: Proof
    warehouse: asyncpg.Connection
    fact: Fact
    found: FactHistory
    baseline: Baseline | None = None

    async def check(self) -> FactHistory:
        await self._require_there()
        counted = await self.warehouse.fetch(rows_by_batch(self._contract, self.fact))
        written = {row["batch"]: row["row_count"] for row in counted}
        self.found.rows = sum(written.values())
        async for group in self._groups():
            await self._check_group(group, sum(written.get(batch.batch_id, 0) for batch, _ in group))
        await self._check_table()
        return self.found

    @property
    def _since(self) -> tuple[int, datetime]:
        """The run and the time after which everything is checked."""
        return (NO_RUN, EVER) if self.baseline is None else (self.baseline.run, self.baseline.begun_at)

    @property
    def _contract(self) -> Contract:
        return self.proof.contract

    async def _require_there(self) -> None:
        names = (
            LEDGER,
            quoted(self._contract.warehouse_schema, self.fact.name),
            relation(self._contract, self.fact),
        )
        for name in names:
            if await self.warehouse.fetchval("SELECT to_regclass($1) IS NULL", name):
                raise PermanentError(f"the warehouse has no {name} yet; load it first: `starlift ingest --wait`")

    async def _groups(self) -> AsyncIterator[Group]:
        """Every batch that can still be read, as many at once as there is room for in memory."""
        waiting: list[LoadedBatch] = []
        arguments = (self.proof.store.source, self.fact.name, self._since[0])
        async for record in read_in_parts(self.warehouse, TABLE_BATCHES, *arguments, rows=PREFETCH_ROWS):
            batch = LoadedBatch(*record)
            if waiting and (
                len(waiting) == GROUP_BATCHES or sum(one.row_count for one in waiting) + batch.row_count > GROUP_ROWS
            ):
                yield await self._read(waiting)
                waiting = []
            waiting.append(batch)
        yield await self._read(waiting)

    async def _read(self, batches: Sequence[LoadedBatch]) -> Group:
        from services.operator.proof.versions import read_versions  # noqa: PLC0415 (pandas: half a second for every command)

        found = await asyncio.gather(*(read_versions(self.proof.store, self.fact, batch) for batch in batches))
        group: Group = []
        for batch, versions in zip(batches, found, strict=True):
            if versions is None:
                self.found.passes_over(batch.loaded_at)
            else:
                group.append((batch, versions))
        return group

    async def _check_group(self, group: Group, written: int) -> None:
        """Look up what the batches brought; what `written` rows say they are of them, and are not, came from elsewhere."""
        brought = [(batch, version) for batch, versions in group for version in versions]
        self.found.batches += len(group)
        self.found.versions += len(brought)
        elsewhere = 0
        for start in range(0, len(brought), LOOKED_UP_ROWS):
            chunk = brought[start : start + LOOKED_UP_ROWS]
            arguments = ([batch.batch_id for batch, _ in chunk], *_columns(version for _, version in chunk))
            rows = await self.warehouse.fetch(versions_elsewhere(self._contract, self.fact), *arguments)
            elsewhere += len(rows)
            for row in rows:
                self._judge(*chunk[row["position"] - 1], rows_found=row["rows_found"], run=row["run"])
        if written > len(brought) - elsewhere:
            arguments = ([batch.batch_id for batch, _ in group], *_columns(version for _, version in brought))
            await self._name(
                Flaw.UNKNOWN,
                strangers(self._contract, self.fact),
                *arguments,
                detail=lambda row: f"batch {row['batch']} did not bring it",
            )

    def _judge(self, batch: LoadedBatch, version: Texts, *, rows_found: int, run: int | None) -> None:
        """A version that its batch brought, and that no row of this batch holds. It's well if a later batch has replaced it."""
        brought = f"batch {batch.batch_id} of run {batch.run} brought it"
        if not rows_found:
            self._add(Flaw.LOST, version, brought)
        elif run is not None and run < batch.run:
            self._add(Flaw.WRONG_RUN, version, f"{brought}, its row is of a batch of run {run}")

    async def _check_table(self) -> None:
        """What the table alone shows, also of batches that can't be read any more."""
        contract, fact = self._contract, self.fact
        await self._name(
            Flaw.UNKNOWN,
            rows_of_no_batch(contract, fact),
            *self._since,
            detail=lambda row: f"the ledger has no batch {row['batch']}",
        )
        await self._name(
            Flaw.WRONG_RUN,
            wrong_runs(contract, fact),
            detail=lambda row: f"_run is {row['found']}, its batch is of run {row['expected']}",
        )
        await self._name(Flaw.DOUBLED, doubled_versions(contract, fact), detail=lambda row: f"{row['row_count']} rows hold it")
        async for row in read_in_parts(self.warehouse, wrong_currents(contract, fact), rows=PREFETCH_ROWS):
            self._add(Flaw.NOT_CURRENT if row["too_few"] > 0 else Flaw.WRONGLY_CURRENT, tuple(row)[: len(fact.identity)])

    async def _name(self, flaw: Flaw, statement: str, *arguments: Any, detail: Callable[[asyncpg.Record], str]) -> None:
        async for row in read_in_parts(self.warehouse, statement, *arguments, rows=PREFETCH_ROWS):
            self._add(flaw, tuple(row)[: len(self.fact.identity)], detail(row))

    def _add(self, flaw: Flaw, identity: Texts, detail: str = "") -> None:
        keys = len(self.fact.key)
        self.found.add(Problem(flaw, identity[:keys], identity[keys:], detail))


def _columns(versions: Iterable[Texts]) -> Iterator[list[str]]:
    """One list for each column of the versions' names."""
    return (list(column) for column in zip(*versions, strict=True))
