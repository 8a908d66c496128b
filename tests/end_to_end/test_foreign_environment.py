"""Settings for other programs in a user's shell, files and working directory never reach the local stack's processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.machine import free_port
from tests.end_to_end.conftest import Starlift
from tests.fixtures.limits import HANG_S

SCRIPT = str(Path(sys.executable).with_name("starlift"))
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


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A working directory with packages named like ours, which end any process that imports them."""
    directory = tmp_path / "application"
    for package in ("contracts", "infra", "services", "shared"):
        (directory / package).mkdir(parents=True)
        (directory / package / "__init__.py").write_text("raise SystemExit('executed by mistake')\n")
    return directory


def has_loopback_alone() -> bool:
    try:
        return os.geteuid() == 0 and subprocess.run([*LOOPBACK_ALONE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_the_demo_uses_no_user_settings_and_reaches_nothing_outside(
    tmp_path: Path, application: Path, starlift: Starlift
) -> None:
    isolated = has_loopback_alone()
    if isolated:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "config").write_text(AWS_CONFIGURATION)
    done = subprocess.run(
        [*(LOOPBACK_ALONE if isolated else ()), SCRIPT, "demo", "--seconds", "1", "--orders", "20"],
        env=starlift.environment(**OF_THE_SHELL, HOME=str(tmp_path)),
        cwd=application,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "EQUAL as of run" in done.stdout


def test_a_detached_stack_does_not_import_from_the_working_directory(application: Path, starlift: Starlift) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/shop"
    done = subprocess.run(
        [SCRIPT, "up", "--detach"],
        env=starlift.environment(STARLIFT_SOURCE_URL=url),
        cwd=application,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "starlift: nothing listens at the source database's host and port; start it or correct the URL\n",
    )
