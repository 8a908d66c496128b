"""An installed Starlift: the built wheel in its own environment, used from a folder that holds modules of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.localstack import environment_directory
from infra.local.stack import Stack
from tests.fixtures.limits import HANG_S

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = ("tests", "tools")
OURS = ("contracts", "infra", "services", "shared")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; the development environment lends its dependencies, so no network is needed."""
    place = tmp_path_factory.mktemp("installed")
    uv = str(Path(sys.executable).with_name("uv"))
    source = place / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "contracts", "infra", "services", "shared"):
        (source / name).symlink_to(ROOT / name)
    build = [uv, "build", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable, "--wheel"]
    subprocess.run([*build, "--out-dir", place / "dist", source], check=True)
    (wheel,) = (place / "dist").glob("*.whl")
    venv = place / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", venv / "bin/python", wheel], check=True
    )
    dependencies = sysconfig.get_path("purelib")
    # Without `import`, so that the editable install of the development environment is not found through its .pth file.
    (
        venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages" / "dependencies.pth"
    ).write_text(f"{dependencies}\n")
    return venv


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A user's own project, which also has packages named like ours."""
    for name in OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('this is not Starlift')\n")
    yield tmp_path
    Stack.remove(tmp_path / ".starlift" / "stack")


def run(environment: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the environment of a login shell and the checkout's LocalStack."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "PG_BIN", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [environment / "bin" / arguments[0], *arguments[1:]],
        cwd=folder,
        env=kept | {"STARLIFT_LOCALSTACK": str(environment_directory())},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )


def test_the_wheel_contains_the_product_without_tests_and_tools(environment: Path, folder: Path) -> None:
    show = f"import {', '.join(OURS)}; print(*(module.__file__ for module in ({', '.join(OURS)})))"
    found = run(environment, folder, "python", "-P", "-c", show)
    assert all(Path(place).is_relative_to(environment) for place in found.stdout.split()), found
    for name in NOT_INSTALLED:
        assert run(environment, folder, "python", "-P", "-c", f"import {name}").returncode == 1
    (packages,) = environment.glob("lib/*/site-packages")
    assert sorted(path.name for path in (packages / "infra").rglob("*.txt")) == ["localstack-py311.txt", "localstack-py313.txt"]
    assert not list((packages / "infra").rglob("*.tf"))


def test_the_demo_of_an_installed_wheel_proves_the_warehouse_equal_from_any_folder(environment: Path, folder: Path) -> None:
    answer = run(environment, folder, "starlift", "demo", "--orders", "50", "--seconds", "2")
    assert answer.returncode == 0, answer
    assert "EQUAL" in answer.stdout
    assert not any(sign in answer.stdout + answer.stderr for sign in ("Traceback", "this is a bug"))
