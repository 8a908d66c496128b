"""docs/deploy.md and docs/first-day.md: the things they name exist, and their sums are correct."""

from __future__ import annotations

import ast
import json
import operator
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from infra.topology import read_topology
from services.operator.system import OperatorSettings
from shared.settings import ServiceSettings
from tests.infra.conftest import Applied
from tests.infra.offline import aws_cli
from tests.infra.offline.tools import CHECKOUT

GUIDES = {name: (CHECKOUT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("deploy", "first-day")}
TEXT = GUIDES["deploy"]
SIZES = 3
CENT = 0.0051
VARIABLES = {
    "contract",
    "network",
    "name",
    "github_provider_arn",
    "has_images",
    "has_internet",
    "managed_secrets",
    "new_network",
    "prove_every_minutes",
    "run_every_minutes",
    "sizes",
    "sources",
    "settings",
}  # that the document says to set
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
WORK: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.Sub: operator.sub,
}


@pytest.fixture(params=GUIDES)
def guide(request: pytest.FixtureRequest) -> str:
    """One guide after the other."""
    return GUIDES[request.param]


def computed(expression: str) -> float:
    """The value of sums, differences and products."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return WORK[type(op)](value(left), value(right))
            case ast.Constant(value=float() | int() as number):
                return number
            case _:
                raise AssertionError(expression)

    return value(ast.parse(expression.replace(TIMES, "*").replace(MINUS, "-"), mode="eval").body)


def cost_rows() -> list[list[str]]:
    _, _, costs = TEXT.partition("## What it costs a month")
    table = [line for line in costs.partition("## Operation")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table]


def test_the_arithmetic_is_correct(guide: str) -> None:
    expressions = re.findall(rf"([\d.()][\d.(){TIMES}{MINUS}+ ]+[\d.)]) = ([\d.]*\d)", guide)
    assert len(expressions) >= 4
    for expression, result in expressions:
        assert computed(expression) == pytest.approx(float(result), abs=CENT), expression


def test_the_columns_add_up() -> None:
    *rows, total = cost_rows()
    for size in range(1, 1 + SIZES):
        costs = [float(found[0]) for row in rows if (found := re.findall(r"(\d+\.\d\d)$", row[size]))]
        assert sum(costs) == pytest.approx(float(total[size]), abs=CENT)


def test_storage_is_priced_until_the_last_version_of_an_object_expires() -> None:
    topology = read_topology()
    (schedule,) = topology.schedules.values()
    kept = {(bucket.expire_days[f"{schedule.source}/"], bucket.noncurrent_days) for bucket in topology.buckets.values()}
    ((days, more),) = kept
    (row,) = [row for row in cost_rows() if "bytes a changed row" in row[0]]
    (size,) = re.findall(r"(\d+) bytes", row[0])
    assert f"for {days} days, and {more} as an old version" in row[0]
    for cell, rows in zip(row[1:], (1e5, 1e7, 1e8), strict=True):
        assert float(cell.split()[0]) == pytest.approx(int(size) * rows * (days + more) / 1e9)


def test_counted_resources_match_the_created_ones(applied: Applied) -> None:
    endpoints = [found for found in applied.of_type("aws_vpc_endpoint") if found.values["vpc_endpoint_type"] == "Interface"]
    assert f"{len(endpoints)} interface endpoints" in TEXT
    assert f"{len(applied.of_type('aws_cloudwatch_log_metric_filter'))} of the logs" in TEXT
    assert f"alarms: {len(applied.of_type('aws_cloudwatch_metric_alarm'))}, " in TEXT


def test_the_named_variables_and_outputs_of_terraform_exist(applied: Applied, guide: str) -> None:
    variables = (CHECKOUT / "infra/terraform/variables.tf").read_text()
    assert all(name in TEXT for name in VARIABLES)
    for name in {*re.findall(r"-var (\w+)=|TF_VAR_(\w+)=", guide), *((name, "") for name in VARIABLES)}:
        assert f'variable "{name[0] or name[1]}"' in variables, name
    asked = set(re.findall(r"terraform output -(?:json|raw) (\w+)", guide))
    assert asked
    assert asked <= applied.outputs.keys()


def test_the_names_on_aws_are_those_of_the_created_resources(applied: Applied, guide: str) -> None:
    made = {
        *(
            found.values["name"]
            for kind in ("aws_secretsmanager_secret", "aws_cloudwatch_log_group")
            for found in applied.of_type(kind)
        ),
        *(found.values["family"] for found in applied.of_type("aws_ecs_task_definition")),
        *(found.values["name"] for kind in ("aws_ecs_cluster", "aws_ecs_service") for found in applied.of_type(kind)),
    }
    named = re.findall(
        r"--(?:secret-id|task-definition|cluster|service(?:-name)?|family-prefix) ([\w/$-]+)|aws logs tail (\S+)",
        re.sub(r"\$\{?ENVIRONMENT\}?", "dev", guide),
    )
    found = {name for names in named for name in names if name and "$" not in name}
    found |= {f"starlift/dev/{secret}" for secret in re.findall(r"^store (\S+) ", guide, re.MULTILINE)}
    assert len(found) > 5
    assert found <= made


def test_the_settings_to_change_for_another_database_exist() -> None:
    topology = read_topology()
    (settings,) = re.findall(r"`settings = \{ (.+) \}`", TEXT)
    told = {name.removeprefix("STARLIFT_").lower() for name in re.findall(r"(\w+) = ", settings)}
    assert told <= ServiceSettings.model_fields.keys() & OperatorSettings.model_fields.keys()
    (schedule,) = topology.schedules.values()
    assert all(f"{schedule.source}/" in bucket.expire_days for bucket in topology.buckets.values())  # which Terraform replaces


def test_every_alarm_has_its_line_in_the_document(applied: Applied) -> None:
    endings = re.findall(r"`…(-[\w-]+)`", TEXT)
    for alarm in applied.of_type("aws_cloudwatch_metric_alarm"):
        assert any(alarm.values["alarm_name"].endswith(ending) for ending in endings), alarm.values["alarm_name"]


needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="the document asks for jq, and this machine has none")


def shell(text: str) -> str:
    """Every command of a guide, as one script."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join(block for block in blocks if not block.startswith(("CREATE ROLE", "managed_secrets")))


