"""The checks of the infrastructure by name, on any checkout: the product's own, and copies with a mistake in them.

Each reports what is wrong, and nothing otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.operator.system import OperatorSettings
from shared.settings import explained
from tests.infra.offline.core import Resource, Terraform
from tests.infra.offline.tools import run_tool
from tests.unit.infra.test_topology import SETTINGS, set_environment

ONLY_ON_AWS = {"starlift-schedule-dlq"}  # LocalStack's scheduler never fires
DEFAULT_VISIBILITY_S = 30  # the default of SQS

Queue = dict[str, Any]


def validate(terraform: Terraform) -> str:
    """Terraform's core: names, types, references."""
    answer = terraform.run("validate", "-no-color")
    return "" if answer.is_success else answer.errors


def own_tests(terraform: Terraform, *arguments: str) -> str:
    """`terraform test`: infra/terraform/tests."""
    answer = terraform.run("test", "-no-color", *arguments)
    return "" if answer.is_success else answer.errors


def checkov(tree: Path) -> str:
    """Checkov's rules, except those that a comment skips."""
    options = ("--framework=terraform", "--skip-download", "--compact", "--quiet")
    answer = run_tool("checkov", "--directory", tree / "infra/terraform", *options)
    return "" if answer.is_success else answer.text


def zizmor(tree: Path) -> str:
    """Loopholes of the workflows."""
    answer = run_tool("zizmor", "--offline", "--config", tree / ".github/zizmor.yml", tree / ".github")
    return "" if answer.is_success else answer.text


def hadolint(tree: Path) -> str:
    """The Dockerfile's style and safety."""
    answer = run_tool("hadolint", "--no-color", tree / "infra/docker/Dockerfile")
    return "" if answer.is_success else answer.text


def iam(resources: list[Resource]) -> str:
    """Check that each action of each role, and of each network's end, exists and applies to the named resources."""
    kinds = ("aws_iam_role_policy", "aws_vpc_endpoint")  # an interface endpoint keeps AWS's own policy
    documents = {found.address: str(found.values["policy"]) for found in resources if found.type in kinds}
    policies = {address: json.loads(text) for address, text in documents.items() if text.startswith("{")}
    answer = run_tool("python", "-m", "tests.infra.offline.policies", given=json.dumps(policies))
    return "" if answer.is_success else answer.text


def local_differences(resources: list[Resource], sqs: Any, urls: list[str]) -> str:
    """The differences between the queues of Terraform and those of the local stack."""
    planned = {name: queue for name, queue in _planned_queues(resources).items() if name not in ONLY_ON_AWS}
    made = {url.rpartition("/")[2]: _local_queue(sqs, url) for url in urls}
    return "\n".join(
        f"queue '{name}' is {made.get(name, 'not there')} in the local stack and {planned.get(name, 'not there')} on AWS"
        for name in sorted({*planned, *made})
        if planned.get(name) != made.get(name)
    )


def understood(resources: list[Resource], program: str) -> str:
    """Check that a program accepts the variables of its task definition."""
    settings = OperatorSettings if program == "operator" else SETTINGS[program]
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, task_environment(resources, program))
        try:
            settings()
        except ValidationError as error:
            return explained(error, settings)
    return ""


def task_environment(resources: list[Resource], program: str) -> dict[str, str]:
    """The variables that a task definition passes to its program."""
    (definition,) = [
        found
        for found in resources
        if found.type == "aws_ecs_task_definition" and found.values["family"] == f"starlift-{program}"
    ]
    (container,) = json.loads(definition.values["container_definitions"])
    return {variable["name"]: variable["value"] for variable in container["environment"]}


def _planned_queues(resources: list[Resource]) -> dict[str, Queue]:
    return {
        found.values["name"]: {
            "visibility": found.values["visibility_timeout_seconds"] or DEFAULT_VISIBILITY_S,
            "retention": found.values["message_retention_seconds"],
            "bytes": found.values["max_message_size"],
            "redrive": _redrive(found.values["redrive_policy"]),
        }
        for found in resources
        if found.type == "aws_sqs_queue"
    }


def _local_queue(sqs: Any, url: str) -> Queue:
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {
        "visibility": int(attributes["VisibilityTimeout"]),
        "retention": int(attributes["MessageRetentionPeriod"]),
        "bytes": int(attributes["MaximumMessageSize"]),
        "redrive": _redrive(attributes.get("RedrivePolicy")),
    }


def _redrive(policy: str | None) -> tuple[str, int] | None:
    """The dead-letter queue, and the number of receives before a message moves there."""
    if not policy:
        return None
    document = json.loads(policy)
    return document["deadLetterTargetArn"].rpartition(":")[2], int(document["maxReceiveCount"])
