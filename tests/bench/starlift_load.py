"""Starlift's first load as its user sees it: from one command, through SQS and S3, to the complete star."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contracts.contract import Contract
from infra.local.stack import Stack
from services.operator.errors import NotLoadedError
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.proof.verify import verify
from services.operator.system import System
from shared.postgres import Database

LOAD_LIMIT = timedelta(minutes=10)
FOREIGN_KEYS_LIMIT = timedelta(minutes=1)
LOOK_EVERY_S = 0.02

_LOADED = "SELECT max(loaded_at) FROM starlift.ledger WHERE run = $1"
_VALID_FOREIGN_KEYS = """
SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = $1::text::regnamespace
"""


@dataclass(frozen=True, slots=True)
class FirstLoad:
    """Seconds from sending the command until all rows were read, until they were loaded, and until the star was complete.

    Reading ends when the run's manifest is written, loading when the ledger has its last batch; a complete star has all its
    foreign keys, valid. The stages overlap.
    """

    batches: int
    read_seconds: float
    loaded_seconds: float
    whole_seconds: float
    is_equal: bool
    peak_rss_bytes: dict[str, int]


async def first_load(system: System, stack: Stack) -> FirstLoad:
    """Load an empty warehouse, then have `verify` compare it with the source. Raises: NotLoadedError."""
    began, clock = datetime.now(UTC), time.monotonic()
    request = await request_run(system)
    keys = asyncio.create_task(_wait_for_foreign_keys(system.contract, system.warehouse))
    manifest = await wait_until_loaded(system, request, limit=LOAD_LIMIT)
    try:
        whole_at = await asyncio.wait_for(keys, FOREIGN_KEYS_LIMIT.total_seconds())
    except TimeoutError:
        raise NotLoadedError(f"the run is loaded, but not every foreign key came within {FOREIGN_KEYS_LIMIT}") from None
    peaks = {service: peak_rss_bytes(stack.state.processes[service].pid) for service in stack.topology.services}
    async with system.warehouse.connection() as warehouse:
        loaded_at: datetime = await warehouse.fetchval(_LOADED, manifest.run)
    loaded_seconds = (loaded_at - began).total_seconds()
    return FirstLoad(
        batches=len(manifest.batches),
        read_seconds=(manifest.completed_at - began).total_seconds(),
        loaded_seconds=loaded_seconds,
        whole_seconds=max(loaded_seconds, whole_at - clock),
        is_equal=(await verify(system)).is_equal,
        peak_rss_bytes={service: peak for service, peak in peaks.items() if peak is not None},
    )


async def _wait_for_foreign_keys(contract: Contract, warehouse: Database) -> float:
    """The moment, on the monotonic clock, from which every foreign key of the star is there and valid."""
    wanted = sum(column.references is not None for table in contract.warehouse_tables for column in table.columns)
    async with warehouse.connection() as connection:
        while await connection.fetchval(_VALID_FOREIGN_KEYS, contract.warehouse_schema) < wanted:
            await connection.execute("SELECT pg_sleep($1)", LOOK_EVERY_S)
    return time.monotonic()


def peak_rss_bytes(pid: int) -> int | None:
    """The most memory that a process ever had resident; known only on Linux."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