def bash(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/bash", *options], input=script, capture_output=True, text=True, check=False)


def test_every_command_is_valid_shell(guide: str) -> None:
    answer = bash(shell(guide), "-n")
    assert answer.returncode == 0, answer.stderr


def test_the_aws_cli_has_every_command_and_option(guide: str) -> None:
    assert not list(aws_cli.findings(shell(guide)))


def test_a_workflow_that_a_person_starts_exists_with_its_inputs() -> None:
    started = re.findall(r"gh workflow run (\w+\.yml)([^`\n]*)", TEXT)
    assert started
    for name, options in started:
        document = yaml.safe_load((CHECKOUT / ".github/workflows" / name).read_text())
        inputs = document[True]["workflow_dispatch"]["inputs"]  # YAML reads `on` as True
        given = dict(re.findall(r"--field (\w+)=(\S+)", options))
        assert {name for name, found in inputs.items() if found["required"]} <= given.keys() <= inputs.keys()
        assert given["program"] in inputs["program"]["options"]


def blocks_of(heading: str) -> str:
    """The commands of one section, as a script."""
    section = re.split(r"^##+ ", TEXT.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return "\n".join(re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def variants(job: dict[str, Any]) -> list[str]:
    """The values of a job's matrix, which has at most one dimension."""
    (values,) = job.get("strategy", {}).get("matrix", {"": [""]}).values()
    return list(values)


@needs_jq
@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_only_protected_main_is_deployed_and_only_approved_builds_reach_prod(environment: str) -> None:
    stand_ins = """
    terraform() { echo '{"ingestion": "i", "remodelling": "r", "loading": "l", "operator": "o"}'; }
    gh() {
      case "$*" in *"--input -"*) echo "$* $(jq --compact-output .)" >&2 ;; "api user"*) echo 7 ;; *) echo "$*" >&2 ;; esac
    }
    """
    given = f"set -euo pipefail; ENVIRONMENT={environment} AWS_REGION=eu-west-2 STATE=state"
    answer = bash(f"{stand_ins}\n{given}\n{blocks_of('### 7. The pipelines')}")
    assert answer.returncode == 0, answer.stderr
    protection, *rest = answer.stderr.splitlines()
    assert protection.startswith("api --method PUT repos/{owner}/{repo}/branches/main/protection ")
    jobs = yaml.safe_load((CHECKOUT / ".github/workflows/checks.yml").read_text())["jobs"].values()
    checks = json.loads(protection.partition(" - ")[2])["required_status_checks"]["contexts"]
    names = [re.sub(r"\$\{\{ matrix\.\w+ \}\}", value, job["name"]) for job in jobs for value in variants(job)]
    assert checks == names
    rules = [json.loads(line.partition(" - ")[2]) for line in rest if f"/environments/{environment}-" in line]
    reviewers = {"reviewers": [{"type": "User", "id": 7}]} if environment == "prod" else {}
    branches = {"deployment_branch_policy": {"protected_branches": True, "custom_branch_policies": False}}
    assert rules == [branches | reviewers] * 4 + [branches]  # the last one is for the nightly plan


def test_resources_are_removed_before_what_contains_them() -> None:
    text = TEXT.partition("### Remove everything\n")[2]
    order = [
        "terraform apply",
        "Drain as above,",
        "rds delete-db-instance",
        "rds wait db-instance-deleted",
        "rds delete-db-subnet-group",
        "ec2 delete-security-group",
        "terraform destroy",
        "aws s3 rm s3://$STATE",
    ]
    assert [text.find(words) for words in order] == sorted(text.find(words) for words in order)
    assert all(words in text for words in order)
    made = set(re.findall(r"create-(db-instance|db-subnet-group|security-group)", TEXT))
    assert made == set(re.findall(r"delete-(db-instance|db-subnet-group|security-group)", text))


@needs_jq
def test_an_operator_command_runs_as_a_task_whose_exit_code_is_returned() -> None:
    stand_ins = """
    terraform() { echo '{"operator": {"awsvpcConfiguration": {}}}'; }
    aws() {
      echo "$@" >&2
      case "$*" in
        *run-task*) echo arn:task/starlift/abc ;;
        *describe-tasks*) echo 3 ;;
        *tasks-stopped*) waits=$((waits + 1)); [[ $waits -gt 2 ]] || return 255 ;;
      esac
    }
    """
    (function,) = re.findall(r"^operator\(\) \{.*?^\}", shell(TEXT), re.MULTILINE | re.DOTALL)
    answer = bash(f"{stand_ins}\n{function}\noperator verify --settle 'a b'")
    assert answer.returncode == 3
    assert '"command":["python","-m","services.operator","verify","--settle","a b"]' in answer.stderr
    assert answer.stderr.count("tasks-stopped") == 3
