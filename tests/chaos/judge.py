"""The verdict when the faults are over: nothing lost, duplicated or left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from contracts.column_types import MICROSECONDS_PER_DAY
from contracts.failure import FAILURE_ATTRIBUTE, FailureRecord
from contracts.messages import Role
from contracts.objects import SourceKeys
from contracts.state import Manifest, SourceState
from contracts.tables import Fact
from services.operator.ingest import request_run, resend_missing, wait_until_loaded
from services.operator.progress import read_progress
from services.operator.proof.verify import verify
from services.operator.system import System
from shared.sql import quoted
from tests.fixtures.pipeline import landed_frame

SETTLE_LIMIT = timedelta(minutes=20)  # of a hang, not of a slow machine
LOOK_EVERY_S = 0.5
# Dead letters that a fault explains: LocalStack forgot the objects that a message in someone's hands refers to.
EXPLAINED_BY_AMNESIA = frozenset({"ObjectMissingError"})


@dataclass
class Findings:
    """The findings of the judge. Everything but the first block should be empty or zero."""

    runs: int = 0
    batches: int = 0
    versions_seen: int = 0
    rows_compared: int = 0
    rows_gone: int = 0
    quarantined: int = 0
    explained_dead_letters: int = 0
    sent_again: int = 0

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unexplained_dead_letters: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """True if the guarantee held."""
        return not (self.lost or self.doubled or self.different or self.unexplained_dead_letters or self.left_behind)

    def as_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return asdict(self)


async def judge(system: System, *, amnesia: bool) -> Findings:
    """Wait until everything has settled, then check all of it. `amnesia`: LocalStack was restarted in between."""
    findings = Findings()
    await _wait_until_idle(system)
    await _read_dead_letters(system, findings, amnesia=amnesia)
    findings.sent_again = await resend_missing(system)
    await wait_until_loaded(system, await request_run(system, compare_keys=True), limit=SETTLE_LIMIT)
    await _wait_until_idle(system)
    await _check_history(system, findings)
    await _check_leftovers(system, findings)
    verdict = await verify(system)
    findings.rows_compared = sum(table.expected for table in verdict.tables)
    findings.quarantined = verdict.quarantined
    if verdict.in_flight:  # nothing writes any more
        findings.left_behind.append(f"{verdict.in_flight} rows are in flight")
    findings.different = [
        f"{table.table} {difference.key} {difference.kind} {difference.columns}"
        for table in verdict.tables
        for difference in table.differences
    ]
    return findings


async def _wait_until_idle(system: System) -> None:
    """No message waits, is in flight or delayed. Raises: TimeoutError."""
    async with asyncio.timeout(SETTLE_LIMIT.total_seconds()):
        while await _waiting(system):  # noqa: ASYNC110 (SQS has no event for that)
            await asyncio.sleep(LOOK_EVERY_S)


async def _waiting(system: System) -> int:
    depths = [await queue.depth() for queue in system.queues.values()]
    return sum(depth.visible + depth.in_flight + depth.delayed for depth in depths)


async def _read_dead_letters(system: System, findings: Findings, *, amnesia: bool) -> None:
    for service, queue in system.dead_letters.items():
        while deliveries := await queue.receive(10, wait=timedelta(0), visibility=timedelta(minutes=10)):
            for delivery in deliveries:
                text = delivery.attributes.get(FAILURE_ATTRIBUTE)
                record = FailureRecord.model_validate_json(text) if text else None
                if amnesia and record is not None and record.error_type in EXPLAINED_BY_AMNESIA:
                    findings.explained_dead_letters += 1
                else:
                    why = "no failure record" if record is None else f"{record.error_type}: {record.message}"
                    findings.unexplained_dead_letters.append(f"{service}: {why}")
            await queue.delete([delivery.receipt_handle for delivery in deliveries])


async def _check_history(system: System, findings: Findings) -> None:
    """Every version that the snapshot of a completed run saw is in its fact table, once."""
    manifests = await system.store.manifests_after(0)
    findings.runs, findings.batches = len(manifests), sum(len(manifest.batches) for manifest in manifests)
    seen: dict[str, set[tuple[int, int]]] = {}
    for manifest in manifests:
        async for source, version in _versions(system, manifest):
            seen.setdefault(source, set()).add(version)
    for table in system.contract.warehouse_tables:
        if isinstance(table, Fact):
            held = Counter(await _held_versions(system, table))
            wanted = seen.get(table.source, set())
            findings.versions_seen += len(wanted)
            findings.lost += [f"{table.name} {version}" for version in sorted(wanted - held.keys())]
            findings.doubled += [f"{table.name} {version}" for version, count in held.items() if count > 1]


async def _versions(system: System, manifest: Manifest) -> AsyncIterator[tuple[str, tuple[int, int]]]:
    for batch in manifest.batches:
        for extract in batch.data.extracts:
            source = system.contract.source_table(extract.table)
            is_fact = any(isinstance(table, Fact) for table in system.contract.remodelled_from(extract.table))
            if extract.role is Role.BASE and is_fact:
                frame = await landed_frame(system.objects, system.contract, extract)
                for version in zip(frame[source.key[0]].tolist(), frame["last_updated"].tolist(), strict=True):
                    yield extract.table, version


async def _held_versions(system: System, table: Fact) -> list[tuple[int, int]]:
    date, time = (quoted(name) for name in table.version)
    microseconds = (
        f"({date} - date '1970-01-01')::bigint * {MICROSECONDS_PER_DAY} + (date_part('epoch', {time}) * 1000000)::bigint"
    )
    async with system.warehouse.connection() as connection:
        name = quoted(system.contract.warehouse_schema, table.name)
        rows = await connection.fetch(f"SELECT {quoted(table.key[0])}, {microseconds} FROM {name}")
    return [(row[0], row[1]) for row in rows]


async def _check_leftovers(system: System, findings: Findings) -> None:
    """Every manifest is loaded, and the source's lease is free."""
    settings = system.settings
    async with system.warehouse.connection() as connection:
        findings.rows_gone = await connection.fetchval("SELECT count(*) FROM starlift.tombstone")
        progress = await read_progress(system, connection)
    findings.left_behind += [f"batch {batch.data.batch_id} of run {batch.data.run} is not loaded" for batch in progress.missing]
    found = await system.objects.read(settings.landing_bucket, SourceKeys(settings.source_name).state)
    state = None if found is None else SourceState.model_validate_json(found.body)
    if state is not None and state.lease is not None and state.lease.until > datetime.now(UTC):
        findings.left_behind.append(f"run {state.run} holds the lease until {state.lease.until}")
