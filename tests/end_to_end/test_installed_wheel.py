"""An installed Starlift: the built wheel in its own environment, used from a folder that holds modules of the same names.

Settings for other programs in a user's shell, files and working directory never reach the local stack's processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.localstack import environment_directory
from infra.local.machine import free_port
from infra.local.stack import Stack
from tests.fixtures.limits import HANG_S

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = ("tests", "tools")
OURS = ("contracts", "infra", "services", "shared")
LOOPBACK_ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
OF_THE_SHELL = {
    "AWS_PROFILE": "production",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "PGHOST": "db.invalid",
    "PGPASSWORD": "theirs",
    "PGSERVICE": "theirs",
    "PGSSLMODE": "verify-full",
    "PGTARGETSESSIONATTRS": "standby",
}
# It turns AWS_ENDPOINT_URL off: a process that reads it looks for the real AWS.
AWS_CONFIGURATION = "[default]\nignore_configured_endpoint_urls = true\n"


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
    """A user's own project with packages named like ours, which end any process that imports them."""
    directory = tmp_path / "project"
    for name in OURS:
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text("raise SystemExit('this is not Starlift')\n")
    yield directory
    Stack.remove(directory / ".starlift" / "stack")


def run(
    environment: Path, folder: Path, *words: str, within: tuple[str, ...] = (), **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with the environment of a login shell and the checkout's LocalStack, `within` another command."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "PG_BIN", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [*within, environment / "bin" / words[0], *words[1:]],
        cwd=folder,
        env=kept | {"STARLIFT_LOCALSTACK": str(environment_directory())} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )


def has_loopback_alone() -> bool:
    try:
        return os.geteuid() == 0 and subprocess.run([*LOOPBACK_ALONE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_the_wheel_contains_the_product_without_tests_and_tools(environment: Path, folder: Path) -> None:
    show = f"import {', '.join(OURS)}; print(*(module.__file__ for module in ({', '.join(OURS)})))"
    found = run(environment, folder, "python", "-P", "-c", show)
    assert all(Path(place).is_relative_to(environment) for place in found.stdout.split()), found
    for name in NOT_INSTALLED:
        assert run(environment, folder, "python", "-P", "-c", f"import {name}").returncode == 1
    (packages,) = environment.glob("lib/*/site-packages")
    assert sorted(path.name for path in (packages / "infra").rglob("*.txt")) == ["localstack-py311.txt", "localstack-py313.txt"]
    assert not list((packages / "infra").rglob("*.tf"))


def test_the_demo_of_an_installed_wheel_uses_no_user_settings_reaches_nothing_outside_and_ends_equal(
    environment: Path, folder: Path, tmp_path: Path
) -> None:
    isolated = has_loopback_alone()
    if isolated:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "config").write_text(AWS_CONFIGURATION)
    answer = run(
        environment,
        folder,
        *("starlift", "demo", "--orders", "20", "--seconds", "1"),
        within=LOOPBACK_ALONE if isolated else (),
        **OF_THE_SHELL,
        HOME=str(tmp_path),
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "EQUAL as of run" in answer.stdout


def test_a_detached_stack_does_not_import_from_the_working_directory(environment: Path, folder: Path) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/shop"
    done = run(environment, folder, "starlift", "up", "--detach", STARLIFT_SOURCE_URL=url)
    assert (done.returncode, done.stderr) == (
        1,
        "starlift: nothing listens at the source database's host and port; start it or correct the URL\n",
    )
