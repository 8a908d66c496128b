"""Asks every part for its status. Parts are asked separately: one that does not answer in time is named, the rest is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import timedelta
from importlib.resources import files
from typing import TypeVar

import asyncpg

from services.operator.files import RECORDS_READ, Files, read_files
from services.operator.progress import Progress, read_progress
from services.operator.proof.verify import last_failure, last_record
from services.operator.quarantine import quarantined
from services.operator.status.report import Answers, RowCount, Service, StatusReport, freshness, report_of
from services.operator.system import System
from shared.clock import utc_now
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.ledger import KeyComparison, last_comparisons
from shared.lock_waits import LockWait, lock_waits
from shared.queue import Depth, Queue
from shared.sql import quoted

LIMIT = timedelta(seconds=2)  # for all answers; with its start-up time the command takes three seconds
COUNTED_PAGES = 25_000  # 200 MB: a scan of more takes longer than a person waits
LOCK_LIMIT = timedelta(milliseconds=50)
_ESTIMATES = (files("services.operator") / "queries" / "table_estimates.sql").read_text()

Answer = TypeVar("Answer")


async def look(
    opening: AbstractAsyncContextManager[System],
    limit: timedelta,
    *,
    services: Mapping[str, Service] | None = None,
    psql: str | None = None,
) -> StatusReport:
    """Ask every part over the network; a part that does not answer within `limit` is late.

    `services` and `psql` are what the files of a local stack show.
    """
    asking = Asking(limit)
    async with AsyncExitStack() as stack:
        system = await asking.answer("queues, warehouse", stack.enter_async_context(opening))
        if system is not None:
            return await read_status(system, asking, services=services, psql=psql)
        return report_of(Answers(utc_now(), services=services, psql=psql, silent=asking.silent, late=asking.late))


async def read_status(
    system: System, asking: Asking, *, services: Mapping[str, Service] | None = None, psql: str | None = None
) -> StatusReport:
    """The report made of the answers of queues, buckets and warehouse that came in time."""
    depths, loaded, rows, (held, files), proof, waits = await asyncio.gather(
        asking.answer("queues", asyncio.gather(_depths(system.queues), _depths(system.dead_letters))),
        asking.answer("progress", _progress(system, asking.limit / 2)),
        asking.answer("rows", _rows(system, asking.limit / 2)),
        asyncio.gather(asking.answer("quarantine", quarantined(system)), asking.answer("files", _files(system))),
        asking.answer("proof", asyncio.gather(last_record(system), last_failure(system))),
        asking.answer("locks", _lock_waits(system)),
    )
    if waits:  # only waits that last: our own statements have just waited as well, and loads briefly wait for each other
        again = await asking.answer("locks", _lock_waits(system)) or []
        waits = [wait for wait in waits if wait in again]
    queues, dead_letters = depths or ({}, {})
    progress, comparisons = loaded or (None, None)
    record, failure = proof or (None, None)
    answers = Answers(
        at=system.clock(),
        queues=queues,
        dead_letters=dead_letters,
        progress=progress,
        proof=record,
        proof_failure=failure,
        rows=rows or {},
        fresh=freshness(system.contract, progress) if progress else {},
        quarantined=None if held is None else len(held),
        comparisons=comparisons or {},
        lock_waits=tuple(waits or ()),
        files=files,
        is_delivered=system.source is None,
        services=services,
        psql=psql,
        silent=asking.silent,
        late=asking.late,
    )
    return report_of(answers)


class Asking:
    """Questions that share one deadline. `silent` and `late` map each part without an answer to the reason."""

    def __init__(self, limit: timedelta) -> None:
        self.silent: dict[str, str] = {}
        self.late: dict[str, str] = {}
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
            self.late[part] = f"no answer within {self.limit.total_seconds():g} s"
            return None
        try:
            return asking.result()
        except (DependencyDownError, TransientError, PermanentError) as error:
            self.silent[part] = str(error)
            return None


async def _depths(queues: Mapping[str, Queue]) -> dict[str, Depth]:
    return dict(zip(queues, await asyncio.gather(*(queue.depth() for queue in queues.values())), strict=True))


async def _progress(system: System, limit: timedelta) -> tuple[Progress, dict[str, KeyComparison]]:
    async with system.warehouse.transaction(readonly=True) as warehouse:
        await warehouse.execute(f"SET LOCAL lock_timeout = {_milliseconds(limit)}")
        return await read_progress(system, warehouse), await last_comparisons(warehouse, system.contract)


async def _lock_waits(system: System) -> list[LockWait]:
    async with system.warehouse.connection() as warehouse:
        return await lock_waits(warehouse)


async def _files(system: System) -> Files | None:
    return None if system.source is not None else await read_files(system, limit=RECORDS_READ)


async def _rows(system: System, limit: timedelta) -> dict[str, RowCount]:
    """The rows of every warehouse table, counted within `limit`; a large or locked table gets the planner's estimate."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + limit.total_seconds()
    schema = system.contract.warehouse_schema
    counts = {table.name: RowCount(None, exists=False) for table in system.contract.warehouse_tables}
    async with system.warehouse.connection() as warehouse:
        for found in await warehouse.fetch(_ESTIMATES, schema, list(counts)):
            estimate = max(found["estimate"], 0) or None  # -1 before the first ANALYZE
            counts[found["name"]] = RowCount(estimate, is_estimate=True)
            if found["pages"] <= COUNTED_PAGES and clock() < deadline:
                with suppress(asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):  # locked, or the scan takes too long
                    counts[found["name"]] = RowCount(await _count(warehouse, quoted(schema, found["name"]), limit / 2))
    return counts


async def _count(warehouse: asyncpg.Connection, relation: str, limit: timedelta) -> int:
    async with warehouse.transaction(readonly=True):
        await warehouse.execute(
            f"SET LOCAL lock_timeout = {_milliseconds(LOCK_LIMIT)}; SET LOCAL statement_timeout = {_milliseconds(limit)}"
        )
        return int(await warehouse.fetchval(f"SELECT count(*) FROM {relation}"))


def _milliseconds(span: timedelta) -> int:
    return int(span / timedelta(milliseconds=1))
