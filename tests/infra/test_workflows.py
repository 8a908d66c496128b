"""The pipelines on GitHub: valid, without a loophole, after the checks, and started by changes of their inputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from infra.topology import read_topology
from tests.infra import checks, pipelines
from tests.infra.offline.tools import CHECKOUT

WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
DEPENDABOT = (CHECKOUT / ".github/dependabot.yml").read_text(encoding="utf-8")
PROGRAMS = [*read_topology().services, "operator"]
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="the pipelines use jq, and this machine has none")


workflow = partial(pipelines.workflow, CHECKOUT)


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
    assert [re.fullmatch(r"python:\d\.\d+-slim@sha256:[0-9a-f]{64}", image) is not None for image in outside] == [True]
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


def test_github_s_runners_start_every_action() -> None:
    assert not pipelines.unstartable(CHECKOUT)


def test_nothing_is_deployed_or_published_before_the_checks_have_passed() -> None:
    assert not pipelines.unchecked(CHECKOUT)
    assert workflow("main")["jobs"]["deploy"]["if"] == "needs.changed.outputs.programs != '[]'"
    assert workflow("checks")["on"].keys() == {"pull_request", "workflow_call"}


def test_the_nightly_plan_changes_nothing_and_fails_if_there_is_a_difference() -> None:
    job = workflow("drift")["jobs"]["plan"]
    run = job["steps"][-1]["run"]
    assert "terraform plan -input=false -lock=false -detailed-exitcode " in run
    assert "apply" not in run
    assert job["steps"][1]["with"]["terraform_wrapper"] is False  # it hides the exit code
    assert job["environment"] == "${{ matrix.environment }}-plan"  # trusted by the role of infra/terraform/drift.tf


def test_only_main_starts_a_deployment() -> None:
    for file in WORKFLOWS:
        document = workflow(file.stem)
        called = {job.get("uses", "") for job in document["jobs"].values()}
        if "./.github/workflows/deploy.yml" in called:
            assert document["on"]["push"] == {"branches": ["main"]}
    assert workflow("deploy")["on"].keys() == workflow("release")["on"].keys() == {"workflow_call"}


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A repository of one commit, in which `gh` names `last` as the commit of the last successful run."""
    place = tmp_path / "repository"
    place.mkdir()
    (tmp_path / "gh").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncat {tmp_path}/last\n')
    (tmp_path / "gh").chmod(0o755)
    git(place, "init", "--quiet")
    commit(place, "README.md")
    (tmp_path / "last").write_text(git(place, "rev-parse", "HEAD"))
    return place


def git(place: Path, *arguments: str) -> str:
    names = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(place), *arguments]
    return subprocess.run(command, env=os.environ | names, capture_output=True, text=True, check=True).stdout.strip()


def commit(place: Path, name: str) -> None:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("changed\n")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", name)


def changed(place: Path, **environment: str) -> list[str]:
    """The programs that .github/changed.sh wants to deploy."""
    path = f"{place.parent}{os.pathsep}{os.environ['PATH']}"
    answer = subprocess.run(
        [CHECKOUT / ".github/changed.sh"],
        cwd=place,
        env=os.environ | {"PATH": path, "GITHUB_SHA": git(place, "rev-parse", "HEAD"), "CHOSEN": ""} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    programs: list[str] = json.loads(answer.stdout)
    return programs


@needs_jq
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["services/{}/handler.py", "infra/locks/{}.txt"])
def test_a_program_is_deployed_when_its_own_code_or_lock_changes(program: str, name: str, history: Path) -> None:
    commit(history, name.format(program))
    assert changed(history) == [program]


@needs_jq
@pytest.mark.parametrize(
    "name",
    [
        *(
            "services/__init__.py",
            "shared/clock.py",
            "contracts/schemas/contract.json",
            "pyproject.toml",
            "infra/locks/build.txt",
        ),
        *("infra/docker/Dockerfile", ".github/build.sh", ".github/release.sh", ".github/run-task.sh", ".github/changed.sh"),
        *(f".github/workflows/{name}.yml" for name in ("main", "deploy", "release")),
    ],
)
def test_every_program_is_deployed_when_what_all_images_share_changes(name: str, history: Path) -> None:
    commit(history, name)
    assert changed(history) == PROGRAMS


@needs_jq
@pytest.mark.parametrize("name", ["docs/deploy.md", "tests/unit/test_docs.py", "infra/locks/dev.txt", "my/shared/clock.py"])
def test_nothing_is_deployed_when_no_image_changes(name: str, history: Path) -> None:
    commit(history, name)
    assert changed(history) == []


