from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from contracts.contract import Contract
from contracts.messages import IngestSource, IngestSourceData, Mode, Trigger
from contracts.objects import SourceKeys
from contracts.state import Checkpoint, Manifest, SourceState
from services.ingestion.handler import LEASE_HELD_DELAY, Dependencies, handle
from services.ingestion.lease import take_lease
from services.ingestion.memory_source import FIRST_XID, MemorySource
from shared.catalog import SourceMismatchError
from shared.envelope import opening
from shared.errors import PermanentError, TransientError
from shared.outcome import Defer, Done
from shared.source_store import SourceStore
from shared.testing import EPOCH, FakeObjectStore, FakeQueue, loop_now

pytestmark = pytest.mark.virtual_clock
EMPTY = Contract("empty", "public", "public", (), ())
BUCKET, SOURCE = "landing", "totesys"


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(EMPTY, loop_now)


@pytest.fixture
def deps(source: MemorySource) -> Dependencies:
    store = SourceStore(FakeObjectStore(BUCKET), SOURCE, BUCKET, "processed")
    return Dependencies(source, store, FakeQueue("remodelling"), now=loop_now)


def command(trigger: Trigger, *, at: datetime = EPOCH, mode: Mode = Mode.CHANGES, source_name: str = SOURCE) -> IngestSource:
    data = IngestSourceData(source_name=source_name, mode=mode, trigger=trigger)
    return IngestSource(**{**opening("tests"), "time": at}, data=data)


def objects_of(deps: Dependencies) -> dict[str, bytes]:
    assert isinstance(deps.store.objects, FakeObjectStore)
    return deps.store.objects.buckets[BUCKET]


def checkpoint_of(deps: Dependencies) -> Checkpoint | None:
    return SourceState.model_validate_json(objects_of(deps)[SourceKeys(SOURCE).state]).checkpoint


async def test_a_run_stores_its_horizon(deps: Dependencies) -> None:
    assert await handle(command(Trigger.SCHEDULE), deps) == Done()
    found = checkpoint_of(deps)
    assert found is not None
    assert (found.snapshot.horizon, found.contract, found.started_at) == (FIRST_XID, EMPTY.fingerprint, EPOCH)


async def test_a_run_answers_the_requests_that_waited_for_it(deps: Dependencies, source: MemorySource) -> None:
    await handle(command(Trigger.SCHEDULE, at=EPOCH), deps)
    for minutes in (3, 2, 1):
        assert await handle(command(Trigger.SCHEDULE, at=EPOCH - timedelta(minutes=minutes)), deps) == Done()
    assert source.opened == 1
    assert SourceState.model_validate_json(objects_of(deps)[SourceKeys(SOURCE).state]).lease is None
    await handle(command(Trigger.SCHEDULE, at=EPOCH), deps)
    assert source.opened == 2


async def test_a_run_does_not_answer_a_request_made_while_it_opened_its_snapshot(
    deps: Dependencies, source: MemorySource
) -> None:
    """The snapshot may be older than the request, and not show the change it was made for."""
    source.delay = timedelta(seconds=10)
    await handle(command(Trigger.SCHEDULE), deps)
    await handle(command(Trigger.SCHEDULE, at=EPOCH + timedelta(seconds=5)), deps)
    assert source.opened == 2


async def test_an_operator_s_request_always_starts_a_run(deps: Dependencies, source: MemorySource) -> None:
    await handle(command(Trigger.SCHEDULE), deps)
    await handle(command(Trigger.OPERATOR, at=EPOCH - timedelta(hours=1)), deps)
    assert source.opened == 2


async def test_an_idle_run_leaves_no_manifest_unless_an_operator_waits_for_it(deps: Dependencies) -> None:
    await handle(command(Trigger.SCHEDULE), deps)
    assert set(objects_of(deps)) == {SourceKeys(SOURCE).state}
    asked = command(Trigger.OPERATOR)
    await handle(asked, deps)
    found = checkpoint_of(deps)
    assert found is not None
    manifest = Manifest.model_validate_json(objects_of(deps)[SourceKeys(SOURCE).manifest(found.run)])
    assert (manifest.requested_by, manifest.batches) == (asked.id, ())


async def test_a_run_waits_while_another_is_running(deps: Dependencies, source: MemorySource) -> None:
    await take_lease(deps.store, loop_now, uuid4)
    outcome = await handle(command(Trigger.OPERATOR), deps)
    assert isinstance(outcome, Defer)
    assert (outcome.delay, source.opened) == (LEASE_HELD_DELAY, 0)
    assert "a run of 'totesys' runs until" in outcome.reason


@pytest.mark.parametrize("failure", [SourceMismatchError("schema 'public' lacks table 'staff'"), TransientError("deadlock")])
async def test_a_failed_run_frees_the_lease_and_keeps_the_previous_horizon(
    deps: Dependencies, source: MemorySource, failure: Exception
) -> None:
    await handle(command(Trigger.OPERATOR), deps)
    before = checkpoint_of(deps)
    source.faults.add("open_snapshot", failure)
    with pytest.raises(type(failure)):
        await handle(command(Trigger.OPERATOR), deps)
    assert checkpoint_of(deps) == before
    assert await handle(command(Trigger.OPERATOR), deps) == Done()


async def test_a_full_read_logs_its_reason(deps: Dependencies) -> None:
    await handle(command(Trigger.SCHEDULE), deps)
    with capture_logs() as logs:
        await handle(command(Trigger.SCHEDULE, mode=Mode.FULL), deps)
    assert [entry["reasons"] for entry in logs if entry["event"] == "full_read"] == [("asked for",)]


async def test_a_command_for_another_source_is_refused(deps: Dependencies) -> None:
    with pytest.raises(PermanentError, match=r"^this service ingests 'totesys', not 'crm'; correct the command$"):
        await handle(command(Trigger.OPERATOR, source_name="crm"), deps)


async def test_two_sources_can_share_a_bucket(deps: Dependencies) -> None:
    await take_lease(replace(deps.store, source="crm"), loop_now, uuid4)
    assert await handle(command(Trigger.OPERATOR), deps) == Done()
