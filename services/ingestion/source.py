"""The source as a run opens it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from contracts.contract import Contract
from shared.postgres import Database
from shared.source_snapshot import SourceSnapshot, read_snapshot


@asynccontextmanager
async def open_snapshot(source: Database, contract: Contract) -> AsyncIterator[tuple[asyncpg.Connection, SourceSnapshot]]:
    """A read-only transaction, and what it sees. The horizon is taken before the first row is read.

    Raises: SourceMismatchError, DependencyDownError, TransientError, PermanentError.
    """
    async with source.transaction(isolation="repeatable_read", readonly=True) as connection:
        yield connection, await read_snapshot(connection, contract)