@needs_jq
def test_a_change_whose_checks_failed_is_deployed_with_the_change_that_repairs_them(history: Path) -> None:
    commit(history, "services/loading/merge.py")  # its run fails, so the last successful run is still that of the commit before
    commit(history, "tests/unit/test_docs.py")
    assert changed(history) == ["loading"]
    asked = (history.parent / "asked").read_text()
    assert asked.startswith("run list --workflow main.yml --branch main --event push --status success ")


@needs_jq
@pytest.mark.parametrize("last", ["", "beef" * 10])
def test_everything_is_deployed_after_no_known_deployment(last: str, history: Path) -> None:
    (history.parent / "last").write_text(last)
    assert changed(history) == PROGRAMS


@needs_jq
def test_a_person_may_choose_one_program(history: Path) -> None:
    assert changed(history, CHOSEN="loading") == ["loading"]
    assert workflow("main")["on"]["workflow_dispatch"]["inputs"]["program"]["options"] == PROGRAMS


def test_prod_is_deployed_after_dev_with_the_same_image() -> None:
    jobs = workflow("deploy")["jobs"]
    assert jobs["dev"]["needs"] == "build"
    assert jobs["smoke-test"]["needs"] == "dev"
    assert jobs["prod"]["needs"] == ["build", "dev", "smoke-test"]
    assert jobs["prod"]["if"] == "${{ !cancelled() && !failure() && vars.HAS_PROD == 'true' }}"
    for name in ("dev", "prod"):
        assert jobs[name]["uses"] == "./.github/workflows/release.yml"
        assert jobs[name]["with"]["environment"] == name
    assert jobs["dev"]["with"]["digest"] == jobs["prod"]["with"]["digest"] == "${{ needs.build.outputs.digest }}"
    environment = workflow("release")["jobs"]["release"]["environment"]
    assert (
        environment == "${{ inputs.environment }}-${{ inputs.program }}"
    )  # trusted by the roles: infra/terraform/pipelines.tf


def test_the_smoke_test_proves_dev_as_the_operator() -> None:
    job = workflow("deploy")["jobs"]["smoke-test"]
    assert job["environment"] == "dev-operator"
    assert job["if"] == "vars.HAS_SMOKE_TEST == 'true'"
    assert job["steps"][-1]["run"].endswith(" python -m services.operator verify")


def test_a_rollback_takes_the_way_of_a_deployment_without_an_archive() -> None:
    document = workflow("rollback")
    inputs = document["on"]["workflow_dispatch"]["inputs"]
    assert inputs["program"]["options"] == PROGRAMS
    (job,) = document["jobs"].values()
    assert job["uses"] == "./.github/workflows/release.yml"
    assert job["with"] == {name: f"${{{{ inputs.{name} }}}}" for name in inputs} | {"is_rollback": True}
    steps = workflow("release")["jobs"]["release"]["steps"]
    (download,) = [step for step in steps if "download-artifact" in step.get("uses", "")]
    assert download["if"] == "${{ !inputs.is_rollback }}"
    assert steps[-1]["env"]["ARCHIVE"] == "${{ !inputs.is_rollback && 'image.tar' || '' }}"


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


def commands_of(job: str) -> str:
    """What a job of the checks runs."""
    return "\n".join(step["run"] for step in workflow("checks")["jobs"][job]["steps"] if "run" in step)


def test_the_checks_run_the_make_targets_of_developers() -> None:
    assert {"check", "coverage"} <= set(commands_of("checks").split())
    assert "COVERAGE_MINIMUM := 90" in (CHECKOUT / "Makefile").read_text(encoding="utf-8")


def test_the_checks_run_terraform_with_the_provider_of_a_complete_lock_file() -> None:
    assert commands_of("terraform").split("\n") == [
        "make terraform-lock",
        "git add --intent-to-add infra/terraform/.terraform.lock.hcl",
        "git diff --exit-code infra/terraform/.terraform.lock.hcl",
        "",
        "make terraform-check",
    ]


def test_the_checks_prove_a_stack_of_containers_equal() -> None:
    ran = commands_of("containers")
    order = ["operator build", "up --detach --wait", "run --rm fill", "operator ingest --wait", "operator verify"]
    assert [ran.find(words) for words in order] == sorted(ran.find(words) for words in order)
    assert all(words in ran for words in order)
    assert f"for program in {' '.join(PROGRAMS)}; do" in ran


def test_the_demo_runs_on_arm_on_both_systems() -> None:
    demo = workflow("checks")["jobs"]["demo"]
    assert demo["strategy"]["matrix"]["runner"] == ["macos-15", "ubuntu-24.04-arm"]
    assert demo["steps"][-1]["run"] == "make demo"
