"""A data set of rates, fetched from a server of the test's own. Nothing waits: the clock is a number that sleeping moves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp.abc import AbstractResolver
from yarl import URL

from contracts.datasets import Api, Contents, Format, RecordForm, Request
from contracts.state import DatasetState
from contracts.tables import SourceTable
from services.ingestion.api.client import Client, Limits
from services.ingestion.api.deliveries import ApiDeliveries, ApiDelivery, meaning
from services.ingestion.api.guard import Allowed
from services.ingestion.delivery import BadRecord, Record
from shared.testing import FakeObjectStore
from tests.fixtures.delivered_contract import EXCHANGE_RATE

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SECRETS = {"rates": '{"token": "t-1"}'}


@dataclass
class Time:
    """A clock that only sleeping moves."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)


@dataclass
class Scene:
    """What the fetches of a test have in common."""

    url: str
    time: Time = field(default_factory=Time)
    allow: str = "127.0.0.0/8"
    limits: Limits = field(default_factory=Limits)
    secrets: dict[str, str] = field(default_factory=lambda: dict(SECRETS))
    resolver: AbstractResolver | None = None
    proxy: str | None = None
    objects: FakeObjectStore = field(default_factory=lambda: FakeObjectStore("landing"))

    def client(self, origin: URL, requests_per_minute: int) -> Client:
        return Client(
            origin,
            Allowed.parse(self.allow),
            requests_per_minute,
            proxy=self.proxy,
            limits=self.limits,
            resolver=self.resolver,
            sleep=self.time.sleep,
            clock=self.time.clock,
            now=self.time.now,
        )

    async def secret(self, name: str) -> str:
        return self.secrets[name]

    def table(self, name: str = "exchange_rate", *, contents: Contents = Contents.SNAPSHOT, **request: Any) -> SourceTable:
        """A data set; what is given replaces what a plain request has."""
        api = request.pop("api", Api(self.url, requests_per_minute=60_000))
        form = RecordForm(request.pop("format_", Format.JSON), path=request.pop("rows", None))
        asked = Request(api, **{"path": "/rates", **request})
        dataset = replace(EXCHANGE_RATE.dataset, form=form, contents=contents, request=asked)  # type: ignore[type-var]
        return replace(EXCHANGE_RATE, name=name, dataset=dataset)

    def deliveries(self, *tables: SourceTable) -> ApiDeliveries:
        return ApiDeliveries(tables, self.client, self.secret, self.objects, "landing", self.time.clock, self.time.now)

    async def delivery(self, known: DatasetState | None = None, **request: Any) -> ApiDelivery:
        """A fetch whose request is as it was when `known` was left."""
        table = self.table(**request)
        assert table.dataset is not None
        assert table.dataset.request is not None
        left = (known or DatasetState()).model_copy(update={"asked": meaning(table, table.dataset.request)})
        found = await self.deliveries(table).next({table.name: left})
        assert found is not None
        return found

    async def fetch(self, known: DatasetState | None = None, **request: Any) -> list[dict[str, Any]]:
        """The values of the records of one fetch."""
        return [dict(one.values) for one in await records_of(await self.delivery(known, **request)) if isinstance(one, Record)]


async def records_of(delivery: ApiDelivery) -> list[Record | BadRecord]:
    return [record async for page in delivery.records() for record in page]
