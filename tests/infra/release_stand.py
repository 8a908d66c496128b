"""The pipelines' release.sh, with stand-ins for aws, docker, gh, jq and skopeo that record their calls."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

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
if "--args" in sys.argv:
    command = sys.argv[sys.argv.index("--") + 1:]
    print(json.dumps(dict(containerOverrides=[dict(name="main", command=command)])))
    sys.exit()
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


MANIFEST = b"the manifest of the image"
Answers = dict[str, list[str]]


def with_all_others(answers: Answers) -> Answers:
    """Answers by the words of a call: these, and otherwise those of a successful release."""
    return {
        "get-login-password": ["secret"],
        "imageTags": answers.get("running_tags", ["first-1795391228"]),
        "/compare/": answers.get("order", ["ahead"]),
        "describe-images": answers.get("images", ["exit 254", "there"]),
        "attestation verify": answers.get("attestation", ["verified"]),
        "containerDefinitions[0].image": [f"{REPOSITORY}@sha256:{6:064x}"],
        "describe-task-definition": [DEFINITION],
        "register-task-definition": [NEW],
        "list-tasks": answers.get("tasks", ["arn:task/1\tarn:task/2"]),
        "get-task-protection": answers.get("busy", ["0"]),
        "networkConfiguration": ['{"awsvpcConfiguration": {"subnets": ["subnet-a"]}}'],
        "tasks-stopped": answers.get("stopped", [""]),
        "run-task": ["arn:aws:ecs:eu-west-2:1:task/starlift/1"],
        "describe-tasks": answers.get("exit_code", ["0"]),
        "rolloutState": answers.get("rollout", ["IN_PROGRESS", "COMPLETED"]),
        "services[0].taskDefinition": [OLD],
    }


def archive_of(place: Path, digest: str) -> Path:
    """An OCI archive, as far as the script looks into it."""
    with tarfile.open(place, "w") as archive:
        manifest = tarfile.TarInfo(f"blobs/{digest.replace(':', '/')}")
        manifest.size = len(MANIFEST)
        archive.addfile(manifest, io.BytesIO(MANIFEST))
    return place


def run_release(
    place: Path,
    program: str = "loading",
    digest: str = DIGEST,
    *,
    archive: str = "image.tar",
    held: str | None = None,
    defer: str = "",
    **answers: list[str],
) -> Release:
    """Run the script for a program; `answers` replace those of a successful release, `held` is what its archive holds."""
    stand_ins = dict.fromkeys(("aws", "docker", "gh", "skopeo"), STAND_IN) | ({} if shutil.which("jq") else {"jq": JQ})
    for name, text in stand_ins.items():
        file = place / name
        file.write_text(text.format(python=sys.executable))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    (place / "answers").write_text(json.dumps(with_all_others(answers)))
    (place / "calls").write_text("")
    environment = {
        "PATH": f"{place}:{os.environ['PATH']}",
        "PROGRAM": program,
        "ARCHIVE": archive and str(archive_of(place / archive, held or digest)),
        "DIGEST": digest,
        "REPOSITORY": REPOSITORY.replace("loading", program),
        "CLUSTER": "starlift",
        "DEFER": defer,
        "GITHUB_REPOSITORY": "example/starlift",
        "GITHUB_SHA": "c0ffee",
        "POLL_S": "0",
        "PATIENCE": "3",
        "WAITS": "3",
    }
    script = str(CHECKOUT / ".github/release.sh")
    answer = subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=HANG_S)
    calls = [(str(call), str(given)) for call, given in map(json.loads, (place / "calls").read_text().splitlines())]
    return Release(answer.returncode, answer.stderr, calls)
