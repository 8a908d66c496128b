"""The resources that Terraform would create equal those of the local stack: one topology, created in two ways."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contracts.messages import IngestSource, Mode, Trigger, decode
from infra.local.bootstrap import Resources, client
from infra.local.state import environment_for
from infra.topology import Source, read_topology
from tests.infra import checks
from tests.infra.conftest import STACK, Applied
from tests.infra.offline.core import opened
from tests.infra.offline.tools import CHECKOUT
from tests.unit.infra.test_topology import resources

TOPOLOGY = read_topology()
# A poll locally ends soon, so that a stop is quick; AWS's clients know by themselves where AWS is.
ONLY_LOCALLY = {"STARLIFT_POLL_WAIT_S"}


def test_the_same_queues_exist_with_the_same_timeouts_and_dead_letters(applied: Applied, local: Resources, sqs: Any) -> None:
    urls = [*local.queue_urls.values(), *local.dead_letter_urls.values()]
    assert not checks.local_differences(applied.resources, sqs, urls)


def test_the_same_buckets_exist(applied: Applied, local: Resources) -> None:
    with closing(client("s3", local.endpoint_url, local.region)) as s3:
        made = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"] if bucket["Name"].endswith(STACK)}
    assert {bucket.values["bucket"] for bucket in applied.of_type("aws_s3_bucket")} == made


def test_every_database_has_its_secrets(applied: Applied, local: Resources) -> None:
    """Locally a database has one login: whoever starts a stack may do everything with it."""
    assert local.secrets.keys() == set(TOPOLOGY.secrets) == {"source", "warehouse"}
    planned = {secret.values["name"] for secret in applied.of_type("aws_secretsmanager_secret")}
    paths = ("sources/totesys", "warehouse", "prover/source", "prover/warehouse")
    assert planned == {f"starlift/dev/{path}" for path in paths}


@pytest.mark.parametrize("program", [*TOPOLOGY.services, "operator"])
def test_a_program_gets_the_same_environment(applied: Applied, local: Resources, program: str) -> None:
    planned = checks.task_environment(applied.resources, program)
    known = {name: value for name, value in environment_for(program, local, TOPOLOGY).items() if name.startswith("STARLIFT_")}
    assert planned.keys() == known.keys() - ONLY_LOCALLY
    numbers = {name: value for name, value in planned.items() if value.isdigit()}
    assert numbers == {name: known[name] for name in numbers}
    for name, value in planned.items():
        if name.endswith("_URL"):
            assert value.rpartition("/")[2] == known[name].rpartition("/")[2], name
        if name.endswith("_BUCKET"):
            assert value == known[name], name


def test_a_further_source_gets_what_it_has_locally(tmp_path: Path) -> None:
    with opened(CHECKOUT, tmp_path) as terraform:
        found = Applied(terraform.apply("dev", has_images=True, sources=["plans"]), {})
    topology, local = TOPOLOGY.with_sources({"totesys": Source(), "plans": Source()}), resources("plans")
    queues = {f"starlift-{queue}{end}" for queue in topology.queues for end in ("", topology.dead_letter_suffix)}
    assert {queue.values["name"] for queue in found.of_type("aws_sqs_queue")} - checks.ONLY_ON_AWS == queues
    for program in (*topology.services, "operator"):
        planned = checks.task_environment(found.resources, program)
        known = {name: url for name, url in environment_for(program, local, topology).items() if name.startswith("STARLIFT_")}
        assert planned.keys() == known.keys() - ONLY_LOCALLY, program
        for name, url in planned.items():
            if "_URL" in name:
                assert url.endswith(known[name].removeprefix("http://127.0.0.1:1/")), name
    ingestion = checks.task_environment(found.resources, "ingestion")
    assert ingestion["STARLIFT_SOURCE_SECRET_PLANS"] == "starlift/dev/sources/plans"  # noqa: S105 - a name
    asked = [one.values for one in found.of_type("aws_scheduler_schedule") if "module.schedule" in one.address]
    targets = [(json.loads(one["target"][0]["input"])["data"]["source_name"], one["target"][0]["arn"]) for one in asked]
    assert sorted((source, arn.rpartition(":")[2]) for source, arn in targets) == [
        ("plans", "starlift-ingestion-plans"),
        ("totesys", "starlift-ingestion"),
    ]
    rules = [rule for one in found.of_type("aws_s3_bucket_lifecycle_configuration") for rule in one.values["rule"]]
    prefixes = [rule["filter"][0]["prefix"] for rule in rules]
    assert prefixes.count("plans/") == prefixes.count("totesys/") == len(topology.buckets)
    assert not checks.iam(found.resources)


@pytest.mark.parametrize("program", [*TOPOLOGY.services, "operator"])
def test_a_program_accepts_its_environment(applied: Applied, program: str) -> None:
    assert not checks.understood(applied.resources, program)


def test_the_proof_runs_as_often_as_the_topology_defines(applied: Applied) -> None:
    (proof,) = [found for found in applied.of_type("aws_scheduler_schedule") if "module.proof" in found.address]
    assert proof.values["schedule_expression"] == TOPOLOGY.proof.expression


def test_the_schedule_sends_a_request_for_a_run(applied: Applied) -> None:
    schedules = [found for found in applied.of_type("aws_scheduler_schedule") if "module.schedule" in found.address]
    assert {schedule.values["schedule_expression"] for schedule in schedules} == {
        schedule.expression for schedule in TOPOLOGY.schedules.values()
    }
    for schedule in schedules:
        (target,) = schedule.values["target"]
        # What AWS's documentation says it puts there: https://docs.aws.amazon.com/scheduler/latest/UserGuide
        body = target["input"].replace("<aws.scheduler.scheduled-time>", "2022-03-22T18:59:43Z")
        body = body.replace("<aws.scheduler.execution-id>", "d32c5kddcf5bb8c3")
        assert "<aws" not in body
        message = decode(body)
        assert isinstance(message, IngestSource)
        assert message.source == "starlift/schedule/d32c5kddcf5bb8c3"  # with the id, no two requests are the same event
        assert (message.data.source_name, message.data.mode, message.data.trigger) == (
            "totesys",
            Mode.CHANGES,
            Trigger.SCHEDULE,
        )
        assert target["arn"].endswith(":starlift-ingestion")
        assert target["dead_letter_config"][0]["arn"].endswith(":starlift-schedule-dlq")
