"""What a snapshot of a PostgreSQL source says of itself, and whether an earlier horizon still means what it meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from contracts.contract import Contract
from contracts.messages import Snapshot
from contracts.state import Checkpoint, SourceIdentity
from shared.catalog import SourceTableFacts, read_catalog

SNAPSHOT_QUERY = (files("shared") / "queries" / "snapshot.sql").read_text()
LOG_POSITION_QUERY = (files("shared") / "queries" / "log_position.sql").read_text()
UNKNOWN_POSITION = "0/0"  # PostgreSQL's own invalid position
_WITHHELD = (
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.UndefinedFunctionError,
)
HORIZON_AGE_MAXIMUM = 2**30  # transactions; beyond 2^31 a 32-bit age would turn negative and hide new rows


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """One REPEATABLE READ snapshot: everything a run reads, it reads as of this instant."""

    snapshot: Snapshot  # its position
    next_xid: int  # the first transaction id that it does not know, in 64 bits
    identity: SourceIdentity
    tables: Mapping[str, SourceTableFacts]  # by name, every source table of the contract


async def read_snapshot(connection: asyncpg.Connection, contract: Contract) -> SourceSnapshot:
    """Describe the snapshot of the transaction, whose first statement this must be. Raises: SourceMismatchError."""
    row = dict(await connection.fetchrow(SNAPSHOT_QUERY) or {})
    row |= await _log_position(connection)
    return SourceSnapshot(
        snapshot=Snapshot(taken_at=row["taken_at"], horizon=row["horizon"], wal_position=row["wal_position"]),
        next_xid=row["next_xid"],
        identity=SourceIdentity.model_validate({name: row[name] for name in SourceIdentity.model_fields}),
        tables=await read_catalog(connection, contract),
    )


async def _log_position(connection: asyncpg.Connection) -> dict[str, object]:
    """The position and timeline of the log. A position that the server withholds is UNKNOWN_POSITION, and never compared."""
    try:
        async with connection.transaction():  # a savepoint: the rest of the snapshot is still to be read
            row = await connection.fetchrow(LOG_POSITION_QUERY)
    except _WITHHELD:
        row = None
    found = {name: value for name, value in dict(row or {}).items() if value is not None}
    return {"wal_position": UNKNOWN_POSITION} | found


def distrust(now: SourceSnapshot, before: Checkpoint) -> list[str]:
    """The reasons why the horizon of an earlier run means nothing here; usually none."""
    identity, known = now.identity, before.identity
    checks = {
        "another PostgreSQL cluster": identity.system_identifier != known.system_identifier,
        "another database": identity.database_oid != known.database_oid,
        "another timeline: a failover or a restore": identity.timeline != known.timeline,
        # A crashed PostgreSQL hands out again the transaction ids whose log it had not yet written.
        "PostgreSQL recovered from a crash": identity.statistics_reset != known.statistics_reset,
        "the source's log went back": now.snapshot.wal_position != UNKNOWN_POSITION
        and lsn(now.snapshot.wal_position) < lsn(before.snapshot.wal_position),
        "the horizon is ahead of the source": before.snapshot.horizon > now.next_xid,
        "the horizon is too old": now.next_xid - before.snapshot.horizon > HORIZON_AGE_MAXIMUM,
    }
    return [reason for reason, holds in checks.items() if holds]


def redefined(now: SourceSnapshot, before: Checkpoint) -> frozenset[str]:
    """The tables whose definition changed: any of their rows may have changed without a new transaction id."""
    return frozenset(name for name, facts in now.tables.items() if facts.fingerprint != before.tables.get(name))


def versionless(now: SourceSnapshot) -> frozenset[str]:
    """The tables whose rows' transaction ids the role may not read: any of their rows may have changed."""
    return frozenset(name for name, facts in now.tables.items() if not facts.has_row_versions)


def lsn(text: str) -> int:
    """A pg_lsn ('16/B374D848') as a number of bytes."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)
