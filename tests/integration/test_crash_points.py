"""A service dies after each of its effects in turn, and its message is delivered again.

Nothing is lost or doubled, and no reference dangles. docs/guarantees.md has the table, and tests/chaos does
the same with SIGKILL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import pytest
from pydantic import BaseModel

from contracts.messages import BatchIngested, BatchRemodelled, IngestSource, IngestSourceData, Trigger, decode
from contracts.objects import ObjectRef, SourceKeys
from contracts.state import Manifest, SourceState
from services.ingestion import handler as ingestion
from services.ingestion.postgres_source import PostgresSource
from services.ingestion.source import BatchLimits
from services.loading.postgres_warehouse import PostgresWarehouse
from services.remodelling import handler as remodelling
from shared.envelope import opening
from shared.object_store import Versioned
from shared.outcome import Done
from shared.queue import NO_ATTRIBUTES
from shared.testing import FakeObjectStore, FakeQueue
from tests.chaos.points import POINTS_OF, Point
from tests.fixtures.beginnings import begins_with, loaded_totesys
from tests.fixtures.pipeline import LANDING, PROCESSED, SOURCE, Pipeline
from tests.integration.crashes import KilledError, killing

Result = TypeVar("Result")
LEASE_IS_OVER = timedelta(minutes=1)
FOREVER = 10**6


class Process:
    """A service process that dies after effect number `lasting`; `effects` are those it had."""

    def __init__(self, lasting: int = FOREVER) -> None:
        self.effects: list[Point] = []
        self._lasting = lasting

    async def has(self, effect: Awaitable[Result], point: Point) -> Result:
        result = await effect
        self.effects.append(point)
        self.require_alive()
        return result

    def require_alive(self) -> None:
        if len(self.effects) >= self._lasting:
            raise KilledError


class Store(FakeObjectStore):
    """The buckets as seen by one process."""

    def __init__(self, shared: FakeObjectStore, process: Process) -> None:
        super().__init__()
        self.buckets = shared.buckets
        self._process = process

    async def put(self, bucket: str, key: str, body: bytes) -> None:
        self._process.require_alive()
        point = Point.MANIFEST_WRITTEN if "/manifests/" in key else Point.OBJECT_WRITTEN
        await self._process.has(super().put(bucket, key, body), point)

    async def read(self, bucket: str, key: str) -> Versioned | None:
        self._process.require_alive()
        return await super().read(bucket, key)

    async def replace(self, bucket: str, key: str, body: bytes, *, expected: str | None) -> str:
        self._process.require_alive()
        point = Point.STATE_ADVANCED if SourceState.model_validate_json(body).lease is None else Point.LEASE_TAKEN
        return await self._process.has(super().replace(bucket, key, body, expected=expected), point)


def references(value: object) -> Iterator[ObjectRef]:
    """Every object that a message refers to."""
    if isinstance(value, ObjectRef):
        yield value
    elif isinstance(value, BaseModel):
        for _, part in value:
            yield from references(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from references(part)


class Outlet(FakeQueue):
    """The next queue as seen by one process. The objects of a message must exist when it is sent."""

    def __init__(self, process: Process, objects: FakeObjectStore) -> None:
        super().__init__("next")
        self._process = process
        self._objects = objects

    async def send(self, body: str, *, delay: timedelta = timedelta(0), attributes: Mapping[str, str] = NO_ATTRIBUTES) -> str:
        self._process.require_alive()
        for ref in references(decode(body)):
            await self._objects.get(ref)
        return await self._process.has(super().send(body, delay=delay, attributes=attributes), Point.MESSAGE_SENT)

    def batches(self) -> list[Any]:
        return [decode(message.body) for message in self.sent]


@contextmanager
def perhaps_killed() -> Iterator[None]:
    try:
        yield
    except KilledError:
        return


async def ingest(command: IngestSource, pipeline: Pipeline, process: Process, later: timedelta) -> list[BatchIngested]:
    """Make one run, perhaps to its end; return what it announced."""

    def now() -> datetime:
        return datetime.now(UTC) + later

    store = replace(pipeline.store, objects=Store(pipeline.objects, process))
    outlet = Outlet(process, pipeline.objects)
    deps = ingestion.Dependencies(PostgresSource(pipeline.source, pipeline.contract), store, outlet, pipeline.limits, now=now)
    with perhaps_killed():
        assert await ingestion.handle(command, deps) == Done()
    return outlet.batches()


async def remodel(message: BatchIngested, pipeline: Pipeline, process: Process) -> list[BatchRemodelled]:
    """Remodel one batch, perhaps to its end; return what it announced."""
    outlet = Outlet(process, pipeline.objects)
    deps = remodelling.Dependencies(Store(pipeline.objects, process), outlet, pipeline.contract, PROCESSED)
    with perhaps_killed():
        assert await remodelling.handle(message, deps) == Done()
    return outlet.batches()


def command() -> IngestSource:
    return IngestSource(
        **opening("tests"), data=IngestSourceData(source_name=SOURCE, trigger=Trigger.OPERATOR, compare_keys=True)
    )


async def change(source: asyncpg.Connection, number: int) -> None:
    """Make changes for two batches, and delete a row."""
    await source.execute("DELETE FROM payment WHERE payment_id = $1", number)
    await source.execute("UPDATE department SET location = $1 WHERE department_id = 1", f"floor {number}")
    await source.execute("UPDATE sales_order SET units_sold = $1, last_updated = now() WHERE sales_order_id < 4", number)


pytestmark = begins_with(loaded_totesys(orders=40))


@pytest.fixture(params=[0, BatchLimits().bundle_rows], ids=["in Parquet", "in bundles"])
def loaded(pipeline: Pipeline, request: pytest.FixtureRequest) -> Pipeline:
    return replace(pipeline, limits=BatchLimits(rows=4, bundle_rows=request.param), few_rows=request.param)


def manifests_of(pipeline: Pipeline) -> dict[str, Manifest]:
    buckets = pipeline.objects.buckets[LANDING]
    return {
        key: Manifest.model_validate_json(body) for key, body in buckets.items() if key.startswith(SourceKeys(SOURCE).manifests)
    }


def require_order(pipeline: Pipeline, before: Mapping[str, Manifest], announced: list[BatchIngested]) -> None:
    """Require that a manifest names what was sent and that a stored horizon has its manifest: earlier rows are on their way."""
    found = manifests_of(pipeline)
    assert SourceKeys(SOURCE).manifest(pipeline.checkpoint().run) in found
    for key in found.keys() - before.keys():
        assert [batch.data.batch_id for batch in found[key].batches] == [message.data.batch_id for message in announced]


async def test_a_run_killed_after_any_of_its_effects_is_completed_by_its_redelivery(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    died_behind: list[Point] = []
    while True:
        number = len(died_behind) + 1
        await change(source, number)
        asked, killed, before = command(), Process(lasting=number), manifests_of(loaded)
        announced = await ingest(asked, loaded, killed, later=2 * number * LEASE_IS_OVER)
        require_order(loaded, before, announced)
        announced += await ingest(asked, loaded, Process(), later=(2 * number + 1) * LEASE_IS_OVER)
        for message in reversed(announced):
            await loaded.settle(await loaded.load(await loaded.remodel(message)))
        verdict = await loaded.verify()
        assert (verdict.is_equal, verdict.in_flight) == (True, 0), f"killed behind {killed.effects}"
        assert (await loaded.progress()).missing == ()
        if len(killed.effects) < number:  # it came to its end
            break
        # Comparisons wait up to five minutes for batches of an earlier run, and those of a killed one never come.
        await loaded.select("UPDATE starlift.ledger SET loaded_at = loaded_at - interval '6 minutes'")
        died_behind.append(killed.effects[-1])
    elsewhere = {Point.INPUT_DELETED, Point.CHUNK_RECORDED}  # the chaos has both, tests/integration/test_resumed_load.py chunks
    assert set(died_behind) | elsewhere == set(POINTS_OF["ingestion"])
    assert died_behind[0] is Point.LEASE_TAKEN
    assert killed.effects.count(Point.MESSAGE_SENT) == 2
    assert died_behind[-3:] == [Point.MESSAGE_SENT, Point.MANIFEST_WRITTEN, Point.STATE_ADVANCED]


async def test_a_remodelling_killed_after_any_of_its_effects_is_repeated_byte_for_byte(
    source: asyncpg.Connection, loaded: Pipeline
) -> None:
    await change(source, 1)
    await source.execute("UPDATE sales_order SET agreed_payment_date = 'soon' WHERE sales_order_id = 5")  # for the quarantine
    for message in await loaded.ingest():
        whole = Process()
        (expected,) = await remodel(message, loaded, whole)
        assert whole.effects[-1] is Point.MESSAGE_SENT
        objects = dict(loaded.objects.buckets[PROCESSED])
        for lasting in range(1, len(whole.effects) + 1):
            killed = Process(lasting)
            announced = await remodel(message, loaded, killed)
            announced += await remodel(message, loaded, Process())
            assert len(killed.effects) == lasting
            assert {(again.id, again.data) for again in announced} == {(expected.id, expected.data)}
        assert loaded.objects.buckets[PROCESSED] == objects
        await loaded.load(expected, expected)
    assert (await loaded.verify()).is_equal


@pytest.mark.parametrize(("method", "is_in"), [("_load", False), ("load", True)])
async def test_a_loader_killed_before_or_after_its_commit_loads_once(
    source: asyncpg.Connection, loaded: Pipeline, monkeypatch: pytest.MonkeyPatch, method: str, *, is_in: bool
) -> None:
    """`_load` ends inside the transaction, `load` after it."""
    ledger = "SELECT count(*)::int FROM starlift.ledger"
    ((before,),) = await loaded.select(ledger)
    await change(source, 1)
    for number, message in enumerate(await loaded.read(), start=1):
        with monkeypatch.context() as patch:
            patch.setattr(PostgresWarehouse, method, killing(getattr(PostgresWarehouse, method)))
            with pytest.raises(KilledError):
                await loaded.load(message)
        assert await loaded.select(ledger) == [(before + number - (not is_in),)]
        await loaded.load(message)
        assert await loaded.select(ledger) == [(before + number,)]
    assert (await loaded.verify()).is_equal
