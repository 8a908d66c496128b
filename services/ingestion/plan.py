"""What a run has to read, decided from what the last run left. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.messages import Mode
from contracts.state import Checkpoint
from contracts.tables import Contract
from services.ingestion.selection import Selection
from services.ingestion.source import SourceSnapshot

HORIZON_AGE_MAXIMUM = 2**30  # transactions; beyond 2^31 a 32-bit age would turn negative and hide new rows


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read, and for each full re-read why: a reason for the whole source, or per table."""

    selection: Selection
    reasons: tuple[str, ...]


def plan_run(contract: Contract, now: SourceSnapshot, before: Checkpoint | None, mode: Mode) -> Plan:
    """Everything, if the last horizon can't be trusted; else what changed, and the whole of each table whose definition did."""
    everything = frozenset(table.name for table in contract.source_tables)
    if before is None:
        return Plan(Selection(contract, everything, None), ("first run",))
    whole = list(_reasons(contract, now, before, mode))
    if whole:
        return Plan(Selection(contract, everything, None), tuple(whole))
    changed = frozenset(name for name in everything if now.tables[name].fingerprint != before.tables.get(name))
    reasons = tuple(f"the definition of '{name}' changed" for name in sorted(changed))
    return Plan(Selection(contract, changed, before.snapshot.horizon), reasons)


def _reasons(contract: Contract, now: SourceSnapshot, before: Checkpoint, mode: Mode) -> list[str]:
    """Why the horizon of the run before says nothing about this source."""
    identity, known = now.identity, before.identity
    checks = {
        "asked for": mode is Mode.FULL,
        "the contract changed": before.contract != contract.fingerprint,
        "another PostgreSQL cluster": identity.system_identifier != known.system_identifier,
        "another database": identity.database_oid != known.database_oid,
        "another timeline: a failover or a restore": identity.timeline != known.timeline,
        # A crashed PostgreSQL hands out again the transaction ids whose log it had not yet written.
        "PostgreSQL recovered from a crash": identity.statistics_reset != known.statistics_reset,
        "the source's log went back": lsn(now.snapshot.wal_position) < lsn(before.snapshot.wal_position),
        "the horizon is ahead of the source": before.snapshot.horizon > now.next_xid,
        "the horizon is too old": now.next_xid - before.snapshot.horizon > HORIZON_AGE_MAXIMUM,
    }
    return [reason for reason, holds in checks.items() if holds]


def lsn(text: str) -> int:
    """A pg_lsn ('16/B374D848') as a number of bytes."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)
