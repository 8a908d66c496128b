"""How a pipeline deploys an image, and how it is rolled back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from shared.consumer.task_protection import EXPIRY
from tests.infra.offline import aws_cli
from tests.infra.offline.tools import CHECKOUT
from tests.infra.release_stand import DIGEST, NEW, OLD, REPOSITORY, Release, run_release


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Release]:
    """Runs the script for a program."""
    return partial(run_release, tmp_path)


def test_the_warehouse_is_migrated_before_the_loader_is_replaced(release: Callable[..., Release]) -> None:
    done = release("loading", **RUNNING)
    assert done.code == 0, done.said
    order = [
        "attestation verify",
        "/compare/",
        "skopeo copy --preserve-digests oci-archive:",
        "register-task-definition",
        "run-task",
        "wait tasks-stopped",
        "update-service",
        "starlift-loading:deployed",
    ]
    assert [done.position(words) for words in order] == sorted(done.position(words) for words in order)
    migration = done.calls[done.position("run-task")][0]
    assert f"--task-definition {NEW}" in migration
    assert '"command":["python","-m","services.loading.migrate"]' in migration.replace('": [', '":[').replace('", "', '","')


def test_the_new_revision_is_the_newest_one_with_the_image_pinned_by_digest(release: Callable[..., Release]) -> None:
    done = release("loading")
    given = done.calls[done.position("register-task-definition")][1]
    assert f'"image": "{REPOSITORY}@{DIGEST}"' in given
    assert '"family": "starlift-loading"' in given
    assert "revision" not in given
    assert f"--task-definition {NEW}" in done.calls[done.position("update-service")][0]


def test_a_failed_migration_leaves_the_loader_unchanged(release: Callable[..., Release]) -> None:
    done = release("loading", exit_code=["1"])
    assert done.code == 1
    assert "nothing was replaced" in done.said
    assert not done.has("update-service")
    assert not done.has(":deployed")


def test_a_migration_that_never_ends_is_a_failed_one(release: Callable[..., Release]) -> None:
    done = release("loading", stopped=["exit 255"], exit_code=["None"])
    assert done.code == 1
    assert "nothing was replaced" in done.said
    assert not done.has("update-service")


def test_a_migration_may_take_longer_than_one_wait(release: Callable[..., Release]) -> None:
    done = release("loading", stopped=["exit 255", "exit 255", ""])
    assert done.code == 0, done.said
    assert done.has("update-service")


def test_an_image_without_our_signature_does_not_even_enter_the_repository(release: Callable[..., Release]) -> None:
    done = release("ingestion", attestation=["exit 1"])
    assert done.code != 0
    assert not done.has("skopeo copy")
    assert not done.has("register-task-definition")


def test_an_archive_of_another_image_is_not_pushed(release: Callable[..., Release]) -> None:
    done = release("ingestion", held=f"sha256:{8:064x}")
    assert done.code != 0
    assert done.calls == []


def test_the_signature_must_be_from_main(release: Callable[..., Release]) -> None:
    done = release("ingestion")
    asked = done.calls[done.position("attestation verify")][0]
    assert asked.endswith(" --source-ref refs/heads/main")


def test_a_rolled_back_deployment_fails(release: Callable[..., Release]) -> None:
    done = release("remodelling", rollout=["IN_PROGRESS", "FAILED"])
    assert done.code == 1
    assert f"ECS rolled back to {OLD}" in done.said
    assert not done.has(":deployed")


def test_an_apply_takes_the_image_that_was_deployed_last_and_no_other() -> None:
    program = (CHECKOUT / "infra/terraform/modules/program/main.tf").read_text()
    (adopted,) = re.findall(r'^data "aws_ecr_image" "deployed" \{\n(.*?)^\}', program, re.MULTILINE | re.DOTALL)
    assert re.search(r'^ *image_tag *= "deployed"$', adopted, re.MULTILINE)
    assert "most_recent" not in program
    assert "--tag ${REGISTRY}/starlift-$program:deployed" in (CHECKOUT / "docs/deploy.md").read_text(encoding="utf-8")


def test_a_rollback_verifies_and_deploys_an_image_of_the_repository_without_a_migration(
    release: Callable[..., Release],
) -> None:
    done = release("loading", archive="", order=["behind"], **RUNNING)
    assert done.code == 0, done.said
    assert f"attestation verify oci://{REPOSITORY}@{DIGEST}" in done.calls[done.position("attestation verify")][0]
    assert not done.has("/compare/")
    assert not done.has("run-task")
    assert done.position("docker login") < done.position("attestation verify") < done.position("update-service")
    copied = f"skopeo copy --preserve-digests docker://{REPOSITORY}@{DIGEST} docker://{REPOSITORY}:deployed"
    assert [call for call, _ in done.calls if call.startswith("skopeo")] == [copied]


def test_a_deployment_that_vanished_counts_as_rolled_back(release: Callable[..., Release]) -> None:
    assert "ECS rolled back" in release("remodelling", rollout=["None"]).said


def test_a_deployment_that_never_ends_fails(release: Callable[..., Release]) -> None:
    done = release("remodelling", rollout=["IN_PROGRESS"])
    assert done.code == 1
    assert "neither done nor rolled back" in done.said


def test_a_task_that_never_ends_loses_its_protection_before_the_pipeline_times_out() -> None:
    script = (CHECKOUT / ".github/release.sh").read_text()
    poll_s, polls = (int(re.findall(rf"{name}:-(\d+)", script)[0]) for name in ("POLL_S", "PATIENCE"))
    assert timedelta(seconds=poll_s * polls) > EXPIRY * 1.5
    assert f"for up to {EXPIRY // timedelta(minutes=1)} minutes" in (CHECKOUT / "docs/deploy.md").read_text(encoding="utf-8")


def test_the_job_and_its_credentials_outlast_the_longest_migration_and_deployment() -> None:
    script = (CHECKOUT / ".github/release.sh").read_text()
    waits, poll_s, polls = (int(re.findall(rf"{name}:-(\d+)", script)[0]) for name in ("WAITS", "POLL_S", "PATIENCE"))
    works = timedelta(minutes=10) * waits + timedelta(seconds=poll_s) * polls
    workflow = (CHECKOUT / ".github/workflows/release.yml").read_text()
    job, session = (int(re.findall(rf"{name}: (\d+)", workflow)[0]) for name in ("timeout-minutes", "role-duration-seconds"))
    role = (CHECKOUT / "infra/terraform/modules/pipeline/main.tf").read_text()
    (longest,) = re.findall(r"max_session_duration = (\d+)", role)
    assert (
        works + timedelta(minutes=15) < timedelta(minutes=job) <= timedelta(seconds=session) <= timedelta(seconds=int(longest))
    )


def test_ingestion_is_replaced_between_two_runs(release: Callable[..., Release]) -> None:
    done = release("ingestion", busy=["1", "1", "0"])
    assert done.code == 0, done.said
    asked = [call for call, _ in done.calls if "get-task-protection" in call]
    assert len(asked) == 3
    assert "--tasks arn:task/1 arn:task/2 " in asked[0]
    assert done.position("get-task-protection") < done.position("register-task-definition")


def test_a_deployment_of_ingestion_is_deferred_while_a_first_load_runs(release: Callable[..., Release]) -> None:
    done = release("ingestion", busy=["1"])
    assert done.code == 1
    assert "deferred: ingestion has been in a run" in done.said
    assert not done.has("register-task-definition")
    assert not done.has("update-service")
    assert not done.has(":deployed")


@pytest.mark.parametrize("given", [{"tasks": ["None"]}, {"defer": "no"}, {"archive": ""}])
def test_nothing_is_waited_for_without_tasks_or_on_request_or_in_a_rollback(
    release: Callable[..., Release], given: dict[str, str | list[str]]
) -> None:
    done = release("ingestion", busy=["1"], **given)
    assert done.code == 0, done.said
    assert not done.has("get-task-protection")


def test_the_other_services_are_replaced_while_they_work(release: Callable[..., Release]) -> None:
    assert release("loading", busy=["1"]).code == 0


def test_an_existing_image_is_not_pushed_again(release: Callable[..., Release]) -> None:
    done = release("remodelling", images=["there"])
    assert done.code == 0, done.said
    assert not done.has("oci-archive:")


RUNNING = {"running_tags": [f"deployed\t{'beef' * 10}-0123456789ab"]}


def test_a_late_build_does_not_replace_a_newer_one(release: Callable[..., Release]) -> None:
    done = release("remodelling", order=["behind"], **RUNNING)
    assert done.code == 1
    assert "which c0ffee does not contain" in done.said
    assert f"--task-definition {OLD}" in done.calls[done.position("containerDefinitions[0].image")][0]
    assert f"repos/example/starlift/compare/{'beef' * 10}...c0ffee" in done.calls[done.position("/compare/")][0]
    assert not done.has("skopeo copy")


@pytest.mark.parametrize("order", ["ahead", "identical"])
def test_a_build_may_replace_one_that_it_contains(release: Callable[..., Release], order: str) -> None:
    assert release("remodelling", order=[order], **RUNNING).code == 0


def test_a_manually_deployed_image_may_be_replaced_by_any_build(release: Callable[..., Release]) -> None:
    done = release("operator")
    assert done.code == 0, done.said
    assert not done.has("/compare/")


def test_two_builds_of_one_commit_have_different_tags(release: Callable[..., Release]) -> None:
    digests = [f"sha256:{letter * 64}" for letter in "ab"]
    pushed = [release("remodelling", digest=digest) for digest in digests]
    tags = [done.calls[done.position("skopeo copy")][0].rpartition(":")[2] for done in pushed]
    assert tags == [f"c0ffee-{letter * 12}" for letter in "ab"]


@pytest.mark.parametrize("program", ["ingestion", "remodelling"])
def test_only_the_loader_has_a_migration(release: Callable[..., Release], program: str) -> None:
    done = release(program)
    assert done.code == 0, done.said
    assert not done.has("run-task")
    assert done.has(f"update-service --cluster starlift --service {program}")


def test_the_operator_is_not_deployed_as_a_service(release: Callable[..., Release]) -> None:
    done = release("operator")
    assert done.code == 0, done.said
    assert done.has("register-task-definition")
    assert not done.has("update-service")


def test_the_role_may_do_everything_the_script_does() -> None:
    script = "".join((CHECKOUT / f".github/{name}.sh").read_text() for name in ("release", "run-task"))
    policy = (CHECKOUT / "infra/terraform/modules/pipeline/main.tf").read_text()
    needed = {
        "aws ecr get-login-password": "ecr:GetAuthorizationToken",
        "aws ecr describe-images": "ecr:DescribeImages",
        "aws ecs describe-task-definition": "ecs:DescribeTaskDefinition",
        "aws ecs register-task-definition": "ecs:RegisterTaskDefinition",
        "aws ecs describe-services": "ecs:DescribeServices",
        "aws ecs run-task": "ecs:RunTask",
        "aws ecs wait tasks-stopped": "ecs:DescribeTasks",
        "aws ecs describe-tasks": "ecs:DescribeTasks",
        "aws ecs update-service": "ecs:UpdateService",
        "aws ecs list-tasks": "ecs:ListTasks",
        "aws ecs get-task-protection": "ecs:GetTaskProtection",
    }
    assert not list(aws_cli.findings(script))
    called = set(re.findall(r"aws ec[rs] (?:wait )?[a-z-]+", script))
    assert called == needed.keys()
    assert all(f'"{action}"' in policy for action in needed.values())
