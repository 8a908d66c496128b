"""Mistakes, planted together where none hides another, and the check that finds each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.local.bootstrap import Resources
from tests.infra import checks
from tests.infra.offline.core import CoreError, opened
from tests.infra.planting import Mistake, Plant, named

QUEUE = "infra/terraform/modules/queue/main.tf"
BUCKET = "infra/terraform/modules/bucket/main.tf"
PROGRAMS = "infra/terraform/programs.tf"
TOPOLOGY = "infra/topology.json"
VISIBLE = '"loading":     {"visibility_timeout_s": 60,'


BY_VALIDATE = [
    Mistake("misspelt argument", QUEUE, "visibility_timeout_seconds =", "visibility_timeout_second =", "Unsupported argument"),
    Mistake(
        "wrong type", BUCKET, "noncurrent_days = var.noncurrent_days", 'noncurrent_days = "a month"', "a number is required"
    ),
]
BY_OWN_TESTS = {  # by the file of infra/terraform/tests
    "roles": [
        Mistake(
            "wildcard action",
            PROGRAMS,
            '["sqs:GetQueueAttributes", "sqs:SendMessage"]',
            '["sqs:*"]',
            "A role may do a kind of actions, not the actions that its program needs.",
        ),
        Mistake(
            "a role that reads another's secret",
            PROGRAMS,
            "Resource = arns }",
            'Resource = [module.database_secret["source"].arn] }',
            "A role reads the secret of a login that its program does not use",
        ),
        Mistake(
            "a service that writes another's objects",
            PROGRAMS,
            "[for key in keys : ",
            '[for key in ["*"] : ',
            "A role reads a bucket, or writes objects, against the topology.",
        ),
        Mistake(
            "a proof with the operator's role",
            "infra/terraform/modules/proof/main.tf",
            "TaskRoleArn        = aws_iam_role.task.arn",
            "TaskRoleArn        = var.execution_role_arn",
            "The proof that is scheduled runs with the operator's role.",
        ),
        Mistake(
            "a proof that sends",
            PROGRAMS,
            '["sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]',
            '["sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"]',
            "A proof may change what is on its way: it only looks.",
        ),
        Mistake(
            "a secret outside the prefix of its installation",
            "infra/terraform/secrets.tf",
            '"source${source.end}" => "sources/${name}"',
            '"source${source.end}" => "source"',
            "A secret is not below the prefix of its installation.",
        ),
        Mistake(
            "a managed secret that its reader can't decrypt",
            PROGRAMS,
            'Action    = "kms:Decrypt"',
            'Action    = "kms:DescribeKey"',
            "The loader can't decrypt the managed secret",
        ),
    ],
    "network": [
        Mistake(
            "an endpoint that lets rows out to any bucket",
            "infra/terraform/modules/endpoints/main.tf",
            'Resource  = [for arn in var.bucket_arns : "${arn}/*"]',
            'Resource  = "*"',
            "Tasks reach another bucket than ours and ECR's",
        ),
        Mistake(
            "images that can't be pulled",
            "infra/terraform/modules/endpoints/main.tf",
            "starport-layer-bucket/*",
            "starport-layer-bucket",
            "Tasks can't pull the layers of their images.",
        ),
        Mistake(
            "a topic that alarms can't reach",
            "infra/terraform/modules/alarm_topic/main.tf",
            '"cloudwatch.amazonaws.com" }\n        Action    = "sns:Publish"',
            '"monitoring.amazonaws.com" }\n        Action    = "sns:Publish"',
            "Alarms or findings don't reach the topic",
        ),
        Mistake(
            "findings of HIGH that stay unread",
            "infra/terraform/modules/image_findings/main.tf",
            '["CRITICAL", "HIGH"]',
            '["CRITICAL"]',
            "A finding of severity HIGH or CRITICAL is not mailed to anyone.",
        ),
    ],
    "queues": [
        Mistake(
            "crossed dead-letter queue",
            QUEUE,
            "deadLetterTargetArn = aws_sqs_queue.dead_letter.arn",
            'deadLetterTargetArn = "arn:aws:sqs:eu-west-2:123456789012:starlift-loading-dlq"',
            "A queue moves its messages to another queue's dead-letter queue.",
        ),
        Mistake(
            "public bucket",
            BUCKET,
            "block_public_policy     = true",
            "block_public_policy     = false",
            "A bucket could be made public.",
        ),
    ],
    "values": [
        Mistake(
            "objects of a source that never expire",
            "infra/terraform/main.tf",
            'local.sources : "${name}/" =>',
            'local.sources : "${local.main.source}/" =>',
            "The objects of a source that is not the shipped one are kept forever.",
        ),
    ],
    "environments": [
        Mistake(
            "a proof that does not wait for the next run of its environment",
            "infra/terraform/alarms.tf",
            "120 * local.run_minutes + 30",
            "150",
            "A proof ends before the next run is loaded",
        ),
        Mistake(
            "a service that stops growing when Spot has no capacity",
            "infra/terraform/modules/service/main.tf",
            "base              = 1\n    weight            = 1",
            "base              = 1\n    weight            = 0",
            "stops growing when Spot has no capacity.",
        ),
        Mistake(
            "endpoints in zones without tasks",
            "infra/terraform/network.tf",
            "subnet_ids         = local.network.subnet_ids",
            "subnet_ids         = module.network[0].subnet_ids",
            "Tasks and endpoints are in more zones than was asked for",
        ),
    ],
    "services": [
        Mistake(
            "root container in the task definition",
            "infra/terraform/modules/program/main.tf",
            'user                   = "10001:10001"',
            'user                   = "0:0"',
            "A container runs as root",
        ),
    ],
}
BY_APPLY = Mistake(
    "an environment with a size that Fargate does not have",
    "infra/terraform/environments/dev.tfvars",
    "cpu = 512, memory = 1024",
    "cpu = 512, memory = 768",
    "Fargate has no such size",
)
# A handler may run for hours, since its lease is renewed at half of the visibility: wrong is what is too short to be renewed.
BY_WHAT_IS_APPLIED = Mistake(
    "a queue missing from the local stack, and a visibility that is not the local one and too short for the handler's lease",
    TOPOLOGY,
    VISIBLE,
    '"audit": {"visibility_timeout_s": 60, "max_receive_count": 10, "retention_s": 1209600}, ' + VISIBLE.replace("60", "5"),
    "STARLIFT_VISIBILITY_TIMEOUT_S=5",
)


@pytest.mark.parametrize("mistake", BY_VALIDATE, ids=named)
def test_terraform_validate_finds_its_mistakes(mistake: Mistake, planted: Plant, tmp_path: Path) -> None:
    with opened(planted(mistake), tmp_path) as terraform:
        assert mistake.words in checks.validate(terraform)


@pytest.mark.parametrize("tests", BY_OWN_TESTS)
def test_terraform_test_finds_its_mistakes(tests: str, planted: Plant, tmp_path: Path) -> None:
    with opened(planted(*BY_OWN_TESTS[tests]), tmp_path) as terraform:
        found = " ".join(checks.own_tests(terraform, f"-filter=tests/{tests}.tftest.hcl").split())  # it wraps its lines
    assert [mistake.name for mistake in BY_OWN_TESTS[tests] if mistake.words not in found] == []


def test_the_comparison_with_the_local_stack_and_a_service_s_settings_find_their_mistakes(
    planted: Plant, tmp_path: Path, local: Resources, sqs: Any
) -> None:
    with opened(planted(BY_WHAT_IS_APPLIED), tmp_path) as terraform:
        resources = terraform.apply("dev")
    urls = [*local.queue_urls.values(), *local.dead_letter_urls.values()]
    differences = checks.local_differences(resources, sqs, urls).splitlines()
    assert len(differences) == 3, differences
    assert [line for line in differences if line.startswith("queue 'starlift-audit' is not there in the local stack")]
    assert [line for line in differences if line.startswith("queue 'starlift-loading' is ") and "'visibility': 5," in line]
    assert BY_WHAT_IS_APPLIED.words in checks.understood(resources, "loading")


def test_an_apply_refuses_its_mistakes(planted: Plant, tmp_path: Path) -> None:
    with opened(planted(BY_APPLY), tmp_path) as terraform, pytest.raises(CoreError) as refusal:
        terraform.apply("dev")
    assert BY_APPLY.words in str(refusal.value)
