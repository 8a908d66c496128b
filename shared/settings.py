"""The settings of a service, read from its environment and checked as a whole before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, InstanceOf, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.contract import Contract
from contracts.objects import NO_SOURCES, Name
from shared.contract_file import load_contract
from shared.logs import Level
from shared.queue import DELAY_MAXIMUM, HOLD_MAXIMUM, VISIBILITY_MAXIMUM

PREFIX = "STARLIFT_"
DEFAULT_SOURCE = "totesys"  # the name of the only source, unless settings give another
# What is left between the drain budget and SIGKILL, to hand messages back and close connections.
STOP_MARGIN = timedelta(seconds=15)
# The last renewal may come at HOLD_MAXIMUM, and SQS refuses one that would end 12 hours after the receipt.
RENEWABLE_MAXIMUM = VISIBILITY_MAXIMUM - HOLD_MAXIMUM
VISIBILITY_MINIMUM = timedelta(seconds=10)  # half of it must leave time for a renewal that times out and its retry
POLL_WAIT_MINIMUM = timedelta(seconds=1)  # below, an idle service would ask without a pause
POLL_WAIT_MAXIMUM = timedelta(seconds=20)  # SQS
_QUEUES, _DATABASE = ("queue_url", "dead_letter_url"), ("source_url", "source_secret")  # fields that each source has


def _from_seconds(value: object) -> object:
    """A text from the environment is a number of seconds, as the suffix _S of the variable promises."""
    if not isinstance(value, str):
        return value
    try:
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        raise ValueError("it must be a number of seconds") from None


Seconds = Annotated[timedelta, BeforeValidator(_from_seconds)]
NamedContract = Annotated[InstanceOf[Contract], NoDecode, BeforeValidator(load_contract)]


class SourceSettings(BaseSettings):
    """What services and the operator need to find the sources and what belongs to each.

    Each field is read from STARLIFT_ and its name in capitals, or from the variable that it names itself. If the contract names
    several sources, these are the variables of `source_name`; of another one, those of its queues and of its database end with
    its name: STARLIFT_QUEUE_URL_RATES, STARLIFT_SOURCE_SECRET_RATES. Everything else is common to all.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True
    )

    region: str  # the AWS region of the queues, buckets and secrets
    source_name: Name = DEFAULT_SOURCE  # under which the objects of the source are kept in the buckets
    contract: NamedContract = Field(default="totesys", validate_default=True)  # a file, an S3 object, a shipped one
    landing_bucket: str
    processed_bucket: str

    def by_source(self) -> dict[str, Self]:
        """The settings for each source, by its name: this one, and those of the others that the contract names."""
        others = {name: self._of_source(name) for name in self.contract.sources if name != self.source_name}
        return {self.source_name: self, **others}

    def _of_source(self, name: str) -> Self:
        given = {field: os.environ.get(source_variable(field, name)) for field in self._fields_of_a_source()}
        url = given.get("source_url")
        return self.model_copy(update={**given, "source_name": name, "source_url": url and SecretStr(url)})

    def _fields_of_a_source(self) -> list[str]:
        return [name for name in type(self).model_fields if name.endswith(_QUEUES) or name in _DATABASE]

    @model_validator(mode="after")
    def _agree_with_each_other(self) -> Self:
        broken = "; ".join(self._broken_rules())
        if broken:
            raise ValueError(broken)
        return self

    def _broken_rules(self) -> Iterator[str]:
        names = self.contract.sources
        if self.source_name in NO_SOURCES:
            yield f"STARLIFT_SOURCE_NAME={self.source_name} is also a folder of the buckets; choose another name"
        if names and self.source_name not in names:
            yield (
                f"STARLIFT_SOURCE_NAME={self.source_name} is not one of the contract's sources {', '.join(names)}; set it to "
                "the one whose variables and queues do not end with its name"
            )
        given = [field for field in self._fields_of_a_source() if getattr(self, field) is not None]
        for source in (name for name in names if name != self.source_name):
            for variable in (source_variable(field, source) for field in given if field not in _DATABASE):
                if not os.environ.get(variable):
                    yield f"{variable} is missing; set it"
            databases = [source_variable(field, source) for field in _DATABASE]
            has_database = not self.contract.is_delivered(source)
            if has_database and not {*given}.isdisjoint(_DATABASE) and not any(map(os.environ.get, databases)):
                yield f"{' and '.join(databases)} are missing; set one of them"


