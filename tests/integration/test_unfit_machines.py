"""Machines on which a local stack can't start: each is reported in one sentence, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local import machine
from infra.local.machine import Account, StackError, free_port, is_noexec, reachable_directory, remove_place
from infra.local.postgres import Cluster
from infra.local.postgres_binaries import Binaries, readable_by
from infra.local.stack import Stack
from tests.end_to_end.conftest import Starlift
from tests.fixtures.postgres_cluster import TestCluster

NOBODY = Account(65534, 65534)
WITHOUT_CHOWN = ("setpriv", "--bounding-set=-chown", "--inh-caps=-chown")
NO_CHOWN = "PostgreSQL refuses to run as root, and root may not switch to another user here (Operation not permitted); run as"
Mounted = Callable[[str], Path]


@pytest.fixture
def mounted() -> Iterator[Mounted]:
    """Mounts a file system in memory with some options, where the account that PostgreSQL runs as can reach it."""
    places = []

    def mount(options: str) -> Path:
        place = Path(tempfile.mkdtemp(prefix="starlift-test-"))
        command = ["mount", "-t", "tmpfs", "-o", f"mode=0711,{options}", "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            place.rmdir()
            pytest.skip("nothing may be mounted here")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run([str(shutil.which("umount")), str(place)], check=True)
        place.rmdir()


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that had room when the stack was started."""
    monkeypatch.setattr(machine, "FREE_BYTES_MINIMUM", 0)


@pytest.mark.parametrize("size", ["16k", "30m", "44m"], ids=["the state", "a data directory", "a server"])
def test_a_disk_that_fills_up_while_databases_are_created_is_reported(size: str, mounted: Mounted, tight: None) -> None:
    home = mounted(f"size={size}") / "home"
    with pytest.raises(StackError, match="no space left on the disk"), Stack(home) as stack, machine.disk_errors(home):
        stack.start()
    assert Stack.found(home) is None


def test_a_disk_that_fills_up_while_localstack_is_installed_is_reported(
    mounted: Mounted, tight: None, postgres_cluster: TestCluster
) -> None:
    home = mounted("size=16k") / "home"
    url = postgres_cluster.url()
    with pytest.raises(StackError, match="LocalStack ran out of disk space"), Stack(home) as stack, machine.disk_errors(home):
        stack.start(source_url=url, warehouse_url=url)
    assert Stack.found(home) is None


def test_programs_are_copied_to_a_place_where_they_can_run(
    mounted: Mounted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noexec = mounted("noexec,mode=1777")
    monkeypatch.setattr(tempfile, "tempdir", str(noexec))
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    place = reachable_directory(state, NOBODY)
    try:
        assert not is_noexec(place)
    finally:
        remove_place(state)
    bundle = tmp_path / "wheel"
    bundle.mkdir(mode=0o700)
    for program in ("initdb", "postgres"):
        (bundle / program).touch(mode=0o755)
    with pytest.raises(StackError, match=r"can't be run in .*, which is mounted noexec; set TMPDIR or STARLIFT_HOME"):
        readable_by(NOBODY, Binaries(bundle, 18, (bundle,)), noexec)
    assert list(noexec.iterdir()) == []


def test_an_account_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(StackError, match="user id 54321 has no name, and PostgreSQL's initdb needs one; add it to /etc/passwd"):
        Cluster("source", tmp_path).start(free_port())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv")
def test_root_without_the_right_to_chown_is_refused(tmp_path: Path) -> None:
    starlift = Starlift(tmp_path / "home")
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o755)
    done = subprocess.run(
        [*WITHOUT_CHOWN, sys.executable, "-m", "services.operator", "demo"],
        env=starlift.environment(TMPDIR=str(temporary)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"starlift: {NO_CHOWN}")
    assert done.stderr.count("\n") == 1
    assert [*temporary.iterdir(), *starlift.home.iterdir()] == []
