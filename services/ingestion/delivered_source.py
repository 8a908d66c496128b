"""A source of files or of an API: its snapshot is what has been delivered so far (docs/decisions/0022-files-and-apis.md).

A run takes one delivery, or none if it is asked for rows that were delivered before: to look keys up, to read rows again, or to
announce all of them, because a person asked for it or the contract has changed. Those rows are read from the truth
(shared/landed.py), and the command's next run takes the next delivery.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import pandas as pd
import structlog

from contracts.contract import Contract
from contracts.datasets import Contents
from contracts.expression_parts import columns_read
from contracts.key_hashes import TableHashes
from contracts.messages import KeyRange, LookUpKeysData, Mode, Role, Snapshot
from contracts.state import Checkpoint, DatasetState, SourceIdentity
from contracts.tables import RemodelledTable, SourceTable
from services.ingestion.delivery import Deliveries, Delivery, Taken, UnreadableDeliveryError
from services.ingestion.plan import Plan, Request, keys_asked_for
from services.ingestion.source import BatchLimits, Page, SnapshotLostError, TablePart
from services.ingestion.spool import Spool, spooled
from shared.clock import utc_now
from shared.errors import PermanentError
from shared.expressions.in_python import computed
from shared.key_hashes import sums_of, table_hashes
from shared.landed import Truth, read_as, truth_since
from shared.source_facts import UNKNOWN_POSITION, SourceFacts, SourceTableFacts
from shared.source_keys import Key, keys_of
from shared.source_store import SourceStore

NO_DATABASE = SourceIdentity(system_identifier=0, timeline=0, database_oid=0, statistics_reset="")
FROM_THE_BEGINNING = dict.fromkeys(("since", "etag", "last_modified"))  # an API is asked for everything again
INCOMPLETE = (
    "some of its records have no key that can be read, so rows that it lacks are not marked deleted; correct the records that "
    "`starlift quarantine list` shows, and deliver it again"
)
BELIEVE = "it has no record, so every row would be marked deleted; if that is right, run `starlift ingest --believe-empty`"

_log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class DeliveredSource:
    """The data sets of a source, and where their deliveries come from."""

    contract: Contract  # the source's part
    deliveries: Deliveries
    store: SourceStore
    now: Callable[[], datetime] = field(default=utc_now)

    @asynccontextmanager
    async def open_snapshot(self, request: Request | None = None) -> AsyncIterator[DeliveredSnapshot]:
        """See Source. The next delivery is read to its end, and typed: nothing is announced of one that can't be."""
        state, _ = await self.store.read_state()  # the lease has stored the run's number in it
        before = state.checkpoint
        known = dict(before.datasets) if before is not None else await self._recovered()
        truths, changed = dict[str, Truth](), dict[str, str]()
        for table in self.contract.source_tables:
            try:
                truths[table.name] = truth_since(self.store, self.contract, table, known.get(table.name))
            except PermanentError as error:
                changed[table.name] = str(error)
        async with AsyncExitStack() as stack:
            taken, delivered = None, frozenset[str]()
            if request is None or not _is_about_earlier_rows(request, before, self.contract):
                if (taken := await self._next(known, changed)) is not None:
                    stack.callback(taken.file.close)
            else:
                if changed:
                    _log.error("earlier_rows_unreadable", reasons=sorted(changed.values()))
                delivered = frozenset([name for name, truth in truths.items() if not await truth.is_empty()])
            facts = self._facts(state.run, before, taken)
            yield DeliveredSnapshot(self, facts, state.run, known, truths, delivered, taken)

    @asynccontextmanager
    async def join_snapshot(self, exported: str) -> AsyncIterator[DeliveredSnapshot]:
        """See Source. No run shares its snapshot, so a command to extract a part is of another time."""
        raise SnapshotLostError(exported)
        yield

    async def _recovered(self) -> dict[str, DatasetState]:
        """Where the truth of each data set begins, as far as manifests say: no run has ended, or the state object is lost."""
        found, names = dict[str, DatasetState](), {table.name for table in self.contract.source_tables}
        for run in reversed(await self.store.manifest_runs(after=0)):
            for batch in (await self.store.read_manifest(run)).batches:
                for extract in batch.data.extracts:
                    found.setdefault(extract.table, DatasetState(whole_run=extract.whole_run))
            if found.keys() >= names:
                break
        return found

    async def _next(self, known: dict[str, DatasetState], changed: Mapping[str, str]) -> Spool | None:
        """The next delivery that can be read and says something new. The others before it are settled, and noted in `known`."""
        while (delivery := await self.deliveries.next(known)) is not None:
            name, last = delivery.table.name, known.get(delivery.table.name, DatasetState())
            try:
                spool = await spooled(delivery)
            except UnreadableDeliveryError as error:
                await self.refuse(delivery, str(error))
                continue
            if name in changed and not spool.is_whole:
                await self.refuse(delivery, changed[name])
            elif spool.repeats(last):
                _log.info("delivery_unchanged", dataset=name, delivery=delivery.name)
                reason = "it has the same bytes as the delivery before it"
                await self.deliveries.settle(delivery, Taken(None, reason=reason, is_unchanged=True))
                known[name] = last.model_copy(update={"is_emptied": False})  # it takes the place of an empty one
            else:
                return spool
            spool.file.close()
        return None

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Settle a delivery that changes nothing, and say why."""
        advice = f"`starlift files --dataset {delivery.table.name}` shows the reason"  # which may quote the delivery
        _log.warning("delivery_refused", dataset=delivery.table.name, delivery=delivery.name, advice=advice)
        await self.deliveries.settle(delivery, Taken(None, reason=reason))

    def _facts(self, run: int, before: Checkpoint | None, taken: Spool | None) -> SourceFacts:
        new = dict(before.new_columns) if before else {}
        if taken is not None:
            new[taken.table.name] = tuple(f"{name} text" for name in sorted(taken.new_columns))
        tables = {
            table.name: SourceTableFacts(
                "delivered", 0, new_columns=dict(one.rsplit(" ", 1) for one in new.get(table.name, ()))
            )
            for table in self.contract.source_tables
        }
        position = Snapshot(taken_at=self.now(), horizon=run, wal_position=UNKNOWN_POSITION)
        return SourceFacts(position, run, NO_DATABASE, tables)


def _is_about_earlier_rows(request: Request, before: Checkpoint | None, contract: Contract) -> bool:
    if isinstance(request, LookUpKeysData) or request.compare_keys or request.reread:
        return True
    return _announces_all(request, before, contract) is not None


def _announces_all(request: Request, before: Checkpoint | None, contract: Contract) -> str | None:
    """Why the run announces every row that was delivered; None if it does not."""
    if before is not None and before.contract != contract.fingerprint:
        return "the contract changed"
    return "asked for" if not isinstance(request, LookUpKeysData) and request.mode is Mode.FULL else None


@dataclass(frozen=True, slots=True)
class DeliveredSnapshot:
    """What has been delivered by the time of a run, with the delivery that the run takes.

    No part of it can be asked for, nor exported: facts of a data set count no rows, so no run shares one out (chunks.py).
    """

    source: DeliveredSource
    facts: SourceFacts
    run: int
    known: Mapping[str, DatasetState]  # what earlier runs left, by data set, also of those that the contract no longer has
    truths: Mapping[str, Truth]  # by data set, of those whose earlier rows can be read
    delivered: frozenset[str]  # those of them of which there are any; not looked for in a run that takes a delivery
    taken: Spool | None

    def plan(self, before: Checkpoint | None, request: Request, compare_keys_every: int) -> Plan:  # noqa: ARG002 - see below
        """See OpenSnapshot. Keys are compared with each whole snapshot, and when asked for: nothing else deletes a row."""
        contract, reason = self.source.contract, _announces_all(request, before, self.source.contract)
        whole = {self.taken.table.name} if self.taken is not None and self.taken.is_whole else set()
        full = frozenset(whole if reason is None else self.delivered)
        command = None if isinstance(request, LookUpKeysData) else request
        return Plan(
            contract,
            since=None if reason is not None and len(self.truths) == len(contract.source_tables) else self.facts.snapshot,
            full_tables=full,
            reasons=(reason,) if reason is not None else (),
            redefined=full if before is not None and before.contract != contract.fingerprint else frozenset(),
            runs_since_comparison=0 if command is not None and command.compare_keys else 1,
            reread={} if command is None else keys_asked_for(contract, command.reread),
            looked_up=keys_asked_for(contract, request.rows) if isinstance(request, LookUpKeysData) else {},
            believe_empty=request.believe_empty,
            is_answer=command is None,
            datasets={**self.known, **{table.name: self._left(table, full, request) for table in contract.source_tables}},
            may_wait=self.taken is not None or _is_about_earlier_rows(request, before, contract),
        )

    def _left(self, table: SourceTable, full: frozenset[str], request: Request) -> DatasetState:
        """What the run leaves of a data set."""
        known, taken = self.known.get(table.name, DatasetState()), self.taken
        if taken is not None and taken.table == table:
            if taken.is_emptied and not request.believe_empty:
                return known.model_copy(update={"is_emptied": True})
            left = read_as(table, taken.state()).model_copy(update={"is_emptied": False})
            return left.model_copy(update={"whole_run": self.run, "taken_run": self.run}) if taken.is_whole else left
        is_believed = known.is_emptied and request.believe_empty
        if is_believed or table.name in full:
            update = {"whole_run": self.run, "sha256": None, "is_emptied": known.is_emptied and not is_believed}
            update |= {"taken_run": self.run} if is_believed else {}
            known = read_as(table, known).model_copy(update=update)
        is_full = not isinstance(request, LookUpKeysData) and request.mode is Mode.FULL
        if is_full and table.dataset is not None and table.dataset.request is not None:
            return known.model_copy(update={**FROM_THE_BEGINNING, "taken_run": self.run})
        return known

    async def pages(self, plan: Plan, limits: BatchLimits, part: TablePart | None = None) -> AsyncGenerator[list[Page], None]:
        """See OpenSnapshot. A data set has no partners, and no parts."""
        if part is not None:
            raise NotImplementedError
        for table in self.source.contract.source_tables:
            async with aclosing(self._frames(plan, table, limits)) as frames:
                async for frame in frames:
                    size = 1 + int(frame.memory_usage(deep=True).sum()) // max(1, len(frame))
                    count = max(1, min(limits.rows, limits.byte_count // 2 // size))
                    for start in range(0, len(frame), count):
                        rows = frame.iloc[start : start + count].reset_index(drop=True)
                        page = asyncio.get_running_loop().create_future()
                        page.set_result(rows)
                        whole_run = plan.datasets[table.name].whole_run
                        yield [Page(table, Role.BASE, table.extract_types, len(rows), len(rows) * size, page, whole_run)]

    def _frames(self, plan: Plan, table: SourceTable, limits: BatchLimits) -> AsyncGenerator[pd.DataFrame, None]:
        """The rows of a data set that the run announces."""
        if self.taken is not None and self.taken.table == table:
            return self.taken.frames(limits)
        if table.name in plan.full_tables and not self._is_believed_empty(plan, table):
            return self.truths[table.name].current_rows()
        return self._asked_for(plan, table)

    async def _asked_for(self, plan: Plan, table: SourceTable) -> AsyncGenerator[pd.DataFrame, None]:
        if (keys := plan.reread.get(table.name)) and len(rows := await self._truth(table).rows_of(keys)):
            yield rows

    async def key_hashes(self, plan: Plan, table: SourceTable, star: RemodelledTable | None = None) -> TableHashes:
        """See OpenSnapshot."""
        counts, sums = Counter[int](), Counter[int]()
        if table.name not in plan.full_tables and not self._is_believed_empty(plan, table):
            read = set(plan.reread.get(table.name, ()))
            async with aclosing(self._truth(table).current_rows()) as frames:
                async for frame in frames:
                    keys = [key for key in _accepted(star, table, frame) if key not in read]
                    for bucket, count, total in await asyncio.to_thread(sums_of, keys):
                        counts[bucket] += count
                        sums[bucket] += total
        found = ((bucket, count, sums[bucket]) for bucket, count in counts.items())
        return table_hashes(table.name, found, star_table=star.name if star else None, believe_empty=plan.believe_empty)

    async def is_empty(self, table: SourceTable) -> bool:
        """See OpenSnapshot."""
        if self.taken is not None and self.taken.table == table and self.taken.is_whole:
            return not self.taken.row_count
        return table.name in self.truths and table.name not in self.delivered

    async def missing_keys(self, table: SourceTable, keys: Sequence[Key]) -> tuple[Key, ...]:
        """See OpenSnapshot."""
        return await self._truth(table).missing_keys(keys)

    def ranges(self, table: SourceTable, within: KeyRange, row_count: int) -> AsyncIterator[KeyRange]:
        """See OpenSnapshot."""
        raise NotImplementedError

    async def export(self) -> str:
        """See OpenSnapshot."""
        raise NotImplementedError

    async def completed(self, plan: Plan) -> None:
        """See OpenSnapshot."""
        if (taken := self.taken) is None:
            return
        outcome = Taken(self.run, taken.row_count, taken.bad_count)
        if taken.is_emptied and not plan.believe_empty:
            await self.source.refuse(taken.delivery, BELIEVE)
            return
        if taken.lacks_keys and taken.delivery.contents is Contents.SNAPSHOT:
            outcome = replace(outcome, reason=INCOMPLETE)
        await self.source.deliveries.settle(taken.delivery, outcome)

    def _truth(self, table: SourceTable) -> Truth:
        known = self.known.get(table.name)
        return self.truths.get(table.name) or truth_since(self.source.store, self.source.contract, table, known)

    def _is_believed_empty(self, plan: Plan, table: SourceTable) -> bool:
        return plan.believe_empty and self.known.get(table.name, DatasetState()).is_emptied


def _accepted(star: RemodelledTable | None, table: SourceTable, rows: pd.DataFrame) -> list[Key]:
    """The keys of the rows that the filter of a table of the warehouse accepts."""
    keys = keys_of(table, rows)
    if star is None or star.where is None:
        return keys
    read = {column: rows[column.name] for column in columns_read(star.where)}
    return [key for key, value in zip(keys, computed(star.where, read, len(rows)), strict=True) if value is True]
