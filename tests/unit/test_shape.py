"""The size of the code, and names that say nothing. Readers suffer from the longest file and function: none is exempt."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ALONE, LONGEST

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts", "infra", "services", "shared", "tests", "tools")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEXTS = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in FILES}
FILE_LINES_MAXIMUM, BODY_LINES_MAXIMUM = 300, 40
SAYS_NOTHING = frozenset({"utils", "util", "common", "helpers", "helper", "manager", "managers", "base", "misc"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def body_lines(function: Function) -> int:
    """The lines from the first statement after the docstring to the last."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_a_file_fits_on_a_few_screens() -> None:
    long = {str(path): len(text.splitlines()) for path, text in TEXTS.items() if len(text.splitlines()) > FILE_LINES_MAXIMUM}
    assert not long, f"longer than {FILE_LINES_MAXIMUM} lines: {long}; split them by theme"


def test_a_function_fits_on_one_screen() -> None:
    long = {
        f"{path}: {node.name}": body_lines(node)
        for path, text in TEXTS.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Function) and body_lines(node) > BODY_LINES_MAXIMUM
    }
    assert not long, f"longer than {BODY_LINES_MAXIMUM} lines: {long}; give the steps names of their own"


def test_a_module_s_name_says_what_it_contains() -> None:
    names = {path: {part for name in path.with_suffix("").parts for part in (name, name.rpartition("_")[2])} for path in TEXTS}
    empty = [str(path) for path, parts in names.items() if parts & SAYS_NOTHING]
    assert not empty, f"names that say nothing: {empty}; name a module for what it holds"


def test_the_packages_are_found() -> None:
    assert {path.parts[0] for path in TEXTS} == set(PACKAGES)


def test_unit_tests_mirror_the_folders_of_the_source() -> None:
    tests = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    strays = [str(folder) for folder in folders if not (ROOT / folder).is_dir()]
    assert not strays, f"tests of folders that the source does not have: {strays}; move them to what they test"


def test_the_files_that_the_order_of_tests_names_exist_and_those_that_run_anywhere_share_no_stack() -> None:
    assert [name for name in (*ALONE, *LONGEST) if Path(name) not in TEXTS] == []
    assert [name for name in ALONE if "shared: Starlift" in TEXTS[Path(name)]] == []


def test_no_property_test_needs_a_fast_machine() -> None:
    """Hypothesis would fail an example of more than 200 ms; `examples` has no such limit."""
    hasty = [
        f"{path}: {node.name}"
        for path, text in TEXTS.items()
        if "@given(" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Function)
        and any(ast.unparse(one).startswith("given(") for one in node.decorator_list)
        and not any(
            word in ast.unparse(one) for one in node.decorator_list for word in ("deadline=None", "examples(", "often(")
        )
    ]
    assert not hasty, f"with Hypothesis's limit: {hasty}; decorate them with @settings(deadline=None)"


def test_a_body_is_measured_without_its_docstring() -> None:
    source = 'def f():\n    """Doc.\n\n    More.\n    """\n    a = 1\n    return a\n\n\nasync def g():\n    """Only this."""\n'
    f, g = ast.parse(source).body
    assert isinstance(f, ast.FunctionDef)
    assert isinstance(g, ast.AsyncFunctionDef)
    assert (body_lines(f), body_lines(g)) == (2, 0)
