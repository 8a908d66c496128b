"""How a service starts and ends: settings, logs, clients, consumer, exit code.

A service's `__main__.py` gives its `serve` to `run_service`. `serve` opens the world and whatever else the handler depends on,
and calls `consume` with the handler; services/remodelling/__main__.py is the shortest example.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import SystemRandom
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError
from pydantic import ValidationError

from shared.consumer import Consumer, Handler, Probe, Rules
from shared.consumer.outages import PROBE_TIMEOUT
from shared.consumer.task_protection import protection
from shared.errors import DependencyDownError, LoginRefusedError, PermanentError, TransientError, decisive
from shared.logs import configure_logs
from shared.object_store import ObjectStore, S3ObjectStore
from shared.queue import ANSWER_TIMEOUT, Queue, SqsQueue
from shared.settings import POLL_WAIT_MAXIMUM, ServiceSettings, explained

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_sqs import SQSClient

FIRST_MINUTE = timedelta(minutes=1)
FAILED = 1
WRONG_SETTINGS = 2
# For encoding, parsing and hashing: each holds the rows it works on, and memory of its own that it never gives back.
THREADS = 2
SHARED_SLOTS = 2  # one message waits for a server while the other is worked on
_POLL_READ_TIMEOUT = POLL_WAIT_MAXIMUM + timedelta(seconds=10)

_log = structlog.stdlib.get_logger()
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Clients:
    """The AWS clients of one process. `receiver` makes only long polls; `once` never retries a request by itself."""

    receiver: SQSClient
    control: SQSClient
    once: SQSClient
    s3: S3Client

    def queue(self, url: str) -> Queue:
        """The queue at a URL."""
        return SqsQueue(url, receiver=self.receiver, control=self.control, once=self.once)

    def objects(self) -> ObjectStore:
        """The object store."""
        return S3ObjectStore(self.s3)


@dataclass(slots=True)
class Together:
    """The consumers of one process, one for each source. They stop together, and the task works while one of them does."""

    consumers: list[Consumer] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Stop every consumer, and those that are about to start."""
        self.stopped.set()
        for consumer in self.consumers:
            consumer.stop()

    def is_working(self) -> bool:
        """Whether a message of any source is being worked on."""
        return any(consumer.is_working() for consumer in self.consumers)


@dataclass(frozen=True, slots=True)
class World:
    """The queues and objects of a service, of one source."""

    queue: Queue
    dead_letters: Queue
    next_queue: Queue | None  # the queue that the service sends to, if it sends
    objects: ObjectStore
    together: Together = field(default_factory=Together)  # what the worlds of one process share
    shared: Queue | None = None  # the queue through which the tasks of the service share the work of one message
    shared_dead_letters: Queue | None = None  # beside it

    def require_next_queue(self) -> Queue:
        """The queue that the service sends to. Raises: PermanentError when the settings name none."""
        if self.next_queue is None:
            raise PermanentError("no queue to send messages to: set STARLIFT_NEXT_QUEUE_URL")
        return self.next_queue


@asynccontextmanager
async def open_clients(region: str) -> AsyncIterator[Clients]:
    """Clients of AWS, or of the endpoint in AWS_ENDPOINT_URL. Every request has a timeout, and botocore retries few.

    Raises: PermanentError when the environment names a profile, a region or an endpoint that does not exist.
    """
    session = get_session()
    polls = _config(read_timeout=_POLL_READ_TIMEOUT, tries=1)  # the consumer's loop retries
    control = _config(read_timeout=ANSWER_TIMEOUT, tries=2)
    single = _config(read_timeout=ANSWER_TIMEOUT, tries=1)
    objects = _config(read_timeout=timedelta(seconds=30), tries=4)
    async with AsyncExitStack() as stack:
        try:
            clients = Clients(
                receiver=await stack.enter_async_context(session.create_client("sqs", region_name=region, config=polls)),
                control=await stack.enter_async_context(session.create_client("sqs", region_name=region, config=control)),
                once=await stack.enter_async_context(session.create_client("sqs", region_name=region, config=single)),
                s3=await stack.enter_async_context(session.create_client("s3", region_name=region, config=objects)),
            )
        except (BotoCoreError, ValueError) as error:  # ValueError: a malformed AWS_ENDPOINT_URL
            raise PermanentError(
                f"AWS can't be addressed ({error}); correct AWS_PROFILE, the region or the endpoint"
            ) from error
        yield clients


@asynccontextmanager
async def open_worlds(settings: ServiceSettings) -> AsyncIterator[dict[str, World]]:
    """The queues and objects of each source that the settings name, by its name."""
    together = Together()
    async with open_clients(settings.region) as clients:

        def world(own: ServiceSettings) -> World:
            next_queue = None if own.next_queue_url is None else clients.queue(own.next_queue_url)
            queues = clients.queue(own.queue_url), clients.queue(own.dead_letter_url), next_queue
            urls = (own.shared_queue_url, own.shared_dead_letter_url)
            shared = (None if url is None else clients.queue(url) for url in urls)
            return World(*queues, clients.objects(), together, *shared)

        yield {name: world(own) for name, own in settings.by_source().items()}


