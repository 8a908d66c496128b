"""What infra/topology.json says: queues, buckets, services and schedules. Terraform reads the same file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from contracts.contract import Contract
from contracts.objects import Name

FILE = Path(__file__).with_name("topology.json")
_RATE = re.compile(r"^rate\((?P<count>[1-9][0-9]*) (?P<unit>minute|hour|day)s?\)$")

SOURCE_DATABASE = "source"  # the secret that holds the login of a source
API_SECRETS = "sources/"  # what the names of the secrets of APIs begin with

Positive = Annotated[int, Field(ge=1)]
# By bucket, the keys that something may be done to; an asterisk stands for anything, slashes too, as in IAM.
Keys = dict[Name, tuple[str, ...]]


class Queue(BaseModel, frozen=True, extra="forbid"):
    """One queue, and its dead-letter queue. SQS allows a retention of 14 days."""

    visibility_timeout_s: Annotated[int, Field(ge=1, le=900)]  # shared.settings.RENEWABLE_MAXIMUM
    max_receive_count: Annotated[int, Field(ge=1, le=1000)]
    retention_s: Annotated[int, Field(ge=60, le=1_209_600)]


class Bucket(BaseModel, frozen=True, extra="forbid"):
    """How long objects, by the prefix of their keys, and older versions are kept (on AWS; locally nothing outlives a stop).

    Objects of a source of files or of an API are the truth of its data sets: they are kept until a later whole snapshot has
    replaced them, and then at least `superseded_days` from the day on which they were written.
    """

    expire_days: dict[str, Positive]
    superseded_days: Positive | None = None
    noncurrent_days: Positive


class Service(BaseModel, frozen=True, extra="forbid"):
    """One service: what it may touch, how much it works on at once, how big and how many its tasks are.

    `cpu` is in 1/1024 of a core, `memory` in MiB; `backlog_per_task` messages a task are the target of the scaling.
    The tasks of a service that `shares` a queue split the work of one message of the queue that it consumes: each is able to
    do a part, and the shared queue decides how many there are. Otherwise what a schedule feeds has as its `max` the number of
    sources: each is read under one lease, and one task more would wait.
    """

    consumes: Name
    shares: Name | None = None
    sends: tuple[Name, ...]
    reads: tuple[Name, ...]
    writes: Keys
    versions: Keys = {}  # whose versions may be listed and read
    tags: Keys = {}  # that may be tagged
    secrets: tuple[Name, ...]
    slots: Positive
    handler_limit_s: Annotated[int, Field(ge=1, le=43_200)]
    cpu: Positive
    memory: Positive
    min: Positive
    max: Positive
    backlog_per_task: Positive

    @property
    def queues(self) -> tuple[Name, ...]:
        """The queues whose messages it works on."""
        return (self.consumes,) if self.shares is None else (self.consumes, self.shares)


class Operator(BaseModel, frozen=True, extra="forbid"):
    """What `starlift` may touch where it runs as a task: every queue, and these. It is started for one command at a time."""

    reads: tuple[Name, ...]
    writes: Keys
    versions: Keys = {}
    secrets: tuple[Name, ...]
    cpu: Positive
    memory: Positive


class Alarms(BaseModel, frozen=True, extra="forbid"):
    """When an alarm notifies a person (on AWS).

    When a message waits that long, a scheduled service does nothing for that long, or no proof finds equality for that long.
    """

    oldest_message_s: Positive
    silent_minutes: Annotated[int, Field(ge=5, multiple_of=5)]
    unproved_minutes: Annotated[int, Field(ge=5, multiple_of=5)]


class ProofSchedule(BaseModel, frozen=True, extra="forbid"):
    """When the warehouse is proved without being asked (on AWS; `starlift up` has an option), and what the proof may touch.

    `expression` as EventBridge spells it. The proof runs as a task of the operator's image, with these permissions instead of
    the operator's.
    """

    expression: str
    reads: tuple[Name, ...]
    writes: Keys
    secrets: tuple[Name, ...]


@unique
class Kind(StrEnum):
    """Where the rows of a source come from."""

    DATABASE = "database"
    FILES = "files"  # that are put into the drop zone
    API = "api"


class Schedule(BaseModel, frozen=True, extra="forbid"):
    """When a source is read without being asked: `expression` as EventBridge spells it."""

    expression: str
    queue: Name
    source: Name
    kind: Kind = Kind.DATABASE

    @property
    def interval(self) -> timedelta:
        """Of a rate. Raises: ValueError for a cron expression, which only AWS understands."""
        rate = _RATE.match(self.expression)
        if rate is None:
            raise ValueError(f"the schedule '{self.expression}' is not a rate(…) of minutes, hours or days; it has no interval")
        return timedelta(**{f"{rate['unit']}s": int(rate["count"])})

    def interval_instead_of(self, wanted: timedelta | None) -> timedelta:
        """The wanted one for a database; files are announced, and an API keeps its own interval. Raises: as `interval`."""
        return wanted if wanted is not None and self.kind is Kind.DATABASE else self.interval


@dataclass(frozen=True, slots=True)
class Source:
    """What the queues, schedule and secrets of a source depend on."""

    kind: Kind = Kind.DATABASE
    datasets: tuple[str, ...] = ()  # of files


class Topology(BaseModel, frozen=True, extra="forbid"):
    """The whole. Reading it checks that it does not contradict itself.

    The file has the queues, the schedule and the secrets of the main source only, as if it were a database; `with_sources` adds
    those of others. `delivered` has the schedules of sources of the other kinds.
    """

    name: Name
    region: str
    queues: dict[Name, Queue]
    message_bytes: Annotated[int, Field(ge=1024, le=1_048_576)]  # SQS
    dead_letter_suffix: str
    dead_letter_retention_s: Annotated[int, Field(ge=60, le=1_209_600)]
    buckets: dict[Name, Bucket]
    secrets: tuple[Name, ...]
    services: dict[Name, Service]
    operator: Operator
    attempts: Positive
    stop_timeout_s: Annotated[int, Field(ge=1, le=120)]  # Fargate
    drain_budget_s: Positive
    alarms: Alarms
    proof: ProofSchedule
    schedules: dict[str, Schedule]
    delivered: dict[Kind, str]
    drop_zone: dict[Name, Name] = {}  # by data set of files, the queue on which its files are announced

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        broken = "; ".join(self._broken_rules())
        if broken:
            raise ValueError(broken)
        return self

    def with_sources(self, sources: Mapping[str, Source]) -> Topology:
        """The same for these sources. The first one keeps the names; those of another one's resources end with its name."""
        ((schedule, first),) = self.schedules.items()
        ends = {name: of_source("", name) if place else "" for place, name in enumerate(sources)}
        schedules = {
            f"ingest-{name}" if ends[name] else schedule: Schedule(
                expression=self.delivered.get(source.kind, first.expression),
                queue=first.queue + ends[name],
                source=name,
                kind=source.kind,
            )
            for name, source in sources.items()
        }
        databases = [SOURCE_DATABASE + ends[name] for name, source in sources.items() if source.kind is Kind.DATABASE]
        update = {
            "queues": {queue + end: settings for end in ends.values() for queue, settings in self.queues.items()},
            "secrets": (*databases, *(secret for secret in self.secrets if secret != SOURCE_DATABASE)),
            "schedules": schedules,
            "drop_zone": {dataset: first.queue + ends[name] for name in sources for dataset in sources[name].datasets},
        }
        return self.model_copy(update=update)

    def queue_name(self, queue: str) -> str:
        """Of a queue on AWS: unique in an account and region."""
        return f"{self.name}-{queue}"

    def dead_letter_name(self, queue: str) -> str:
        """Of the queue beside it."""
        return f"{self.queue_name(queue)}{self.dead_letter_suffix}"

    def bucket_name(self, bucket: str, stack: str) -> str:
        """Of a bucket: unique among all of AWS, so it carries the stack's name."""
        return f"{self.name}-{bucket}-{stack}"

    def secret_name(self, secret: str, stack: str) -> str:
        """Of a database's URL in Secrets Manager, or of an API's credentials, whose name here begins with API_SECRETS."""
        return f"{self.name}/{stack}/{secret}"

    def _broken_rules(self) -> Iterator[str]:
        known: dict[str, Collection[str]] = {"queue": self.queues, "bucket": self.buckets, "secret": self.secrets}
        for kind, owner, name in self._references():
            if name not in known[kind]:
                yield f"{owner} names the {kind} '{name}', which is not one of {sorted(known[kind])}"
        for name, service in self.services.items():
            if len(service.sends) > 1:
                yield f"service '{name}' sends to {list(service.sends)}; a service sends to one queue at most"
            if service.min > service.max:
                yield f"service '{name}' has min {service.min} above max {service.max}"
        yield from self._broken_rules_of_queues()
        for name, bucket in self.buckets.items():
            for prefix in bucket.expire_days:
                if any(other != prefix and other.startswith(prefix) for other in bucket.expire_days):
                    yield f"bucket '{name}' has another prefix below '{prefix}'; S3 would expire objects after the shorter time"
        if self.drain_budget_s >= self.stop_timeout_s:
            yield f"drain_budget_s {self.drain_budget_s} must be below stop_timeout_s {self.stop_timeout_s}"

    def _broken_rules_of_queues(self) -> Iterator[str]:
        for name, queue in self.queues.items():
            if queue.max_receive_count <= self.attempts:
                yield (
                    f"queue '{name}' has max_receive_count {queue.max_receive_count}, not above attempts {self.attempts}: "
                    "SQS would move a message away before its failure is recorded"
                )
            if queue.retention_s > self.dead_letter_retention_s:
                yield f"queue '{name}' keeps messages longer than its dead-letter queue, where they keep their age"

    def _references(self) -> Iterator[tuple[str, str, str]]:
        """Everything that is named somewhere: its kind, by whom, its name."""
        for name, service in self.services.items():
            owner = f"service '{name}'"
            yield from (("queue", owner, queue) for queue in (*service.queues, *service.sends))
            buckets = (*service.reads, *service.writes, *service.versions, *service.tags)
            yield from (("bucket", owner, bucket) for bucket in buckets)
            yield from (("secret", owner, secret) for secret in service.secrets)
        for owner, task in (("the operator", self.operator), ("the proof", self.proof)):
            yield from (("bucket", owner, bucket) for bucket in (*task.reads, *task.writes))
            yield from (("secret", owner, secret) for secret in task.secrets)
        for name, schedule in self.schedules.items():
            yield "queue", f"schedule '{name}'", schedule.queue
        for dataset, queue in self.drop_zone.items():
            yield "queue", f"data set '{dataset}'", queue


def sources_of(contract: Contract, main: str) -> dict[str, Source]:
    """The sources of a contract, beginning with the main one, which has this name if the contract gives it none."""
    names = sorted(contract.sources, key=lambda name: name != main) or [main]
    return {name: _source(contract.part(name)) for name in names}


def _source(part: Contract) -> Source:
    datasets = [(table.name, table.dataset.request) for table in part.source_tables if table.dataset is not None]
    if not datasets:
        return Source()
    files = tuple(name for name, request in datasets if request is None)
    return Source(Kind.FILES, files) if files else Source(Kind.API)


def of_source(name: str, source: str) -> str:
    """The queue, or the secret, of another source than the first, which has the one called `name`."""
    return f"{name}-{source}"


def read_topology(file: Path = FILE) -> Topology:
    """The topology in `file`. Raises: pydantic.ValidationError."""
    return Topology.model_validate_json(file.read_text(encoding="utf-8"))