class ServiceSettings(SourceSettings):
    """What every service needs; a service subclasses it, names itself and adds its own."""

    service: str  # named in logs and failure records
    version: str = Field(default_factory=lambda: metadata.version("starlift"))  # likewise
    queue_url: str  # the queue that the service consumes
    dead_letter_url: str
    next_queue_url: str | None = None  # the queue that it sends to, if it sends
    # A second queue, through which the tasks of the service share the work of one message, if they do.
    shared_queue_url: str | None = None
    shared_dead_letter_url: str | None = None
    slots: Annotated[int, Field(ge=1, le=100)]  # how many messages are worked on at once
    attempts: Annotated[int, Field(ge=1)] = 5  # as many failed attempts make a dead letter
    max_receive_count: Annotated[int, Field(ge=1, le=1000)] = 10  # of the queue's redrive policy: for messages that kill us
    handler_limit: Seconds = Field(validation_alias="STARLIFT_HANDLER_LIMIT_S")  # of one attempt
    visibility_timeout: Seconds = Field(timedelta(seconds=60), validation_alias="STARLIFT_VISIBILITY_TIMEOUT_S")
    poll_wait: Seconds = Field(POLL_WAIT_MAXIMUM, validation_alias="STARLIFT_POLL_WAIT_S")  # of a long poll
    # How long handlers get to finish after SIGTERM, and how long the platform waits until SIGKILL (Fargate: at most 120 s).
    drain_budget: Seconds = Field(timedelta(seconds=80), validation_alias="STARLIFT_DRAIN_BUDGET_S")
    stop_timeout: Seconds = Field(timedelta(seconds=120), validation_alias="STARLIFT_STOP_TIMEOUT_S")
    # A message that is deferred for longer becomes a dead letter: what it waits for does not come.
    defer_limit: Seconds = Field(timedelta(days=1), validation_alias="STARLIFT_DEFER_LIMIT_S")
    health_file: Path | None = None  # see shared/health.py
    ecs_agent_uri: str | None = Field(None, validation_alias="ECS_AGENT_URI")  # set by Amazon ECS in each task
    log_level: Level = "info"

    def _broken_rules(self) -> Iterator[str]:
        yield from super()._broken_rules()
        if (self.shared_queue_url is None) != (self.shared_dead_letter_url is None):
            yield "STARLIFT_SHARED_QUEUE_URL and STARLIFT_SHARED_DEAD_LETTER_URL belong together: set both, or neither"
        if not VISIBILITY_MINIMUM <= self.visibility_timeout <= RENEWABLE_MAXIMUM:
            yield (
                f"STARLIFT_VISIBILITY_TIMEOUT_S={_s(self.visibility_timeout)} must be from {_s(VISIBILITY_MINIMUM)} to "
                f"{_s(RENEWABLE_MAXIMUM)}: a longer one can't be renewed within SQS's 12 hours; 60 suits most"
            )
        if not timedelta(0) < self.handler_limit <= HOLD_MAXIMUM:
            yield (
                f"STARLIFT_HANDLER_LIMIT_S={_s(self.handler_limit)} must be above 0 and at most {_s(HOLD_MAXIMUM)}: "
                "SQS hides a message for 12 hours at most; cut the work into smaller messages"
            )
        if self.defer_limit <= DELAY_MAXIMUM:
            yield (
                f"STARLIFT_DEFER_LIMIT_S={_s(self.defer_limit)} must be above {_s(DELAY_MAXIMUM)}, the longest deferral: "
                "otherwise a message becomes a dead letter before it comes back; 86400 suits most"
            )
        if not POLL_WAIT_MINIMUM <= self.poll_wait <= min(POLL_WAIT_MAXIMUM, self.drain_budget):
            yield (
                f"STARLIFT_POLL_WAIT_S={_s(self.poll_wait)} must be from 1 to {_s(POLL_WAIT_MAXIMUM)} and at most "
                f"STARLIFT_DRAIN_BUDGET_S={_s(self.drain_budget)}: a stop waits for the poll in flight; shorten it"
            )
        if self.drain_budget + STOP_MARGIN > self.stop_timeout:
            yield (
                f"STARLIFT_DRAIN_BUDGET_S={_s(self.drain_budget)} and {_s(STOP_MARGIN)} to hand messages back must fit into "
                f"STARLIFT_STOP_TIMEOUT_S={_s(self.stop_timeout)}; lower the budget, or raise the platform's stop timeout"
            )
        if self.attempts >= self.max_receive_count:
            yield (
                f"STARLIFT_MAX_RECEIVE_COUNT={self.max_receive_count} must be above STARLIFT_ATTEMPTS={self.attempts}: "
                "otherwise SQS moves a message away before its failure is recorded; raise the queue's maxReceiveCount"
            )


def source_variable(field: str, source: str) -> str:
    """The variable of one of several sources: that of the field, with the source's name at its end."""
    return f"{PREFIX}{field}_{source}".upper()


def explained(error: ValidationError, settings: type[BaseSettings]) -> str:
    """What is wrong with the environment, in one sentence that names the variables and quotes no secret."""
    by_name = settings.model_fields | {str(one.validation_alias): one for one in settings.model_fields.values()}
    parts = []
    for detail in error.errors(include_url=False):
        message = detail["msg"].removeprefix("Value error, ")
        if not detail["loc"]:
            parts.append(message)
            continue
        field = str(detail["loc"][0])
        name = field if field.isupper() else PREFIX + field.upper()
        if detail["type"] == "missing":
            parts.append(f"{name} is missing; set it")
        elif field not in by_name or SecretStr.__name__ in str(by_name[field].annotation):
            parts.append(f"{name} is invalid: {message}")
        else:
            parts.append(f"{name}={detail['input']} is invalid: {message}")
    return "invalid settings: " + "; ".join(parts)


def _s(span: timedelta) -> str:
    """Seconds as a person writes them in the environment."""
    return f"{span.total_seconds():g}"
