"""The resources that run code and keep data, as an apply on the stand-in creates them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.objects import SUPERSEDED
from contracts.proofs import Outcome
from infra.topology import read_topology
from services.operator.progress import Progress
from services.operator.proof.verdict import judge
from tests.infra.conftest import STACK, Applied
from tests.infra.offline.core import Resource
from tests.infra.offline.tools import CHECKOUT

TOPOLOGY = read_topology()


def named(applied: Applied, type_name: str, key: str, value: str) -> Resource:
    (found,) = [resource for resource in applied.of_type(type_name) if resource.values[key] == value]
    return found


def container(applied: Applied, program: str) -> dict[str, Any]:
    definition = named(applied, "aws_ecs_task_definition", "family", f"starlift-{program}")
    (found,) = json.loads(definition.values["container_definitions"])
    return dict(found)


@pytest.mark.parametrize("name", TOPOLOGY.services)
def test_a_deployment_is_rolled_back_by_ecs_itself(applied: Applied, name: str) -> None:
    service = named(applied, "aws_ecs_service", "name", name).values
    assert service["deployment_circuit_breaker"] == [{"enable": True, "rollback": True}]
    (alarms,) = service["alarms"]
    assert (alarms["enable"], alarms["rollback"]) == (True, True)
    known = {alarm.values["alarm_name"] for alarm in applied.of_type("aws_cloudwatch_metric_alarm")}
    assert {f"starlift-{name}-message-dead-lettered", f"starlift-{name}-message-retried"} == set(alarms["alarm_names"])
    assert set(alarms["alarm_names"]) <= known
    assert (service["deployment_minimum_healthy_percent"], service["deployment_maximum_percent"]) == (100, 200)


@pytest.mark.parametrize("name", TOPOLOGY.services)
def test_one_task_and_a_quarter_of_all_others_never_run_on_spot(applied: Applied, name: str) -> None:
    service = named(applied, "aws_ecs_service", "name", name).values
    found = {one["capacity_provider"]: (one["base"], one["weight"]) for one in service["capacity_provider_strategy"]}
    assert found == {"FARGATE": (1, 1), "FARGATE_SPOT": (None, 3)}
    assert service["force_new_deployment"] is True, "the provider refuses another strategy without it"


@pytest.mark.parametrize("name", TOPOLOGY.services)
def test_missing_tasks_raise_an_alarm(applied: Applied, name: str) -> None:
    alarm = named(applied, "aws_cloudwatch_metric_alarm", "alarm_name", f"starlift-{name}-unplaced").values
    metrics = {query["id"]: query["metric"] for query in alarm["metric_query"]}
    assert {key: metric[0]["metric_name"] for key, metric in metrics.items() if metric} == {
        "desired": "DesiredTaskCount",
        "running": "RunningTaskCount",
    }
    assert [query["id"] for query in alarm["metric_query"] if query["return_data"]] == ["unplaced"]


@pytest.mark.parametrize("name", TOPOLOGY.services)
def test_a_service_is_scaled_as_the_topology_defines(applied: Applied, name: str) -> None:
    wanted = TOPOLOGY.services[name]
    target = named(applied, "aws_appautoscaling_target", "resource_id", f"service/starlift/{name}").values
    assert (target["min_capacity"], target["max_capacity"]) == (wanted.min, wanted.max)
    policy = named(applied, "aws_appautoscaling_policy", "resource_id", f"service/starlift/{name}").values
    (configuration,) = policy["target_tracking_scaling_policy_configuration"]
    assert configuration["target_value"] == wanted.backlog_per_task
    assert configuration["scale_in_cooldown"] > configuration["scale_out_cooldown"]


@pytest.mark.parametrize("program", [*TOPOLOGY.services, "operator"])
def test_a_task_has_the_size_of_the_topology_and_is_confined(applied: Applied, program: str) -> None:
    wanted = TOPOLOGY.operator if program == "operator" else TOPOLOGY.services[program]
    definition = named(applied, "aws_ecs_task_definition", "family", f"starlift-{program}").values
    assert (definition["cpu"], definition["memory"]) == (str(wanted.cpu), str(wanted.memory))
    assert definition["runtime_platform"] == [{"cpu_architecture": "ARM64", "operating_system_family": "LINUX"}]
    assert definition["skip_destroy"] is True
    found = container(applied, program)
    assert found["readonlyRootFilesystem"] is True
    assert found["mountPoints"] == [{"sourceVolume": "tmp", "containerPath": "/tmp", "readOnly": False}]  # noqa: S108 - in the image
    assert found["stopTimeout"] == TOPOLOGY.stop_timeout_s
    assert re.fullmatch(
        rf"\d+\.dkr\.ecr\.{TOPOLOGY.region}\.amazonaws\.com/starlift-{program}@sha256:[0-9a-f]{{64}}", found["image"]
    )


@pytest.mark.parametrize("name", TOPOLOGY.services)
def test_a_task_has_the_health_check_of_its_image(applied: Applied, name: str) -> None:
    dockerfile = (CHECKOUT / "infra/docker/Dockerfile").read_text()
    (command,) = re.findall(r"^HEALTHCHECK .*CMD (\[.+\])$", dockerfile, re.MULTILINE)
    assert container(applied, name)["healthCheck"]["command"] == ["CMD", *json.loads(command)]


def test_the_operator_has_no_health_check(applied: Applied) -> None:
    assert "healthCheck" not in container(applied, "operator")


@pytest.mark.parametrize("bucket", TOPOLOGY.buckets)
def test_a_bucket_keeps_versions_and_objects_as_long_as_the_topology_defines(applied: Applied, bucket: str) -> None:
    name, wanted = TOPOLOGY.bucket_name(bucket, STACK), TOPOLOGY.buckets[bucket]
    (versioning,) = named(applied, "aws_s3_bucket_versioning", "bucket", name).values["versioning_configuration"]
    assert versioning["status"] == "Enabled"
    rules = named(applied, "aws_s3_bucket_lifecycle_configuration", "bucket", name).values["rule"]
    assert {rule["status"] for rule in rules} == {"Enabled"}
    old, *others = (rule for rule in rules if rule["id"] != "superseded")
    superseded = [(rule["filter"][0]["tag"], rule["expiration"][0]["days"]) for rule in rules if rule["id"] == "superseded"]
    tagged = [([dict(zip(("key", "value"), SUPERSEDED, strict=True))], wanted.superseded_days)]
    assert superseded == (tagged if wanted.superseded_days else [])
    assert old["noncurrent_version_expiration"][0]["noncurrent_days"] == wanted.noncurrent_days
    assert {rule["filter"][0]["prefix"]: rule["expiration"][0]["days"] for rule in others} == wanted.expire_days


def test_tasks_can_reach_only_aws_and_databases_and_accept_no_connections(applied: Applied) -> None:
    out = applied.of_type("aws_vpc_security_group_egress_rule")
    assert {(rule.values["ip_protocol"], rule.values["from_port"], rule.values["to_port"]) for rule in out} == {
        ("tcp", 443, 443),
        ("tcp", 5432, 5432),
    }
    assert "0.0.0.0/0" not in {rule.values["cidr_ipv4"] for rule in out}
    inward = applied.of_type("aws_vpc_security_group_ingress_rule")
    assert {rule.values["security_group_id"] for rule in inward} == {"starlift-endpoints"}
    assert not any(
        service.values["network_configuration"][0]["assign_public_ip"] for service in applied.of_type("aws_ecs_service")
    )


def test_every_log_expires(applied: Applied) -> None:
    assert {group.values["retention_in_days"] for group in applied.of_type("aws_cloudwatch_log_group")} == {14}


def test_every_alarm_sends_a_notification(applied: Applied) -> None:
    (topic,) = applied.of_type("aws_sns_topic")
    for alarm in applied.of_type("aws_cloudwatch_metric_alarm"):
        assert alarm.values["alarm_actions"] == alarm.values["ok_actions"] == [topic.values["arn"]]


def test_every_event_that_an_alarm_counts_is_logged(applied: Applied) -> None:
    sources = "\n".join(file.read_text() for file in (CHECKOUT / "shared/consumer").glob("*.py"))
    patterns = [found.values["pattern"] for found in applied.of_type("aws_cloudwatch_log_metric_filter")]
    events = [event for pattern in patterns for event in re.findall(r'^\{ \$\.event = "(\w+)" \}$', pattern)]
    assert len(events) == 3 * len(TOPOLOGY.services)
    assert all(f'"{event}"' in sources for event in events)
    sentences = [sentence for pattern in patterns for sentence in re.findall(r'^"([^"]+)"$', pattern)]
    assert len(events) + len(sentences) == len(patterns)
    assert {sentence for sentence in sentences if said(sentence)} == set(sentences)


def said(sentence: str) -> bool:
    """Check that the operator's verdict begins with this text, whatever the outcome."""
    equal = judge(Progress(None, (), None), datetime.now(UTC), []).model_copy(update={"as_of_run": 1795391228915})
    verdicts = [equal.model_copy(update={"outcome": outcome}) for outcome in Outcome]
    return any(verdict.sentence.startswith(f"{sentence} 1795391228915") for verdict in verdicts)


def test_a_silent_ingestion_raises_an_alarm_only_while_scheduled(applied: Applied) -> None:
    (silent,) = [
        alarm for alarm in applied.of_type("aws_cloudwatch_metric_alarm") if alarm.values["alarm_name"].endswith("-silent")
    ]
    assert silent.values["alarm_name"] == "starlift-ingestion-silent"
    assert silent.values["period"] * silent.values["evaluation_periods"] == TOPOLOGY.alarms.silent_minutes * 60
    assert silent.values["treat_missing_data"] == "breaching"
