"""Every package that a program imports at start is in its own lock file, not only in the development environment's."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OURS = ("contracts", "services", "shared")
DISTRIBUTIONS = packages_distributions()


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def imported(file: Path) -> Iterator[str]:
    """What a module imports at its top level, not inside a function or `if TYPE_CHECKING`."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_of(program: str) -> list[str]:
    """All of a program's modules: the operator imports its commands lazily. The extra `local` has the local stack's."""
    files = (ROOT / "services" / program).rglob("*.py")
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [module for module in modules if ".local" not in module]


def foreign_packages(starts: list[str]) -> set[str]:
    """Third-party top-level packages that our modules import, directly or indirectly."""
    waiting, seen, found = list(starts), set[str](), set[str]()
    while waiting:
        module = waiting.pop()
        top = module.partition(".")[0]
        if top not in OURS:
            found.add(top)
        elif module not in seen and (file := file_of(module)):
            seen.add(module)
            waiting += imported(file)
    return found - set(sys.stdlib_module_names)


@pytest.mark.parametrize("program", ["ingestion", "remodelling", "loading", "operator"])
def test_the_lock_file_of_a_program_has_every_package_it_imports(program: str) -> None:
    lock = (ROOT / f"infra/locks/{program}.txt").read_text(encoding="utf-8")
    locked = {name.lower() for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    packages = foreign_packages(modules_of(program))
    assert "pydantic" in packages
    for package in packages:
        assert locked & {name.lower() for name in DISTRIBUTIONS[package]}, f"{program}.txt has nothing that provides {package}"
