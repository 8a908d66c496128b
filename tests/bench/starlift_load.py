"""Starlift's first load as its user sees it: from one command, through SQS and S3, to the complete star."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from contracts.contract import Contract
from infra.local.stack import Stack
from services.operator.errors import NotLoadedError
from services.operator.ingest import request_run, wait_until_loaded
from services.operator.proof.verify import verify
from services.operator.system import System
from shared.postgres import Database
from tests.bench.usage import Usage, metered

LOAD_LIMIT = timedelta(minutes=10)
FOREIGN_KEYS_LIMIT = timedelta(minutes=1)
LOOK_EVERY_S = 0.1

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
    object_bytes: int  # in both buckets
    is_equal: bool


async def first_load(system: System, stack: Stack) -> tuple[FirstLoad, Usage]:
    """Load an empty warehouse, then have `verify` compare it with the source. Raises: NotLoadedError."""
    began, clock = datetime.now(UTC), time.monotonic()
    with metered(stack, "operator") as usage:
        request = await request_run(system)
        keys = asyncio.create_task(_wait_for_foreign_keys(system.contract, system.warehouse))
        manifest = await wait_until_loaded(system, request, limit=LOAD_LIMIT)
        try:
            whole_at = await asyncio.wait_for(keys, FOREIGN_KEYS_LIMIT.total_seconds())
        except TimeoutError:
            raise NotLoadedError(f"the run is loaded, but not every foreign key came within {FOREIGN_KEYS_LIMIT}") from None
    async with system.warehouse.connection() as warehouse:
        loaded_at: datetime = await warehouse.fetchval(_LOADED, manifest.run)
    loaded_seconds = (loaded_at - began).total_seconds()
    store = system.store
    objects = [await store.objects.listing(bucket, "") for bucket in (store.landing_bucket, store.processed_bucket)]
    load = FirstLoad(
        batches=len(manifest.batches),
        read_seconds=(manifest.completed_at - began).total_seconds(),
        loaded_seconds=loaded_seconds,
        whole_seconds=max(loaded_seconds, whole_at - clock),
        object_bytes=sum(one.byte_count for listed in objects for one in listed),
        is_equal=(await verify(system)).is_equal,
    )
    return load, usage


async def _wait_for_foreign_keys(contract: Contract, warehouse: Database) -> float:
    """The moment, on the monotonic clock, from which every foreign key of the star is there and valid."""
    wanted = sum(column.references is not None for table in contract.warehouse_tables for column in table.columns)
    async with warehouse.connection() as connection:
        while await connection.fetchval(_VALID_FOREIGN_KEYS, contract.warehouse_schema) < wanted:
            await connection.execute("SELECT pg_sleep($1)", LOOK_EVERY_S)
    return time.monotonic()
