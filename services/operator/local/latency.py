"""Seconds from commit at the source to being seen in the warehouse, watched from outside as an analyst would.

The source must keep commit timestamps (track_commit_timestamp = on), as the embedded one does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from uuid import UUID

from contracts.contract import Contract
from services.operator.proof.expected import BASE, expected_value
from shared.ledger import loaded_batches
from shared.postgres import Database
from shared.sql import quoted

Version = tuple[str, ...]  # table, then business key and version in their canonical text


@dataclass(frozen=True, slots=True)
class Latency:
    """Of `count` row versions: the seconds from commit to sight, the middle one and the worst."""

    count: int
    median: float
    worst: float


@dataclass
class Watch:
    """Notes when each version of a fact is first seen. `seen` is by version, on this machine's clock."""

    contract: Contract
    warehouse: Database
    seen: dict[Version, datetime] = field(default_factory=dict)
    _batches: set[UUID] = field(default_factory=set)

    async def look(self) -> None:
        """Note every version that has come since the last look."""
        async with self.warehouse.transaction(isolation="repeatable_read", readonly=True) as connection:
            batches = await loaded_batches(connection, self.contract) - self._batches
            if not batches:
                return
            rows: list[Version] = []
            for table in self.contract.facts:
                identity = ", ".join(f"{quoted(name)}::text" for name in table.identity)
                name = quoted(self.contract.warehouse_schema, table.name)
                query = f"SELECT '{table.name}', {identity} FROM {name} WHERE _batch_id = ANY ($1::uuid[])"
                rows += [tuple(row) for row in await connection.fetch(query, list(batches))]
            now = datetime.now(UTC)
            for row in rows:
                self.seen.setdefault(row, now)
            self._batches |= batches


async def read_latency(contract: Contract, source: Database, watch: Watch, since: datetime) -> Latency | None:
    """Of every version that was committed since and is the newest of its row; None if there is none."""
    seconds = await read_seconds(contract, source, watch, since)
    return Latency(len(seconds), median(seconds), max(seconds)) if seconds else None


async def read_seconds(contract: Contract, source: Database, watch: Watch, since: datetime) -> list[float]:
    """The seconds from commit to sight of each of these versions."""
    seconds = list[float]()
    async with source.transaction(readonly=True) as connection:
        for table in contract.facts:
            if contract.source_table(table.source).full:
                continue
            identity = ", ".join(f"({expected_value(contract, table, table.column(name))})::text" for name in table.identity)
            relation = quoted(*contract.relation_of(contract.source_table(table.source)))
            committed = f"pg_xact_commit_timestamp({quoted(BASE)}.xmin)"
            rows = await connection.fetch(
                f"SELECT {committed} AS committed, '{table.name}', {identity} "
                f"FROM {relation} AS {quoted(BASE)} WHERE {committed} >= $1",
                since,
            )
            for moment, *version in rows:
                if (seen := watch.seen.get(tuple(version))) is not None:
                    seconds.append((seen - moment).total_seconds())
    return seconds