async def consume(
    settings: ServiceSettings,
    world: World,
    handler: Handler,
    buckets: Collection[str],
    databases: Mapping[str, Probe] | None = None,
    conditions: Mapping[str, Probe] | None = None,
    share: Handler | None = None,
) -> None:
    """Run the consumer until SIGTERM or SIGINT.

    `buckets` are those that the service reads or writes; `databases` are probes of its databases, `conditions` of whatever else
    its messages wait for; `share` handles the messages of the shared queue, SHARED_SLOTS at once.
    Raises: PermanentError when a queue, a bucket or a database refuses the service in its first minute.
    """
    probes = {**aws_probes(world, buckets), **(databases or {})}
    missing = await require_access(probes)
    every_probe, rules, rng = {**probes, **(conditions or {})}, consumer_rules(settings), SystemRandom()
    consumers = [Consumer(handler, rules, queue=world.queue, dead_letters=world.dead_letters, probes=every_probe, rng=rng)]
    if share is not None and world.shared is not None and world.shared_dead_letters is not None:
        rules = replace(rules, slots=SHARED_SLOTS, health_file=None)  # the first consumer reports the health
        dead_letters = world.shared_dead_letters
        consumers.append(Consumer(share, rules, queue=world.shared, dead_letters=dead_letters, probes=every_probe, rng=rng))
    together, loop = world.together, asyncio.get_running_loop()
    together.consumers += consumers
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, together.stop)
    if together.stopped.is_set():
        together.stop()
    _log.info("started", queue=world.queue.name, slots=settings.slots)
    watching = asyncio.create_task(_stop_if_refused(consumers, missing))
    async with protection(settings.ecs_agent_uri, together.is_working):
        try:
            async with asyncio.TaskGroup() as group:
                for consumer in consumers:
                    group.create_task(consumer.run())
        finally:
            watching.cancel()
            for consumer in consumers:
                together.consumers.remove(consumer)
    with suppress(asyncio.CancelledError):
        await watching


def run_service(settings_type: type[SettingsT], serve: Callable[[SettingsT], Coroutine[None, None, None]]) -> int:
    """Run a service and return its exit code: 0 after a stop, 1 when it can't continue, 2 for invalid settings.

    `--help` prints the docstring of the module that was started.
    """
    if "--help" in sys.argv[1:]:
        sys.stdout.write(f"{sys.modules['__main__'].__doc__}\n")
        return 0
    try:
        settings = settings_type()
    except ValidationError as error:
        sys.stderr.write(f"{explained(error, settings_type)}\n")
        return WRONG_SETTINGS
    configure_logs(settings.service, level=settings.log_level)

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        await serve(settings)

    try:
        asyncio.run(run())
    except (TransientError, PermanentError, DependencyDownError, ExceptionGroup) as error:
        cause = decisive(error)
        if not isinstance(cause, TransientError | PermanentError | DependencyDownError):
            raise
        _log.error("service_failed", error=str(cause))
        return FAILED
    return 0


def consumer_rules(settings: ServiceSettings) -> Rules:
    """The settings that the consumer needs."""
    return Rules(
        service=settings.service,
        version=settings.version,
        slots=settings.slots,
        attempts=settings.attempts,
        handler_limit=settings.handler_limit,
        visibility_timeout=settings.visibility_timeout,
        poll_wait=settings.poll_wait,
        drain_budget=settings.drain_budget,
        defer_limit=settings.defer_limit,
        health_file=settings.health_file,
    )


def aws_probes(world: World, buckets: Collection[str]) -> dict[str, Probe]:
    """Probes of every queue and bucket of the service, and of no others, to which its role on AWS has no access.

    Asking SQS and S3 alone is not enough: a local stack that was restarted answers, and has lost its queues and buckets.
    """

    async def ask_sqs() -> None:
        for queue in (world.queue, world.dead_letters, world.next_queue, world.shared, world.shared_dead_letters):
            if queue is not None:
                await queue.depth()

    async def ask_s3() -> None:
        for bucket in buckets:
            await world.objects.keys(bucket, "is-it-there")  # a role that only writes may list, and may not read

    return {"sqs": ask_sqs, "s3": ask_s3}


async def require_access(probes: Mapping[str, Probe]) -> dict[str, Probe]:
    """Probe each dependency once, so that a refusal is found before a message suffers from it; return those that are down.

    Raises: PermanentError.
    """
    missing = {}
    for name, probe in probes.items():
        try:
            async with asyncio.timeout(PROBE_TIMEOUT.total_seconds()):
                await probe()
        except LoginRefusedError as error:
            raise PermanentError(str(error)) from error
        except (TransientError, DependencyDownError, TimeoutError) as error:
            _log.warning("not_reachable_yet", dependency=name, reason=str(error) or f"no answer within {PROBE_TIMEOUT}")
            missing[name] = probe
    return missing


async def _stop_if_refused(consumers: Collection[Consumer], missing: Mapping[str, Probe]) -> None:
    """Stop the consumers if what was down at its start refuses them within the first minute. Raises: PermanentError."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_MINUTE.total_seconds()):
            while missing:
                await asyncio.sleep(PROBE_TIMEOUT.total_seconds())
                try:
                    missing = await require_access(missing)
                except PermanentError:
                    for consumer in consumers:
                        consumer.stop()
                    raise


def _config(*, read_timeout: timedelta, tries: int) -> AioConfig:
    return AioConfig(
        connect_timeout=10,
        read_timeout=read_timeout.total_seconds(),
        max_pool_connections=20,
        retries={"mode": "standard", "total_max_attempts": tries},
        s3={"addressing_style": "path"},  # a host name per bucket resolves on AWS only
    )
