"""How a pipeline deploys an image, with stand-ins for aws, docker, gh and skopeo that record their calls."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from shared.consumer.task_protection import EXPIRY
from tests.fixtures.limits import HANG_S
from tests.infra.offline.tools import CHECKOUT

DIGEST = f"sha256:{7:064x}"
REPOSITORY = "123456789012.dkr.ecr.eu-west-2.amazonaws.com/starlift-loading"
OLD = "arn:aws:ecs:eu-west-2:1:task-definition/starlift-loading:4"
NEW = "arn:aws:ecs:eu-west-2:1:task-definition/starlift-loading:5"
# A call is answered by the first line of `answers` whose words it has; the answers to one line come one after another.
STAND_IN = """#!{python} -IS
import json, pathlib, sys
place = pathlib.Path(__file__).parent
call = " ".join([pathlib.Path(__file__).name, *sys.argv[1:]])
given = "" if "file:///dev/stdin" not in call and "--password-stdin" not in call else sys.stdin.read()
with (place / "calls").open("a") as calls:
    calls.write(json.dumps([call, given]) + "\\n")
answers = json.loads((place / "answers").read_text())
for words, texts in answers.items():
    if words in call:
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        (place / "answers").write_text(json.dumps(answers))
        if text.startswith("exit "):
            sys.exit(int(text.removeprefix("exit ")))
        print(text)
        break
"""
JQ = """#!{python} -IS
import json, sys
definition = json.load(sys.stdin)
definition["containerDefinitions"][0]["image"] = sys.argv[sys.argv.index("--arg") + 2]
for name in sys.argv[-1].partition("del(")[2].rstrip(")").split(","):
    definition.pop(name.strip().lstrip("."), None)
print(json.dumps(definition))
"""
DEFINITION = (
    '{"taskDefinitionArn": "old", "revision": 4, "status": "ACTIVE", "family": "starlift-loading", '
    '"containerDefinitions": [{"name": "main", "image": "old", "environment": []}]}'
)


@dataclass(frozen=True, slots=True)
class Release:
    """The script's exit code, its output and its calls."""

    code: int
    said: str
    calls: list[tuple[str, str]]

    def position(self, words: str) -> int:
        """The position of the first call with these words; fails if there is none."""
        return next(index for index, (call, _) in enumerate(self.calls) if words in call)

    def has(self, words: str) -> bool:
        return any(words in call for call, _ in self.calls)


Answers = dict[str, list[str]]


def with_all_others(answers: Answers) -> Answers:
    """Answers by the words of a call: these, and otherwise those of a successful release."""
    return {
        "get-login-password": ["secret"],
        "imageTags": answers.get("running_tag", ["first-1795391228"]),
        "/compare/": answers.get("order", ["ahead"]),
        "describe-images": answers.get("images", ["exit 254", "there"]),
        "attestation verify": answers.get("attestation", ["verified"]),
        "containerDefinitions[0].image": [f"{REPOSITORY}@sha256:{6:064x}"],
        "describe-task-definition": [DEFINITION],
        "register-task-definition": [NEW],
        "networkConfiguration": ['{"awsvpcConfiguration": {"subnets": ["subnet-a"]}}'],
        "tasks-stopped": answers.get("stopped", [""]),
        "run-task": ["arn:aws:ecs:eu-west-2:1:task/starlift/1"],
        "describe-tasks": answers.get("exit_code", ["0"]),
        "rolloutState": answers.get("rollout", ["IN_PROGRESS", "COMPLETED"]),
        "services[0].taskDefinition": [OLD],
    }


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Release]:
    """Runs the script for a program; `answers` replace those of a successful release."""

    def run(program: str = "loading", digest: str = DIGEST, **answers: list[str]) -> Release:
        for name, text in (("aws", STAND_IN), ("docker", STAND_IN), ("gh", STAND_IN), ("skopeo", STAND_IN), ("jq", JQ)):
            file = tmp_path / name
            file.write_text(text.format(python=sys.executable))
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "answers").write_text(json.dumps(with_all_others(answers)))
        (tmp_path / "calls").write_text("")
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PROGRAM": program,
            "ARCHIVE": "image.tar",
            "DIGEST": digest,
            "REPOSITORY": REPOSITORY.replace("loading", program),
            "CLUSTER": "starlift",
            "GITHUB_REPOSITORY": "example/starlift",
            "GITHUB_SHA": "c0ffee",
            "POLL_S": "0",
            "PATIENCE": "3",
        }
        script = str(CHECKOUT / ".github/release.sh")
        answer = subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=HANG_S)
        calls = [(str(call), str(given)) for call, given in map(json.loads, (tmp_path / "calls").read_text().splitlines())]
        return Release(answer.returncode, answer.stderr, calls)

    return run


def test_the_warehouse_is_migrated_before_the_loader_is_replaced(release: Callable[..., Release]) -> None:
    done = release("loading")
    assert done.code == 0, done.said
    order = [
        "skopeo copy",
        "attestation verify",
        "register-task-definition",
        "run-task",
        "wait tasks-stopped",
        "update-service",
    ]
    assert [done.position(words) for words in order] == sorted(done.position(words) for words in order)
    migration = done.calls[done.position("run-task")][0]
    assert f"--task-definition {NEW}" in migration
    assert "services.loading.migrate" in migration


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


def test_a_migration_may_take_longer_than_one_wait(release: Callable[..., Release]) -> None:
    done = release("loading", stopped=["exit 255", "exit 255", ""])
    assert done.code == 0, done.said
    assert done.has("update-service")


def test_an_image_without_our_signature_is_not_deployed(release: Callable[..., Release]) -> None:
    done = release("ingestion", attestation=["exit 1"])
    assert done.code != 0
    assert not done.has("register-task-definition")


def test_the_signature_must_be_from_main(release: Callable[..., Release]) -> None:
    done = release("ingestion")
    asked = done.calls[done.position("attestation verify")][0]
    assert asked.endswith(" --source-ref refs/heads/main")


def test_a_rolled_back_deployment_fails(release: Callable[..., Release]) -> None:
    done = release("remodelling", rollout=["IN_PROGRESS", "FAILED"])
    assert done.code == 1
    assert f"ECS rolled back to {OLD}" in done.said


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


def test_an_existing_image_is_not_pushed_again(release: Callable[..., Release]) -> None:
    done = release("remodelling", images=["there"])
    assert done.code == 0, done.said
    assert not done.has("skopeo copy")


RUNNING = {"running_tag": [f"{'beef' * 10}-0123456789ab"]}


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
    script = (CHECKOUT / ".github/release.sh").read_text()
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
    }
    called = set(re.findall(r"aws ec[rs] (?:wait )?[a-z-]+", script))
    assert called == needed.keys()
    assert all(f'"{action}"' in policy for action in needed.values())
