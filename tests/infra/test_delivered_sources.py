"""What Terraform makes for sources of files and of APIs follows from the contract, as in the local stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.datasets import DROP_ZONE
from contracts.yaml_text import read_contract
from infra.local.state import environment_for
from infra.topology import Topology, read_topology, sources_of
from services.operator.system import OperatorSettings
from tests.fixtures.delivered_contract import DELIVERED, TEXT
from tests.infra import checks
from tests.infra.conftest import STACK, Applied
from tests.infra.offline.core import Terraform, opened
from tests.infra.offline.tools import CHECKOUT
from tests.infra.test_local_stack import ONLY_LOCALLY
from tests.unit.infra.test_topology import SETTINGS, resources_of, set_environment

LANDING = f"starlift-landing-{STACK}"
TOPOLOGY = read_topology().with_sources(sources_of(DELIVERED, "plans"))


@pytest.fixture(scope="module")
def opened_terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    with opened(CHECKOUT, tmp_path_factory.mktemp("terraform")) as terraform:
        yield terraform


def apply(terraform: Terraform, document: Path, text: str, **variables: Any) -> Applied:
    document.write_text(text, encoding="utf-8")
    return Applied(terraform.apply("dev", has_images=True, contract=str(document), **variables), terraform.outputs())


@pytest.fixture(scope="module")
def delivered(opened_terraform: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Applied:
    """With two data sets of files in the main source, and an API."""
    document = tmp_path_factory.mktemp("contract") / "delivered.yaml"
    return apply(opened_terraform, document, TEXT, settings={"STARLIFT_SOURCE_NAME": "plans"})


def last(arn: str) -> str:
    return arn.rpartition(":")[2]


def test_a_program_finds_the_same_as_locally(delivered: Applied) -> None:
    local = resources_of(TOPOLOGY)
    for program in (*TOPOLOGY.services, "operator"):
        planned = checks.task_environment(delivered.resources, program)
        known = {name: url for name, url in environment_for(program, local, TOPOLOGY).items() if name.startswith("STARLIFT_")}
        assert planned.keys() - {"STARLIFT_CONTRACT", "STARLIFT_SOURCE_NAME"} == known.keys() - ONLY_LOCALLY, program
    assert checks.task_environment(delivered.resources, "ingestion")["STARLIFT_API_SECRETS"] == "starlift/dev/sources/"


@pytest.mark.parametrize("program", [*TOPOLOGY.services, "operator"])
def test_a_program_accepts_its_environment(
    program: str, delivered: Applied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "delivered.yaml"  # in place of the object in S3
    document.write_text(TEXT, encoding="utf-8")
    environment = checks.task_environment(delivered.resources, program)
    set_environment(monkeypatch, environment | {"STARLIFT_CONTRACT": str(document)})
    settings = OperatorSettings() if program == "operator" else SETTINGS[program]()
    assert settings.by_source().keys() == {"plans", "rates"}


def test_each_source_is_asked_as_often_as_locally(delivered: Applied) -> None:
    asked = [one.values for one in delivered.of_type("aws_scheduler_schedule") if "module.schedule" in one.address]
    assert {
        json.loads(one["target"][0]["input"])["data"]["source_name"]: (
            last(one["target"][0]["arn"]),
            one["schedule_expression"],
        )
        for one in asked
    } == {one.source: (TOPOLOGY.queue_name(one.queue), one.expression) for one in TOPOLOGY.schedules.values()}


def announced(applied: Applied) -> dict[str, str]:
    (notification,) = applied.of_type("aws_s3_bucket_notification")
    assert notification.values["bucket"] == LANDING
    assert {event for rule in notification.values["queue"] for event in rule["events"]} == {"s3:ObjectCreated:*"}
    return {rule["filter_prefix"]: last(rule["queue_arn"]) for rule in notification.values["queue"]}


def prefixes(topology: Topology) -> dict[str, str]:
    return {f"{DROP_ZONE}{dataset}/": topology.queue_name(queue) for dataset, queue in topology.drop_zone.items()}


def test_files_are_announced_to_the_source_that_has_their_data_set(delivered: Applied) -> None:
    assert announced(delivered) == prefixes(TOPOLOGY)


def test_only_this_bucket_of_this_account_may_announce_and_only_on_those_queues(delivered: Applied) -> None:
    allowed = [
        statement
        for policy in delivered.of_type("aws_sqs_queue_policy")
        for statement in json.loads(policy.values["policy"])["Statement"]
        if statement["Effect"] != "Deny"
    ]
    assert [(one["Principal"], one["Action"], last(one["Resource"]), one["Condition"]) for one in allowed] == [
        (
            {"Service": "s3.amazonaws.com"},
            "sqs:SendMessage",
            "starlift-ingestion",
            {
                "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{LANDING}"},
                "StringEquals": {"aws:SourceAccount": "123456789012"},
            },
        )
    ]


def test_who_puts_files_may_do_nothing_else(delivered: Applied) -> None:
    places = delivered.outputs["drop_zone"]
    assert {name: place["place"] for name, place in places.items()} == {
        name: f"s3://{LANDING}/{DROP_ZONE}{name}/" for name in TOPOLOGY.drop_zone
    }
    (statement,) = json.loads(places["budget"]["policy"])["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "s3:PutObject")
    assert statement["Resource"] == f"arn:aws:s3:::{LANDING}/dropzone/budget/*"


def test_what_was_landed_is_the_truth_and_does_not_expire_by_its_age(delivered: Applied) -> None:
    prefixes = {
        one.values["bucket"]: {rule["filter"][0]["prefix"] for rule in one.values["rule"]}
        for one in delivered.of_type("aws_s3_bucket_lifecycle_configuration")
    }
    own = {"plans/", "rates/", "totesys/"}
    assert not own & prefixes[LANDING]
    assert own & prefixes[f"starlift-processed-{STACK}"] == {"plans/", "rates/"}
    assert {"dropzone/", "files/"} <= prefixes[LANDING]


def test_there_are_no_secrets_of_databases_and_one_of_the_api(delivered: Applied) -> None:
    secrets = {secret.values["name"] for secret in delivered.of_type("aws_secretsmanager_secret")}
    assert secrets == {f"starlift/dev/{name}" for name in ("sources/rates", "warehouse", "prover/warehouse")}
    readers = [
        policy.address
        for policy in delivered.of_type("aws_iam_role_policy")
        for statement in json.loads(policy.values["policy"])["Statement"]
        if statement["Effect"] == "Allow" and "sources/*" in json.dumps(statement["Resource"])
    ]
    assert readers == ['module.program["ingestion"].aws_iam_role_policy.task']
    assert not checks.iam(delivered.resources)


def test_only_ingestion_reaches_the_internet_and_only_if_there_is_an_api(
    delivered: Applied, opened_terraform: Terraform, tmp_path: Path
) -> None:
    assert ways_out(delivered) == [("starlift-ingestion", 443)]
    assert len(delivered.of_type("aws_nat_gateway")) == 1
    files_alone, _, _ = TEXT.partition("  rates:\n")
    found = apply(opened_terraform, tmp_path / "files.yaml", files_alone, settings={"STARLIFT_SOURCE_NAME": "plans"})
    assert not found.of_type("aws_nat_gateway")
    assert not found.of_type("aws_internet_gateway")
    assert not ways_out(found)
    assert announced(found) == prefixes(TOPOLOGY)


def ways_out(applied: Applied) -> list[tuple[str, int]]:
    rules = [rule.values for rule in applied.of_type("aws_vpc_security_group_egress_rule")]
    return [(rule["security_group_id"], rule["from_port"]) for rule in rules if rule["cidr_ipv4"] == "0.0.0.0/0"]


def test_an_api_is_reached_at_its_port_or_through_a_proxy_and_a_network_of_yours_gets_no_gateway(
    opened_terraform: Terraform, tmp_path: Path
) -> None:
    text = TEXT.replace("https://rates.example/v1", "https://rates.example:8443/v1")
    network = {"vpc_id": "vpc-1", "cidr": "10.0.0.0/16", "subnet_ids": ["subnet-1"], "route_table_ids": ["rtb-1"]}
    settings = {"STARLIFT_SOURCE_NAME": "plans"}
    found = apply(opened_terraform, tmp_path / "own.yaml", text, settings=settings, network=network)
    assert ways_out(found) == [("starlift-ingestion", 8443)]
    assert not found.of_type("aws_nat_gateway")
    settings["STARLIFT_API_PROXY"] = "http://proxy.internal:3128"
    found = apply(opened_terraform, tmp_path / "proxy.yaml", text, settings=settings)
    assert ways_out(found) == [("starlift-ingestion", 3128)]
    assert not found.of_type("aws_nat_gateway")


def test_a_source_is_unproved_by_itself(delivered: Applied) -> None:
    metrics = {
        alarm.values["alarm_name"]: alarm.values["metric_name"]
        for alarm in delivered.of_type("aws_cloudwatch_metric_alarm")
        if alarm.values["alarm_name"].endswith("-unproved")
    }
    assert metrics == {f"starlift-{name}-unproved": f"starlift.proof_equal.{name}" for name in ("plans", "rates")}
    patterns = {one.values["name"]: one.values["pattern"] for one in delivered.of_type("aws_cloudwatch_log_metric_filter")}
    assert patterns["proof_equal.rates"] == '"EQUAL as of run" "(source rates)"'


def test_a_source_is_silent_by_itself_and_a_refused_file_raises_an_alarm(delivered: Applied) -> None:
    minutes = {
        alarm.values["alarm_name"]: alarm.values["evaluation_periods"] * 5
        for alarm in delivered.of_type("aws_cloudwatch_metric_alarm")
        if alarm.values["alarm_name"].endswith("-silent")
    }
    assert minutes == {"starlift-ingestion-plans-silent": 45, "starlift-ingestion-rates-silent": 180}
    patterns = {one.values["name"]: one.values["pattern"] for one in delivered.of_type("aws_cloudwatch_log_metric_filter")}
    assert patterns["message_done.rates"] == '{ $.event = "message_done" && $.source = "rates" }'
    assert patterns["delivery_refused"] == '{ $.event = "delivery_refused" }'
    logged = "".join(file.read_text(encoding="utf-8") for file in (CHECKOUT / "services/ingestion").glob("*.py"))
    assert '"delivery_refused"' in logged
    names = [alarm.values["alarm_name"] for alarm in delivered.of_type("aws_cloudwatch_metric_alarm")]
    assert names.count("starlift-ingestion-delivery-refused") == 1


@pytest.mark.parametrize("name", ["totesys", "exchange_rates"])
def test_terraform_reads_a_shipped_contract_as_starlift_does(name: str, opened_terraform: Terraform, tmp_path: Path) -> None:
    text = (CHECKOUT / f"contracts/{name}.yaml").read_text(encoding="utf-8")
    topology = read_topology().with_sources(sources_of(read_contract(text, name), "totesys"))
    found = apply(opened_terraform, tmp_path / f"{name}.yaml", text)
    queues = {queue.values["name"] for queue in found.of_type("aws_sqs_queue")} - checks.ONLY_ON_AWS
    assert queues == {named(queue) for queue in topology.queues for named in (topology.queue_name, topology.dead_letter_name)}
    assert len(found.of_type("aws_nat_gateway")) == (name == "exchange_rates")
    assert not found.of_type("aws_s3_bucket_notification")
