"""How the version of a tag is published, with stand-ins for docker, gh and uv."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra.offline.tools import CHECKOUT

VERSION = "1.2.3"
CHANGELOG = f"# Changelog\n\n## Unreleased\n\n- Not yet.\n\n## {VERSION} (2026-11-30)\n\n- New.\n\n## 1.2.30\n\n- Another.\n"
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>calls
case "$(basename "$0") $*" in
"uv build "*) mkdir -p dist && touch dist/starlift-1.2.3-py3-none-any.whl ;;
*type=local,dest=*) for option; do case $option in type=local,dest=*) place=${option#type=local,dest=} ;; esac; done
  mkdir -p "$place" && touch "$place/sbom.spdx.json" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the version, as far as the script looks into it."""
    shutil.copytree(CHECKOUT / ".github", tmp_path / ".github")
    (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "{VERSION}"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "path").mkdir()
    for name in ("docker", "gh", "uv"):
        (tmp_path / "path" / name).write_text(STAND_IN)
        (tmp_path / "path" / name).chmod(0o755)
    return tmp_path


def publish(checkout: Path, tag: str = f"v{VERSION}") -> tuple[str, list[str]]:
    """The error, and the calls of the stand-ins."""
    names = {"GITHUB_SHA": "c0ffee", "GITHUB_SERVER_URL": "https://example.com", "GITHUB_REPOSITORY": "Example/Starlift"}
    answer = subprocess.run(
        [".github/publish.sh", tag],
        cwd=checkout,
        env=os.environ | names | {"PATH": f"{checkout / 'path'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    calls = (checkout / "calls").read_text().splitlines() if (checkout / "calls").exists() else []
    assert (answer.returncode == 0) == (not answer.stderr), answer.stderr
    return answer.stderr, calls


def test_a_release_has_the_wheel_the_bills_of_materials_and_the_notes_of_its_version(checkout: Path) -> None:
    error, calls = publish(checkout)
    assert not error
    assert calls[-1].startswith(f"gh release create v{VERSION} --verify-tag ")
    boms = [f"dist/starlift-{program}-{VERSION}.spdx.json" for program in ("ingestion", "loading", "operator", "remodelling")]
    assert sorted(calls[-1].split("notes.md ")[1].split()) == sorted([f"dist/starlift-{VERSION}-py3-none-any.whl", *boms])
    assert (checkout / "notes.md").read_text() == "\n- New.\n\n"


def test_an_image_is_pushed_with_its_bill_of_materials_under_its_version(checkout: Path) -> None:
    _, calls = publish(checkout)
    pushed = [call for call in calls if " --push " in call]
    assert len(pushed) == 4
    for call in pushed:
        assert " --sbom=true " in call
        assert f"--build-arg VERSION={VERSION} " in call
        assert f":{VERSION} ." in call
        assert "ghcr.io/example/starlift/" in call


def test_a_tag_that_is_not_the_version_is_refused(checkout: Path) -> None:
    error, calls = publish(checkout, "v1.2.4")
    assert "another version than the tag v1.2.4" in error
    assert calls == []


def test_a_version_without_notes_is_refused(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text(CHANGELOG.replace(f"## {VERSION} ", "## 1.2.2 "))
    error, calls = publish(checkout)
    assert f"no section '## {VERSION}'" in error
    assert calls == []
