"""Runs of a source that is an API: what was fetched is landed before the position advances, and nothing else advances it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts.contract import Contract
from contracts.messages import BatchIngested, IngestSource, IngestSourceData, Mode, Trigger, decode
from contracts.state import DatasetState
from contracts.yaml_text import read_contract
from services.ingestion.api.deliveries import ApiDeliveries
from services.ingestion.delivered_source import DeliveredSource
from services.ingestion.handler import Dependencies, handle
from shared.envelope import opening
from shared.errors import ServerBusyError
from shared.landed import truth_of
from shared.outcome import Done
from shared.source_keys import keys_of
from shared.source_store import SourceStore
from shared.testing import EPOCH, FakeObjectStore, FakeQueue
from tests.fixtures.delivered_contract import TEXT
from tests.fixtures.http_server import answer, serving
from tests.unit.services.ingestion.api.scene import Scene


@dataclass
class ApiRuns:
    """An ingestion of the contract's API at `url`, on fakes."""

    url: str
    objects: FakeObjectStore = field(default_factory=lambda: FakeObjectStore("landing", "processed"))
    queue: FakeQueue = field(default_factory=lambda: FakeQueue("remodelling"))
    ticks: int = 0

    def __post_init__(self) -> None:
        text = TEXT.replace("https://rates.example/v1", self.url).replace(
            "requests_per_minute: 30", "requests_per_minute: 60000"
        )
        self.contract: Contract = read_contract(text, "delivered.yaml").part("rates")
        self.store = SourceStore(self.objects, "rates", "landing", "processed")
        self.restart()

    def restart(self) -> None:
        """Begin a new process, which remembers nothing."""
        scene = Scene(self.url)
        deliveries = ApiDeliveries(self.contract.source_tables, scene.client, scene.secret, self.objects, "landing")
        source = DeliveredSource(self.contract, deliveries, self.store, self._now)
        self.deps = Dependencies(source, self.store, self.queue, now=self._now, new_token=self._token)

    def _now(self) -> datetime:
        self.ticks += 1
        return EPOCH + timedelta(hours=self.ticks)

    def _token(self) -> UUID:
        self.ticks += 1
        return UUID(int=self.ticks)

    async def ingest(self, mode: Mode = Mode.CHANGES) -> list[BatchIngested]:
        before = len(self.queue.sent)
        data = IngestSourceData(source_name="rates", trigger=Trigger.OPERATOR, mode=mode)
        assert await handle(IngestSource(**opening("tests"), data=data), self.deps) == Done()
        return [batch for sent in self.queue.sent[before:] if isinstance(batch := decode(sent.body), BatchIngested)]

    async def state(self) -> DatasetState:
        found = await self.store.find_checkpoint()
        return found.datasets["exchange_rate"] if found else DatasetState()

    async def truth(self) -> dict[Any, int]:
        """The rates that the star must have, by key, in millionths."""
        table = self.contract.source_table("exchange_rate")
        truth = truth_of(self.store, self.contract, table, await self.store.find_checkpoint())
        frames = [frame async for frame in truth.current_rows()]
        return {key: rate for frame in frames for key, rate in zip(keys_of(table, frame), frame["rate"].tolist(), strict=True)}


def page(*rows: tuple[str, str, str], cursor: str | None = None) -> bytes:
    rates = [{"currency": currency, "day": day, "rate": rate} for currency, day, rate in rows]
    return answer({"data": {"rates": rates}, "next": {"cursor": cursor}})


USD, GBP, LATER = ("USD", "2026-11-26", "1.1"), ("GBP", "2026-11-27", "0.9"), ("USD", "2026-11-27", "1.2")


async def test_all_pages_become_one_run_and_the_next_begins_after_it() -> None:
    async with serving(page(USD, cursor="x"), page(GBP), page(LATER), page(LATER)) as server:
        runs = ApiRuns(server.url)
        (batch,) = await runs.ingest()
        assert sum(extract.object.row_count or 0 for extract in batch.data.extracts) == 2
        assert (await runs.state()).since == "2026-11-27"
        await runs.ingest()
        assert await runs.ingest() == []
        assert await runs.truth() == {
            ("USD", "2026-11-26"): 1_100_000,
            ("GBP", "2026-11-27"): 900_000,
            ("USD", "2026-11-27"): 1_200_000,
        }
    assert [request.target for request in server.requests] == [
        "/rates?base=EUR&since=2026-01-01",
        "/rates?base=EUR&since=2026-01-01&cursor=x",
        "/rates?base=EUR&since=2026-11-27",
        "/rates?base=EUR&since=2026-11-27",
    ]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer t-1"}


async def test_a_full_run_has_the_api_asked_for_everything_again() -> None:
    """A correction of an earlier day is not among what comes after the position."""
    corrected = ("USD", "2026-11-26", "1.3")
    async with serving(page(USD), page(LATER), page(corrected, LATER)) as server:
        runs = ApiRuns(server.url)
        await runs.ingest()
        await runs.ingest()
        assert (await runs.state()).taken_run is None
        await runs.ingest(Mode.FULL)
        assert (await runs.state()).taken_run == (await runs.state()).whole_run, "what was refused before is asked for again"
        assert await runs.truth() == {("USD", "2026-11-26"): 1_300_000, ("USD", "2026-11-27"): 1_200_000}
        assert (await runs.state()).since == "2026-11-27"
    assert server.requests[2].target == server.requests[0].target


async def test_a_fetch_that_ends_in_its_middle_announces_nothing_and_is_repeated_from_its_beginning() -> None:
    broken = answer(b"", 503, retry_after="999")
    async with serving(page(USD, cursor="x"), broken, page(USD, cursor="x"), page(GBP)) as server:
        runs = ApiRuns(server.url)
        with pytest.raises(ServerBusyError):
            await runs.ingest()
        assert (runs.queue.sent, await runs.state()) == ([], DatasetState())
        runs.restart()
        await runs.ingest()
        assert len(await runs.truth()) == 2
    assert server.requests[2].target == server.requests[0].target


async def test_a_crash_after_the_announcement_repeats_the_fetch_and_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(page(USD)) as server:
        runs = ApiRuns(server.url)
        with monkeypatch.context() as patched:

            async def killed(*_: object) -> None:
                raise KeyboardInterrupt

            patched.setattr(SourceStore, "write_manifest", killed)
            with pytest.raises(KeyboardInterrupt):
                await runs.ingest()
        assert (await runs.state()).since is None
        runs.restart()
        (batch,) = await runs.ingest()
        assert await runs.truth() == {("USD", "2026-11-26"): 1_100_000}
    assert len(server.requests) == 2
    assert batch.data.run > 1


async def test_a_refused_fetch_is_recorded_and_the_next_command_asks_again() -> None:
    async with serving(answer(b"", 404), page(USD)) as server:
        runs = ApiRuns(server.url)
        assert await runs.ingest() == []
        assert b"GET /rates was answered 404" in runs.objects.buckets["landing"]["files/exchange_rate/last-fetch.json"]
        assert len(await runs.ingest()) == 1


async def test_a_record_that_changes_places_while_it_is_paged_is_taken_once() -> None:
    async with serving(page(USD, GBP, cursor="x"), page(GBP, LATER)) as server:
        runs = ApiRuns(server.url)
        await runs.ingest()
        assert len(await runs.truth()) == 3
