"""The Starlift that a command works on: where its parts are, and clients of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from contracts.contract import Contract
from shared.clock import Clock, utc_now
from shared.database_url import database_url
from shared.errors import PermanentError
from shared.object_store import ObjectStore
from shared.postgres import Database
from shared.queue import Queue
from shared.service import Clients, open_clients
from shared.settings import SourceSettings
from shared.source_store import SourceStore

SERVICES = ("ingestion", "remodelling", "loading")
QUEUES = ("ingestion", "chunks", "remodelling", "loading")  # those of the services, and the second one of ingestion


class OperatorSettings(SourceSettings):
    """Where everything is. A database's URL is in the environment or in a secret of AWS Secrets Manager."""

    ingestion_queue_url: str
    remodelling_queue_url: str
    loading_queue_url: str
    ingestion_dead_letter_url: str
    remodelling_dead_letter_url: str
    loading_dead_letter_url: str
    chunks_queue_url: str | None = None  # None for an installation whose tasks share no full read
    chunks_dead_letter_url: str | None = None
    source_url: SecretStr | None = None  # a libpq URL, as warehouse_url
    source_secret: str | None = None  # the id of the secret that holds the URL, as warehouse_secret
    warehouse_url: SecretStr | None = None
    warehouse_secret: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """Clients of everything of one source that commands work with; queues are by the names in QUEUES."""

    settings: OperatorSettings
    contract: Contract  # the source's part
    queues: Mapping[str, Queue]
    dead_letters: Mapping[str, Queue]
    objects: ObjectStore
    source: Database | None  # None for a source of files or of an API: a proof has its rows in tables of the warehouse
    warehouse: Database
    clock: Clock = utc_now

    @property
    def database(self) -> Database:
        """The source's. Raises: PermanentError if it has none."""
        if self.source is None:
            name = self.settings.source_name
            raise PermanentError(f"source '{name}' does not have a database: its rows are delivered, as files or by an API")
        return self.source

    @property
    def store(self) -> SourceStore:
        """What is kept of the source in S3."""
        settings = self.settings
        return SourceStore(self.objects, settings.source_name, settings.landing_bucket, settings.processed_bucket)


@asynccontextmanager
async def open_system(settings: OperatorSettings) -> AsyncIterator[System]:
    """Create the clients; they connect when they are first used.

    Raises: DependencyDownError, PermanentError.
    """
    async with AsyncExitStack() as stack:
        clients = await stack.enter_async_context(open_clients(settings.region))
        warehouse = await database_url(
            "warehouse", url=settings.warehouse_url, secret_id=settings.warehouse_secret, region=settings.region
        )
        yield System(
            settings=settings,
            contract=settings.contract.part(settings.source_name),
            queues=_queues(clients, settings, "queue_url"),
            dead_letters=_queues(clients, settings, "dead_letter_url"),
            objects=clients.objects(),
            source=await _open_source(settings, stack),
            warehouse=await stack.enter_async_context(aclosing(Database("warehouse", warehouse, connections=4))),
        )


async def _open_source(settings: OperatorSettings, stack: AsyncExitStack) -> Database | None:
    if settings.contract.is_delivered(settings.source_name):
        return None
    url = await database_url("source", url=settings.source_url, secret_id=settings.source_secret, region=settings.region)
    return await stack.enter_async_context(aclosing(Database("source", url, connections=2)))


def _queues(clients: Clients, settings: OperatorSettings, kind: str) -> dict[str, Queue]:
    urls = {name: getattr(settings, f"{name}_{kind}") for name in QUEUES}
    return {name: clients.queue(url) for name, url in urls.items() if url is not None}
