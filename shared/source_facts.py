"""What is known of a snapshot of a PostgreSQL source, and whether an earlier horizon still means what it meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.messages import Snapshot
from contracts.state import Checkpoint, SourceIdentity, lsn

UNKNOWN_POSITION = "0/0"  # PostgreSQL's own invalid position
HORIZON_AGE_MAXIMUM = 2**30  # transactions; beyond 2^31 a 32-bit age would turn negative and hide new rows


@dataclass(frozen=True, slots=True)
class SourceTableFacts:
    """What the catalog records about one table."""

    fingerprint: str  # of all that changes rows without a new transaction id: see queries/catalog.sql
    row_bytes: int  # of an average row, roughly, with what is stored out of line
    row_count: int = 0  # roughly
    new_columns: Mapping[str, str] = field(default_factory=dict)  # name and type of the columns that the contract does not know
    unreadable: frozenset[str] = frozenset()  # those of them that the role may not read
    # Whether rows have transaction ids that the role may read. If not, nothing shows what changed: every run reads all of them.
    has_row_versions: bool = True

    @property
    def described_columns(self) -> tuple[str, ...]:
        """The new columns, each as name and type: 'colour text'."""
        return tuple(f"{name} {kind}" for name, kind in self.new_columns.items())


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One REPEATABLE READ snapshot, as it describes itself: everything a run reads, it reads as of this instant."""

    snapshot: Snapshot  # its position
    next_xid: int  # the first transaction id that it does not know, in 64 bits
    identity: SourceIdentity
    tables: Mapping[str, SourceTableFacts]  # by name, every source table of the contract


def distrust(now: SourceFacts, before: Checkpoint) -> list[str]:
    """The reasons why the horizon of an earlier run means nothing here; usually none."""
    identity, known = now.identity, before.identity
    checks = {
        "another PostgreSQL cluster": identity.system_identifier != known.system_identifier,
        "another database": identity.database_oid != known.database_oid,
        "another timeline: a failover or a restore": identity.timeline != known.timeline,
        # A crashed PostgreSQL hands out again the transaction ids whose log it had not yet written.
        "PostgreSQL recovered from a crash": identity.statistics_reset != known.statistics_reset,
        "the source's WAL position moved back": now.snapshot.wal_position != UNKNOWN_POSITION
        and lsn(now.snapshot.wal_position) < lsn(before.snapshot.wal_position),
        "the horizon is ahead of the source": before.snapshot.horizon > now.next_xid,
        "the horizon is too old": now.next_xid - before.snapshot.horizon > HORIZON_AGE_MAXIMUM,
    }
    return [reason for reason, holds in checks.items() if holds]


def redefined(now: SourceFacts, before: Checkpoint) -> frozenset[str]:
    """The tables whose definition changed: any of their rows may have changed without a new transaction id."""
    return frozenset(name for name, facts in now.tables.items() if facts.fingerprint != before.tables.get(name))


def versionless(now: SourceFacts) -> frozenset[str]:
    """The tables whose rows have no transaction ids that the role may read: any of their rows may have changed."""
    return frozenset(name for name, facts in now.tables.items() if not facts.has_row_versions)
