"""The pipelines on GitHub: valid, without a loophole, and started by changes of their inputs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.topology import read_topology
from tests.infra import checks
from tests.infra.offline.tools import CHECKOUT

WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
DEPENDABOT = (CHECKOUT / ".github/dependabot.yml").read_text(encoding="utf-8")
PROGRAMS = [*read_topology().services, "operator"]


def workflow(name: str) -> dict[str, Any]:
    text = (CHECKOUT / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(
        re.sub(r"^on:", "'on':", text, flags=re.MULTILINE)
    )  # otherwise YAML reads it as True
    return found


def conforms(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_workflow_is_valid() -> None:
    answer = conforms("vendor.github-workflows", *WORKFLOWS)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    answer = conforms("vendor.dependabot", CHECKOUT / ".github/dependabot.yml")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_zizmor_reports_no_findings() -> None:
    assert not checks.zizmor(CHECKOUT)


def test_hadolint_reports_no_findings() -> None:
    assert not checks.hadolint(CHECKOUT)


def test_the_images_have_one_base_and_dependabot_can_read_it() -> None:
    dockerfile = (CHECKOUT / "infra/docker/Dockerfile").read_text(encoding="utf-8")
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", dockerfile, re.MULTILINE)
    outside = [image for image, _ in stages if image not in {name for _, name in stages}]
    assert [re.fullmatch(r"python:\d\.\d+-slim(@sha256:[0-9a-f]{64})?", image) is not None for image in outside] == [True]
    bases = [update["directory"] for update in yaml.safe_load(DEPENDABOT)["updates"] if update["package-ecosystem"] == "docker"]
    assert bases == ["/infra/docker"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_action_is_pinned_by_commit(file: Path) -> None:
    for used in re.findall(r"uses: (.+)", file.read_text(encoding="utf-8")):
        assert re.fullmatch(r"\./\.github/workflows/\w+\.yml|[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_no_long_lived_key_is_used(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "secrets." not in text
    assert "aws-access-key-id" not in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_deployed_when_the_code_in_its_image_changes(program: str) -> None:
    """An image holds the whole wheel, and runs one program of it."""
    paths = set(workflow(f"deploy-{program}")["on"]["push"]["paths"])
    runs = {"services/__init__.py", f"services/{program}/**", "shared/**", "contracts/**", f"infra/locks/{program}.txt"}
    made_of = runs | {"pyproject.toml", "infra/locks/build.txt"}
    made_by = {
        "infra/docker/**",
        ".github/release.sh",
        *(f".github/workflows/{name}.yml" for name in (f"deploy-{program}", "deploy", "release")),
    }
    assert paths == made_of | made_by


@pytest.mark.parametrize("program", PROGRAMS)
def test_one_workflow_deploys_every_program(program: str) -> None:
    document = workflow(f"deploy-{program}")
    assert document["on"]["push"]["branches"] == ["main"]
    (job,) = document["jobs"].values()
    assert job["uses"] == "./.github/workflows/deploy.yml"
    assert job["with"] == {"program": program}


def test_prod_is_deployed_after_dev_with_the_same_image() -> None:
    jobs = workflow("deploy")["jobs"]
    assert jobs["dev"]["needs"] == "build"
    assert jobs["prod"]["needs"] == ["build", "dev"]
    assert jobs["prod"]["if"] == "vars.HAS_PROD == 'true'"
    for name in ("dev", "prod"):
        assert jobs[name]["uses"] == "./.github/workflows/release.yml"
        assert jobs[name]["with"]["environment"] == name
    assert jobs["dev"]["with"]["digest"] == jobs["prod"]["with"]["digest"] == "${{ needs.build.outputs.digest }}"
    environment = workflow("release")["jobs"]["release"]["environment"]
    assert (
        environment == "${{ inputs.environment }}-${{ inputs.program }}"
    )  # trusted by the roles: infra/terraform/pipelines.tf


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_pending_approval_for_prod_blocks_no_other_deployment(file: Path) -> None:
    document = workflow(file.stem)
    assert "concurrency" not in document or file.stem == "checks"
    if file.stem == "release":
        assert document["jobs"]["release"]["concurrency"] == {
            "group": "release-${{ inputs.environment }}-${{ inputs.program }}",
            "cancel-in-progress": False,
        }


def test_the_job_that_builds_the_image_has_no_access_to_aws() -> None:
    build = workflow("deploy")["jobs"]["build"]
    assert not any("aws" in str(step.get("uses")) for step in build["steps"])
    assert "environment" not in build


def test_the_checks_run_the_make_targets_of_developers() -> None:
    steps = workflow("checks")["jobs"]["checks"]["steps"]
    run = " ".join(step["run"] for step in steps if "run" in step)
    assert {"check", "coverage"} <= set(run.split())
    assert "COVERAGE_MINIMUM := 90" in (CHECKOUT / "Makefile").read_text(encoding="utf-8")
