"""Words that no English-speaking engineer would use: a cheap first check of every text for users and of the names of tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TESTS = [*(ROOT / "tests").rglob("*.py")]
SOURCES = [path for package in ("contracts", "infra", "services", "shared", "tools") for path in (ROOT / package).rglob("*.py")]
BETTER = {
    r"\btold\b(?! apart)": "reported, printed, logged",
    r"\bmend(s|ed|ing)?\b": "repair, fix, correct",
    r"(?<![Tt]here )\bis no (?!longer\b|more\b)": "is not a …",
    r"(?<!['`])\b(some|no)body\b(?!$)": "the subject that acts, or the passive",
    r"\btoo\.(?=\s|$)": "also, before the verb",
    r"\bbur(y|ied)\b|\bgone bad\b|\bgoes off\b": "delete, fail, is raised",
}


def texts_of_code(path: Path) -> Iterator[str]:
    """Every text of a module: error texts, logs, help, and docstrings, from which the help of commands is made."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def prose_of(document: str) -> str:
    """A document without its code: names of tests and functions may contain any word."""
    return re.sub(r"^```.*?^```|`[^`\n]+`", "", document, flags=re.MULTILINE | re.DOTALL)


def names_and_docstrings(path: Path) -> Iterator[str]:
    """What the functions and classes of a module are called, as sentences, and what their docstrings and its own say."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name.replace("_", " ")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            yield ast.get_docstring(node) or ""


def test_no_text_for_users_and_no_name_of_a_test_reads_like_a_translation() -> None:
    texts = [(path, text) for path in SOURCES for text in texts_of_code(path)]
    texts += [(path, prose_of(path.read_text(encoding="utf-8"))) for path in DOCUMENTS]
    texts += [(path, text) for path in TESTS for text in names_and_docstrings(path)]
    found = [
        f"{path.relative_to(ROOT)}: {text[max(0, match.start() - 40) : match.end() + 20]!r} (better: {better})"
        for path, text in texts
        for word, better in BETTER.items()
        for match in re.finditer(word, text)
    ]
    assert not found, "\n".join(found)
