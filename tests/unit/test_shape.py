"""The size of the code, and names that say nothing. What tells good code from bad is the tail, so nothing is exempt."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts", "infra", "services", "shared", "tests", "tools")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
FILE_LINES_MAXIMUM, BODY_LINES_MAXIMUM = 300, 40
SAYS_NOTHING = frozenset({"utils", "util", "common", "helpers", "helper", "manager", "managers", "base", "misc"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: Function) -> int:
    """From the first statement behind the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_fits_on_a_few_screens(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= FILE_LINES_MAXIMUM, f"{path.name} has {count} lines, more than {FILE_LINES_MAXIMUM}; split it by theme"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_function_fits_on_one_screen(path: Path) -> None:
    long = {function.name: body_lines(function) for function in functions(path) if body_lines(function) > BODY_LINES_MAXIMUM}
    assert not long, f"longer than {BODY_LINES_MAXIMUM} lines: {long}; give the steps names of their own"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_module_s_name_says_what_is_in_it(path: Path) -> None:
    names = {part for name in path.relative_to(ROOT).with_suffix("").parts for part in (name, name.rpartition("_")[2])}
    assert not names & SAYS_NOTHING, f"'{path.stem}' says nothing; name it for what it holds"


def test_the_packages_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)


def test_a_body_is_measured_without_its_docstring() -> None:
    source = 'def f():\n    """Doc.\n\n    More.\n    """\n    a = 1\n    return a\n\n\nasync def g():\n    """Only this."""\n'
    f, g = ast.parse(source).body
    assert isinstance(f, ast.FunctionDef)
    assert isinstance(g, ast.AsyncFunctionDef)
    assert (body_lines(f), body_lines(g)) == (2, 0)
