"""`make create-environments` and `make clean`, on a machine whose Python, pip and uv only record their calls."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from infra.local import processes
from tests.fixtures.limits import HANG

ROOT = Path(__file__).parents[2]
LOCKS = ("dev", "localstack-py311", "localstack-py313", "uv")
PREREQUISITES = ("pyproject.toml", *(f"infra/locks/{lock}.txt" for lock in LOCKS))
MAKE = str(shutil.which("make"))
# Makes environments whose python is this file. pip "installs" uv, which is this file, and uv the command, unless forbidden.
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $* PIP_USER=$PIP_USER PIP_TARGET=$PIP_TARGET VIRTUAL_ENV=$VIRTUAL_ENV CONDA_PREFIX=$CONDA_PREFIX" >>{log}
case "$(basename "$0") $*" in
"python3 -m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; test ! -e no-ensurepip || exit 1 ;;
"python -m pip install "*) cp "$0" .venv/bin/uv ;;
"python -m pip "*) test -e .venv/bin/uv ;;
"uv venv "*) mkdir -p .starlift/localstack ;;
"uv pip install "*) test -e no-command || cp "$0" .venv/bin/starlift ;;
esac
"""
OTHER_PLACES = dict.fromkeys(("CONDA_PREFIX", "PIP_TARGET", "UV_PYTHON", "VIRTUAL_ENV"), "/theirs") | {"PIP_USER": "1"}


class Checkout:
    """A fresh checkout with the Makefile and its prerequisites, without the product."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        for name in ("Makefile", *PREREQUISITES):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
        program = directory / "path" / "python3"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(log=self.log))
        program.chmod(0o755)

    def make(self, target: str = "create-environments", **environment: str) -> int:
        path = f"{self.directory / 'path'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [MAKE, "--directory", self.directory, target],
            env={"PATH": path} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode

    def calls(self, start: str) -> list[str]:
        """The recorded calls since the last look that begin with `start`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if line.startswith(start)]

    def has(self, name: str) -> bool:
        return (self.directory / name).exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_packages_are_installed_into_our_environments_whatever_else_is_active(checkout: Checkout) -> None:
    assert checkout.make(**OTHER_PLACES) == 0
    calls = checkout.calls("")
    installs = [call for call in calls if " pip sync " in call or " pip install " in call]
    assert len(installs) == 4
    assert all(call.endswith("PIP_USER=0 PIP_TARGET= VIRTUAL_ENV= CONDA_PREFIX=") for call in installs)
    assert all(" --python " in call for call in installs if call.startswith("uv"))
    assert checkout.make() == 0
    assert checkout.calls("") == []


def test_an_incomplete_environment_is_created_again(checkout: Checkout) -> None:
    (checkout.directory / "no-ensurepip").touch()
    assert checkout.make() != 0
    (checkout.directory / "no-ensurepip").unlink()
    (checkout.directory / ".venv" / "half").touch()
    assert checkout.make() == 0
    assert not checkout.has(".venv/half")
    assert checkout.has(".venv/.installed")


def test_an_environment_counts_as_installed_only_with_its_command(checkout: Checkout) -> None:
    (checkout.directory / "no-command").touch()
    assert checkout.make() != 0
    assert not checkout.has(".venv/.installed")
    (checkout.directory / "no-command").unlink()
    assert checkout.make() == 0
    (checkout.directory / ".venv/bin/starlift").unlink()
    checkout.calls("")
    assert checkout.make() == 0
    assert checkout.has(".venv/bin/starlift")
    assert checkout.calls("python3 -m venv") == []


@pytest.mark.parametrize("state", [".starlift/stack", ".starlift/stack/demo"])
def test_make_clean_also_removes_files_outside_the_checkout(state: str, checkout: Checkout, tmp_path: Path) -> None:
    place = tmp_path / "temporary" / "starlift-x"
    (place / "source").mkdir(parents=True)
    (checkout.directory / state).mkdir(parents=True)
    (checkout.directory / state / "place").symlink_to(place)
    assert checkout.make("clean") == 0
    assert list(place.parent.iterdir()) == []
    assert not checkout.has(".starlift")


def test_the_busy_loops_end_with_the_command_and_keep_its_exit_code() -> None:
    script = ROOT / "tests" / "end_to_end" / "busy.sh"
    started = psutil.Popen([str(script), "sh", "-c", "read word; exit 7"], stdin=subprocess.PIPE)
    processes.wait_until(lambda: len(started.children()) == 3, within=HANG)
    children = started.children()
    started.communicate(b"end\n")
    assert started.returncode == 7
    assert len(children) == 3
    assert processes.wait_until(lambda: not any(child.is_running() for child in children), within=HANG)
