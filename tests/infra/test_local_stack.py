"""What Terraform would make, against what the local stack really made: one topology, two ways to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from contracts.messages import IngestSource, Mode, Trigger, decode
from infra.local.aws import client
from infra.local.bootstrap import Resources, bootstrap
from infra.local.localstack import LocalStack
from infra.local.state import environment_for
from infra.topology import read_topology
from services.operator.system import OperatorSettings
from tests.infra.conftest import Applied
from tests.unit.test_topology import SETTINGS, set_environment

STACK = "dev-123456789012"
TOPOLOGY = read_topology()
ONLY_ON_AWS = {"starlift-schedule-dlq"}  # LocalStack's scheduler never fires
# A poll locally ends soon, so that a stop is quick; AWS's clients know by themselves where AWS is.
ONLY_LOCALLY = {"STARLIFT_POLL_WAIT_S"}

Queue = dict[str, Any]


@pytest.fixture(scope="module")
def local(localstack: LocalStack) -> Resources:
    urls = {secret: f"postgresql://127.0.0.1/{secret}" for secret in TOPOLOGY.secrets}
    return bootstrap(TOPOLOGY, localstack.endpoint_url, STACK, urls)


@pytest.fixture(scope="module")
def sqs(local: Resources) -> Iterator[Any]:
    with closing(client("sqs", local.endpoint_url, local.region)) as opened:
        yield opened


def local_queue(sqs: Any, url: str) -> Queue:
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {
        "visibility": int(attributes["VisibilityTimeout"]),
        "retention": int(attributes["MessageRetentionPeriod"]),
        "bytes": int(attributes["MaximumMessageSize"]),
        "redrive": redrive(attributes.get("RedrivePolicy")),
    }


def redrive(policy: str | None) -> tuple[str, int] | None:
    """Which queue dead letters go to, and after how many receives."""
    if not policy:
        return None
    document = json.loads(policy)
    return document["deadLetterTargetArn"].rpartition(":")[2], int(document["maxReceiveCount"])


def planned_queues(applied: Applied) -> dict[str, Queue]:
    return {
        queue.values["name"]: {
            "visibility": queue.values["visibility_timeout_seconds"] or 30,  # SQS, where nobody says
            "retention": queue.values["message_retention_seconds"],
            "bytes": queue.values["max_message_size"],
            "redrive": redrive(queue.values["redrive_policy"]),
        }
        for queue in applied.of_type("aws_sqs_queue")
    }


def test_the_same_queues_exist_with_the_same_times_and_dead_letters(applied: Applied, local: Resources, sqs: Any) -> None:
    made = {
        url.rpartition("/")[2]: local_queue(sqs, url) for url in (*local.queue_urls.values(), *local.dead_letter_urls.values())
    }
    planned = planned_queues(applied)
    assert planned.keys() >= ONLY_ON_AWS
    assert {name: queue for name, queue in planned.items() if name not in ONLY_ON_AWS} == made


def test_the_same_buckets_exist(applied: Applied, local: Resources) -> None:
    with closing(client("s3", local.endpoint_url, local.region)) as s3:
        made = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"] if bucket["Name"].endswith(STACK)}
    assert {bucket.values["bucket"] for bucket in applied.of_type("aws_s3_bucket")} == made


def test_the_same_secrets_exist(applied: Applied, local: Resources) -> None:
    planned = {secret.values["name"] for secret in applied.of_type("aws_secretsmanager_secret")}
    assert planned == {name.replace(STACK, "dev") for name in local.secrets.values()}


def task_environment(applied: Applied, program: str) -> dict[str, str]:
    (definition,) = [
        task for task in applied.of_type("aws_ecs_task_definition") if task.values["family"] == f"starlift-{program}"
    ]
    (container,) = json.loads(definition.values["container_definitions"])
    return {variable["name"]: variable["value"] for variable in container["environment"]}


@pytest.mark.parametrize("program", [*TOPOLOGY.services, "operator"])
def test_a_program_is_told_the_same(applied: Applied, local: Resources, program: str) -> None:
    planned = task_environment(applied, program)
    known = {name: value for name, value in environment_for(program, local, TOPOLOGY).items() if name.startswith("STARLIFT_")}
    assert planned.keys() == known.keys() - ONLY_LOCALLY
    numbers = {name: value for name, value in planned.items() if value.isdigit()}
    assert numbers == {name: known[name] for name in numbers}
    for name, value in planned.items():
        if name.endswith("_URL"):
            assert value.rpartition("/")[2] == known[name].rpartition("/")[2], name
        if name.endswith("_BUCKET"):
            assert value == known[name], name


@pytest.mark.parametrize("program", [*TOPOLOGY.services, "operator"])
def test_a_program_understands_what_it_is_told(applied: Applied, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, task_environment(applied, program))
    settings = OperatorSettings() if program == "operator" else SETTINGS[program]()
    assert settings.region == TOPOLOGY.region


def test_what_the_schedule_sends_is_a_request_for_a_run(applied: Applied) -> None:
    schedules = applied.of_type("aws_scheduler_schedule")
    assert {schedule.values["schedule_expression"] for schedule in schedules} == {
        schedule.expression for schedule in TOPOLOGY.schedules.values()
    }
    for schedule in schedules:
        (target,) = schedule.values["target"]
        # What AWS's documentation says it puts there: https://docs.aws.amazon.com/scheduler/latest/UserGuide
        body = target["input"].replace("<aws.scheduler.scheduled-time>", "2022-03-22T18:59:43Z")
        assert "<aws" not in body
        message = decode(body)
        assert isinstance(message, IngestSource)
        assert (message.data.source_name, message.data.mode, message.data.trigger) == (
            "totesys",
            Mode.CHANGES,
            Trigger.SCHEDULE,
        )
        assert target["arn"].endswith(":starlift-ingestion")
        assert target["dead_letter_config"][0]["arn"].endswith(":starlift-schedule-dlq")
