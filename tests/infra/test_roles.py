"""The permissions of each role, compared with the actions of AWS and the calls of the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from infra.topology import Operator, ProofSchedule, Service, read_topology
from tests.infra import checks
from tests.infra.conftest import STACK, Applied
from tests.infra.offline.core import opened
from tests.infra.offline.tools import CHECKOUT

# A batch needs the action of its single call; a list of objects is a matter of the bucket.
ACTIONS = {
    "change_message_visibility_batch": "sqs:ChangeMessageVisibility",
    "delete_message_batch": "sqs:DeleteMessage",
    "get_object": "s3:GetObject",
    "get_queue_attributes": "sqs:GetQueueAttributes",
    "get_secret_value": "secretsmanager:GetSecretValue",
    "list_object_versions": "s3:ListBucketVersions",
    "list_objects_v2": "s3:ListBucket",
    "put_object": "s3:PutObject",
    "put_object_tagging": "s3:PutObjectTagging",
    "receive_message": "sqs:ReceiveMessage",
    "send_message": "sqs:SendMessage",
    "send_message_batch": "sqs:SendMessage",
}
TOPOLOGY = read_topology()
PROGRAMS = [*TOPOLOGY.services, "operator"]
TO_CONSUME = ("ChangeMessageVisibility", "DeleteMessage", "ReceiveMessage")
TO_SEND = ("GetQueueAttributes", "SendMessage")
LOGINS = {  # the secrets of each program: below sources/ are those of every source
    "ingestion": ("sources/*",),
    "remodelling": (),
    "loading": ("warehouse-AbCdEf",),
    "operator": ("prover/source-AbCdEf", "prover/warehouse-AbCdEf"),
}
PLAN = "aws_iam_role_policy.plan"  # which only denies
OF_VERSIONS = {"s3:GetObjectVersion"}  # get_object with a version
OF_TASK_PROTECTION = {"ecs:GetTaskProtection", "ecs:UpdateTaskProtection"}  # the ECS agent calls, in the task's name


def policies(applied: Applied) -> dict[str, Any]:
    return {policy.address: json.loads(policy.values["policy"]) for policy in applied.of_type("aws_iam_role_policy")}


def task_actions(applied: Applied) -> set[str]:
    found = [policy for address, policy in policies(applied).items() if address.endswith("aws_iam_role_policy.task")]
    return {action for policy in found for statement in policy["Statement"] for action in listed(statement["Action"])}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def called_operations() -> set[str]:
    session = botocore.session.get_session()
    services = ("s3", "secretsmanager", "sqs")
    known = {xform_name(name) for service in services for name in session.get_service_model(service).operation_names}
    files = [file for package in ("shared", "services") for file in (CHECKOUT / package).rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    patterns = (r"(?:client|_control|_once|_receiver)\.(\w+)\(", r'get_paginator\("(\w+)"\)')
    return {name for pattern in patterns for name in re.findall(pattern, text)} & known


def test_every_action_exists_and_applies_to_its_named_resources(applied: Applied) -> None:
    assert len(policies(applied)) == 16
    assert not checks.iam(applied.resources)


def test_exactly_the_calls_of_the_code_are_allowed(applied: Applied) -> None:
    called = called_operations()
    assert called == ACTIONS.keys(), "say which action a new call needs, and grant it to those who make it"
    assert task_actions(applied) == {ACTIONS[operation] for operation in called} | OF_VERSIONS | OF_TASK_PROTECTION


def grants(policy: dict[str, Any]) -> set[tuple[str, str]]:
    """Each action with each resource; nothing is denied."""
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Allow"}
    return {
        (action, resource.rpartition(":")[2])
        for statement in policy["Statement"]
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    }


def of_data(program: Service | Operator | ProofSchedule, *secrets: str) -> set[tuple[str, str]]:
    names = {bucket: TOPOLOGY.bucket_name(bucket, STACK) for bucket in TOPOLOGY.buckets}
    return {
        *(("s3:ListBucket", names[bucket]) for bucket in (*program.reads, *program.writes)),
        *(("s3:GetObject", f"{names[bucket]}/*") for bucket in program.reads),
        *(("s3:PutObject", f"{names[bucket]}/{key}") for bucket, keys in program.writes.items() for key in keys),
        *of_versions(program, names),
        *(("secretsmanager:GetSecretValue", f"starlift/dev/{secret}") for secret in secrets),
    }


def of_versions(program: Service | Operator | ProofSchedule, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    for bucket, keys in getattr(program, "versions", {}).items():
        yield "s3:ListBucketVersions", names[bucket]
        yield from (("s3:GetObjectVersion", f"{names[bucket]}/{key}") for key in keys)
    for bucket, keys in getattr(program, "tags", {}).items():
        yield from (("s3:PutObjectTagging", f"{names[bucket]}/{key}") for key in keys)


@pytest.mark.parametrize("name", TOPOLOGY.services)
def test_a_service_may_do_only_what_its_edges_need(applied: Applied, name: str) -> None:
    service = TOPOLOGY.services[name]
    own = map(TOPOLOGY.queue_name, service.queues)
    sent_to = [*map(TOPOLOGY.dead_letter_name, service.queues), *map(TOPOLOGY.queue_name, service.sends)]
    expected = {
        # What is deferred is sent to one's own queue again.
        *((f"sqs:{action}", queue) for queue in own for action in (*TO_CONSUME, *TO_SEND)),
        *((f"sqs:{action}", queue) for queue in sent_to for action in TO_SEND),
        *((action, "task/starlift/*") for action in OF_TASK_PROTECTION),
    }
    found = policies(applied)[f'module.program["{name}"].aws_iam_role_policy.task']
    assert grants(found) == expected | of_data(service, *LOGINS[name])


def test_the_operator_may_repair_every_queue_and_read_everything(applied: Applied) -> None:
    expected = {
        *((f"sqs:{action}", TOPOLOGY.queue_name(queue)) for queue in TOPOLOGY.queues for action in TO_SEND),
        *(
            (f"sqs:{action}", TOPOLOGY.dead_letter_name(queue))
            for queue in TOPOLOGY.queues
            for action in (*TO_CONSUME, *TO_SEND)
        ),
    }
    found = policies(applied)['module.program["operator"].aws_iam_role_policy.task']
    assert grants(found) == expected | of_data(TOPOLOGY.operator, *LOGINS["operator"])


def test_a_proof_that_is_scheduled_only_looks_and_keeps_its_verdict(applied: Applied) -> None:
    looks = ("ChangeMessageVisibility", "GetQueueAttributes", "ReceiveMessage")
    expected = {(f"sqs:{action}", TOPOLOGY.dead_letter_name(queue)) for queue in TOPOLOGY.queues for action in looks}
    found = policies(applied)["module.proof.aws_iam_role_policy.task"]
    assert grants(found) == expected | of_data(TOPOLOGY.proof, *LOGINS["operator"])
    (schedule,) = (one for one in applied.of_type("aws_scheduler_schedule") if one.values["name"] == "starlift-proof")
    (target,) = schedule.values["target"]
    assert target["arn"] == "arn:aws:scheduler:::aws-sdk:ecs:runTask"
    assert json.loads(target["input"])["Overrides"]["TaskRoleArn"] == "arn:aws:iam::123456789012:role/starlift-proof-task"


def test_every_program_reads_one_version_of_your_contract_and_none_may_write_it(applied: Applied, tmp_path: Path) -> None:
    document = tmp_path / "shop.yaml"
    document.write_text("name: shop\n", encoding="utf-8")
    with opened(CHECKOUT, tmp_path) as terraform:
        found = Applied(terraform.apply("dev", has_images=True, contract=str(document)), {})
    assert not checks.iam(found.resources)
    (kept,) = found.of_type("aws_s3_object")
    assert (kept.values["bucket"], kept.values["content"]) == (f"starlift-contract-{STACK}", "name: shop\n")
    place = f"{kept.values['bucket']}/{kept.values['key']}"
    before, after = policies(applied), policies(found)
    assert before.keys() == after.keys()
    assert after.pop(PLAN) == before[PLAN]
    for address, policy in after.items():
        of_a_program = address.endswith("aws_iam_role_policy.task")
        more = {("s3:GetObjectVersion", place)} if of_a_program else set[tuple[str, str]]()
        assert grants(policy) - grants(before[address]) == more, address
    for program in PROGRAMS:
        named = checks.task_environment(found.resources, program)["STARLIFT_CONTRACT"]
        assert named == f"s3://{place}?versionId={kept.values['version_id']}"


def test_an_aws_service_assumes_a_role_only_for_this_account(applied: Applied) -> None:
    trusts = [json.loads(role.values["assume_role_policy"])["Statement"] for role in applied.of_type("aws_iam_role")]
    of_services = [statement for (statement,) in trusts if "Service" in statement["Principal"]]
    assert len(of_services) == 2 * len(PROGRAMS) + 3
    for statement in of_services:
        conditions = {key: value for operator in statement["Condition"].values() for key, value in operator.items()}
        assert conditions["aws:SourceAccount"] == "123456789012"
        assert ":123456789012:" in conditions["aws:SourceArn"]


def test_the_schedule_may_only_send(applied: Applied) -> None:
    queues = {TOPOLOGY.queue_name(schedule.queue) for schedule in TOPOLOGY.schedules.values()} | checks.ONLY_ON_AWS
    found = policies(applied)["module.schedule.module.role.aws_iam_role_policy.this"]
    assert grants(found) == {("sqs:SendMessage", queue) for queue in queues}


@pytest.mark.parametrize("program", PROGRAMS)
def test_ecs_may_only_pull_the_image_and_log_before_the_code_runs(applied: Applied, program: str) -> None:
    policy = policies(applied)[f'module.program["{program}"].aws_iam_role_policy.execution']
    resources = [resource for statement in policy["Statement"] for resource in listed(statement["Resource"])]
    assert resources[0] == "*"
    assert all(f"starlift-{program}" in resource for resource in resources[1:])


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_pipeline_can_change_only_its_own_program(applied: Applied, program: str) -> None:
    policy = policies(applied)[f'module.pipeline["{program}"].aws_iam_role_policy.this']
    for statement in policy["Statement"]:
        if statement["Sid"] in {"LogIn", "Describe", "ListTasks"}:  # know no resource
            continue
        for resource in listed(statement["Resource"]):
            own = (f"starlift-{program}", f":service/starlift/{program}", ":task/starlift/*")
            assert any(text in resource for text in own), f"{statement['Sid']}: {resource}"
    may_run_tasks = any("ecs:RunTask" in listed(statement["Action"]) for statement in policy["Statement"])
    assert may_run_tasks == (program in {"loading", "operator"})  # the migration and the smoke test


def test_the_nightly_plan_reads_configurations_and_no_data(applied: Applied) -> None:
    attached = [found.values for found in applied.of_type("aws_iam_role_policy_attachment")]
    assert [(found["role"], found["policy_arn"]) for found in attached] == [
        ("starlift-plan", "arn:aws:iam::aws:policy/ReadOnlyAccess")
    ]
    statements = policies(applied)[PLAN]["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Deny"}
    denied = {action: listed(statement["Resource"]) for statement in statements for action in listed(statement["Action"])}
    assert len(denied["s3:GetObject"]) == len(TOPOLOGY.buckets)
    assert len(denied["sqs:ReceiveMessage"]) == 2 * len(TOPOLOGY.queues)
    assert "secretsmanager:GetSecretValue" in denied
