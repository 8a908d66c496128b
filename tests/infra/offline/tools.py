"""The programs of infra/locks/infra.txt, which live in an environment of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
TOOLS = Path(os.environ.get("STARLIFT_INFRA_TOOLS") or CHECKOUT / ".venv-infra") / "bin"
LIMIT_S = 300  # of a hang: the machine may be busy


@dataclass(frozen=True, slots=True)
class Answer:
    """The output of a program, and whether it succeeded."""

    is_success: bool
    text: str

    @property
    def errors(self) -> str:
        """The errors that Terraform printed, without the successes before them."""
        return self.text[max(0, self.text.find("Error: ")) :]


def run_tool(
    name: str,
    *arguments: str | Path,
    directory: Path = CHECKOUT,
    given: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a program with `given` as its standard input. Raises: FileNotFoundError where `make infra-check` never ran."""
    answer = subprocess.run(
        [TOOLS / name, *arguments],
        cwd=directory,
        env=tool_environment() if environment is None else environment,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return Answer(answer.returncode == 0, answer.stdout + answer.stderr)


def tool_environment() -> dict[str, str]:
    """Our environment without variables that would make a program use another account, provider or Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_", "PYTHON"))}
    return {**kept, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(CHECKOUT)}
