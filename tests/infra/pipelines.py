"""Checks of the workflows that no tool makes, on any checkout. Each reports what is wrong, and nothing otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# What runs an action, from its action.yml at the pinned commit, and for one that is made of others what runs those.
# GitHub's runners no longer start node20 or older.
RUNTIMES = {
    "actions/attest-build-provenance@977bb373ede98d70efdf65b84cb5f73e068dcc2a": "composite of node24",
    "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8": "node24",
    "actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c": "node24",
    "actions/setup-python@e797f83bcb11b83ae66e0230d6156d7c80228e7c": "node24",
    "actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a": "node24",
    "aws-actions/configure-aws-credentials@8df5847569e6427dd6c4fb1cf565c83acfa8afa7": "node24",
    "hashicorp/setup-terraform@5e8dbf3c6d9deaf4193ca7a8fb23f2ac83bb6c85": "node24",
}
_STARTABLE = {"node24", "composite of node24", "docker"}
_CHECKS = "./.github/workflows/checks.yml"
_DEPLOYS = ("./.github/workflows/deploy.yml", ".github/publish.sh")


def workflow(tree: Path, name: str) -> dict[str, Any]:
    """A workflow of a checkout."""
    text = (tree / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(
        re.sub(r"^on:", "'on':", text, flags=re.MULTILINE)
    )  # otherwise YAML reads it as True
    return found


def unstartable(tree: Path) -> str:
    """Actions that GitHub's runners do not start, or of which the table does not say what runs them."""
    return "\n".join(_unstartable(tree))


def unchecked(tree: Path) -> str:
    """Jobs that deploy or publish without waiting until the checks have passed."""
    return "\n".join(_unchecked(tree))


def _unstartable(tree: Path) -> Iterator[str]:
    used = {
        action: file.name
        for file in sorted((tree / ".github/workflows").glob("*.yml"))
        for action in re.findall(r"uses: ([^./\s]\S+)", file.read_text(encoding="utf-8"))
    }
    for action, file in used.items():
        if action not in RUNTIMES:
            yield f"{file}: look up what runs {action}, and add it to the table"
        elif RUNTIMES[action] not in _STARTABLE:
            yield f"{file}: {action} runs on {RUNTIMES[action]}, which the runners no longer start"
    yield from (f"nothing uses {action}" for action in RUNTIMES.keys() - used.keys())


def _unchecked(tree: Path) -> Iterator[str]:
    for file in sorted((tree / ".github/workflows").glob("*.yml")):
        jobs = workflow(tree, file.stem)["jobs"]
        checks = {name for name, job in jobs.items() if job.get("uses") == _CHECKS and "if" not in job}
        for name, job in jobs.items():
            if not any(deploys in str(job) for deploys in _DEPLOYS):
                continue
            needs = job.get("needs", [])
            if not checks & {*([needs] if isinstance(needs, str) else needs)}:
                yield f"{file.name}: {name} does not wait for the checks"
            if re.search(r"always\(\)|failure\(\)|cancelled\(\)", str(job.get("if", ""))):
                yield f"{file.name}: {name} runs although the checks have failed"
