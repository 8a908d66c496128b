"""Runs Terraform's core on a copy of infra/terraform, with the stand-in in place of the AWS provider.

    with opened(checkout, place) as terraform:
        assert terraform.run("validate").is_success
        resources = terraform.apply("dev")

Nothing is installed, fetched or written outside `place`. The programs come from an environment of their own
(`make infra-check` sets it up).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.infra.offline.tools import TOOLS, Answer, run_tool, tool_environment

_HERE = "tests.infra.offline"
# State stays beside the copy: nobody has the bucket that the real one lies in.
_LOCAL_STATE = 'terraform {\n  backend "local" {}\n}\n'
_NOT_COPIED = shutil.ignore_patterns(".terraform*")


class CoreError(Exception):
    """A command that had to succeed failed; the text is Terraform's."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as it was applied. `address` is Terraform's, such as module.queue["loading"].aws_sqs_queue.this."""

    address: str
    type: str
    values: Mapping[str, Any]


class Terraform:
    """The core, working in `directory`."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment

    def run(self, command: str, *arguments: str) -> Answer:
        """Run one command of Terraform."""
        return run_tool(
            "python", "-m", f"{_HERE}.launcher", command, *arguments, directory=self._directory, environment=self._environment
        )

    def apply(self, environment: str, /, **variables: object) -> list[Resource]:
        """Apply with an environment's values and return every resource. Raises: CoreError."""
        more = [f"-var={name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in variables.items()]
        values = [f"-var-file=environments/{environment}.tfvars", *more]
        self._require("apply", "-auto-approve", "-input=false", "-no-color", *values)
        state = json.loads(self._require("show", "-json"))
        return list(_resources(state["values"]["root_module"]))

    def destroy(self, environment: str) -> str:
        """Run `terraform destroy` and return its output. Raises: CoreError."""
        return self._require(
            "destroy", "-auto-approve", "-input=false", "-no-color", f"-var-file=environments/{environment}.tfvars"
        )

    def outputs(self) -> dict[str, Any]:
        """The values of the outputs, after an apply. Raises: CoreError."""
        return {name: output["value"] for name, output in json.loads(self._require("output", "-json")).items()}

    def _require(self, command: str, *arguments: str) -> str:
        answer = self.run(command, *arguments)
        if not answer.is_success:
            raise CoreError(answer.errors)
        return answer.text


@contextmanager
def opened(checkout: Path, place: Path) -> Iterator[Terraform]:
    """Terraform on a copy of a checkout's configuration in `place`, initialised. Raises: CoreError."""
    copy = place / "infra" / "terraform"
    shutil.copytree(checkout / "infra/terraform", copy, ignore=_NOT_COPIED)
    shutil.copy(checkout / "infra/topology.json", place / "infra")
    (copy / "backend_override.tf").write_text(_LOCAL_STATE, encoding="utf-8")
    with _stand_in() as reattach:
        quiet = {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        terraform = Terraform(copy, {**tool_environment(), **quiet, "TF_REATTACH_PROVIDERS": reattach})
        answer = terraform.run("init", "-input=false", "-no-color")
        if not answer.is_success:
            raise CoreError(answer.errors)
        yield terraform


@contextmanager
def _stand_in() -> Iterator[str]:
    """A running stand-in; yields its address for Terraform."""
    with subprocess.Popen(
        [TOOLS / "python", "-m", f"{_HERE}.stand_in"],
        env=tool_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        reattach = process.stdout.readline() if process.stdout else ""
        if not reattach:
            raise CoreError(f"the stand-in did not start; `make infra-check` sets {TOOLS.parent} up")
        yield reattach
        # Leaving closes its standard input, and waits for it to end.


def _resources(module: Mapping[str, Any]) -> Iterator[Resource]:
    for resource in module.get("resources", ()):
        if resource["mode"] == "managed":
            yield Resource(resource["address"], resource["type"], resource["values"])
    for child in module.get("child_modules", ()):
        yield from _resources(child)
