from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

import pytest
from pydantic import SecretStr, ValidationError

from services.ingestion.settings import IngestionSettings
from shared.each_source import TRIED_AGAIN_AFTER, serve_each
from shared.errors import PermanentError
from shared.service import Together, World, consume
from shared.settings import explained
from shared.testing import FakeObjectStore, FakeQueue
from tests.fixtures.limits import HANG
from tests.fixtures.several_sources import SEVERAL
from tests.unit.shared.consumer.scene import Script, body, until

QUEUES = {
    f"STARLIFT_{name}_URL{end}": f"https://sqs/1/{name.lower()}{end.lower()}"
    for name in ("QUEUE", "DEAD_LETTER", "NEXT_QUEUE")
    for end in ("", "_PLANS", "_REGIONS")
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"STARLIFT_SOURCE_URL": "postgresql://reader@one/shop", "STARLIFT_SOURCE_SECRET_PLANS": "two"}
    others["STARLIFT_SOURCE_URL_REGIONS"] = "postgresql://reader@three/regions"
    for name, value in {**QUEUES, **others}.items():
        monkeypatch.setenv(name, value)


def settings(source: str = "shop") -> IngestionSettings:
    return IngestionSettings(
        region="eu-west-2",
        source_name=source,
        contract=SEVERAL,
        landing_bucket="landing",
        processed_bucket="processed",
        slots=1,
        handler_limit=timedelta(minutes=15),
        poll_wait=timedelta(seconds=1),
    )


def test_each_source_has_its_own_queues_and_database() -> None:
    found = settings().by_source()
    assert {name: own.queue_url for name, own in found.items()} == {
        "shop": "https://sqs/1/queue",
        "plans": "https://sqs/1/queue_plans",
        "regions": "https://sqs/1/queue_regions",
    }
    assert (found["shop"].source_url, found["shop"].source_secret) == (SecretStr("postgresql://reader@one/shop"), None)
    assert (found["plans"].source_url, found["plans"].source_secret) == (None, "two")
    assert [own.source_name for own in found.values()] == list(found)


def test_a_missing_variable_of_another_source_and_a_name_that_is_none_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARLIFT_DEAD_LETTER_URL_PLANS")
    monkeypatch.delenv("STARLIFT_SOURCE_URL_REGIONS")
    with pytest.raises(ValidationError) as refusal:
        settings()
    assert explained(refusal.value, IngestionSettings) == (
        "invalid settings: STARLIFT_DEAD_LETTER_URL_PLANS is missing; set it; STARLIFT_SOURCE_URL_REGIONS and "
        "STARLIFT_SOURCE_SECRET_REGIONS are missing; set one of them"
    )
    with pytest.raises(
        ValidationError, match="STARLIFT_SOURCE_NAME=totesys is not one of the contract's sources shop, plans, reg"
    ):
        settings("totesys")
    with pytest.raises(ValidationError, match="STARLIFT_SOURCE_NAME=files is also a folder of the buckets"):
        settings("files")


def worlds() -> dict[str, World]:
    together = Together()
    return {name: World(FakeQueue(name), FakeQueue(), None, FakeObjectStore("landing"), together) for name in SEVERAL.sources}


async def test_a_signal_stops_the_consumer_of_every_source() -> None:
    opened, handler = worlds(), Script()
    for world in opened.values():
        await world.queue.send(body())

    async def serve(own: IngestionSettings, world: World) -> None:
        await consume(own, world, handler, ["landing"])

    serving = asyncio.create_task(serve_each(settings(), opened, serve))
    await until(lambda: len(handler.calls) == len(opened), within=HANG)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(HANG.total_seconds()):
        await serving
    assert [(await world.queue.depth()).in_flight for world in opened.values()] == [0, 0, 0]


@pytest.mark.virtual_clock
async def test_a_source_that_cannot_be_served_is_tried_again_while_others_are() -> None:
    opened, tries = worlds(), dict.fromkeys(SEVERAL.sources, 0)

    async def serve(own: IngestionSettings, world: World) -> None:
        tries[own.source_name] += 1
        if own.source_name == "plans" and tries["plans"] < 3:
            raise PermanentError("the secret of the source does not exist")
        await world.together.stopped.wait()

    serving = asyncio.create_task(serve_each(settings(), opened, serve))
    await asyncio.sleep(3 * TRIED_AGAIN_AFTER.total_seconds())
    assert tries == {"shop": 1, "plans": 3, "regions": 1}
    opened["shop"].together.stop()
    await serving


@pytest.mark.virtual_clock
async def test_a_service_ends_when_no_source_can_be_served() -> None:
    async def serve(own: IngestionSettings, _world: World) -> None:
        raise PermanentError(f"no queue for {own.source_name}")

    with pytest.raises(ExceptionGroup) as ended:
        await serve_each(settings(), worlds(), serve)
    assert "no queue for regions" in str(ended.value.exceptions[0])
