"""The source as a run finds it: its snapshot, its identity, its tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import asyncpg

from contracts.messages import Snapshot
from contracts.state import SourceIdentity
from contracts.tables import Contract
from shared.catalog import SourceTableFacts, read_catalog
from shared.postgres import Database

SNAPSHOT_QUERY = (files("services.ingestion") / "queries" / "snapshot.sql").read_text()


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """One REPEATABLE READ snapshot: everything a run reads, it reads as of this instant."""

    snapshot: Snapshot
    next_xid: int
    identity: SourceIdentity
    tables: Mapping[str, SourceTableFacts]


@asynccontextmanager
async def open_snapshot(source: Database, contract: Contract) -> AsyncIterator[tuple[asyncpg.Connection, SourceSnapshot]]:
    """A read-only transaction, and what it sees. The horizon is taken before the first row is read.

    Raises: SourceMismatchError, DependencyDownError, TransientError, PermanentError.
    """
    async with source.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(SNAPSHOT_QUERY)
        yield connection, _snapshot(dict(row or {}), await read_catalog(connection, contract))


def _snapshot(row: Mapping[str, Any], tables: Mapping[str, SourceTableFacts]) -> SourceSnapshot:
    return SourceSnapshot(
        snapshot=Snapshot(taken_at=row["taken_at"], horizon=row["horizon"], wal_position=row["wal_position"]),
        next_xid=row["next_xid"],
        identity=SourceIdentity.model_validate({name: row[name] for name in SourceIdentity.model_fields}),
        tables=tables,
    )
