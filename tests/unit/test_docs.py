"""Everything named in the documents exists: commands, options, exit codes, make targets, files, variables, events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.operator.terminal.app import LazyCommand, starlift
from services.operator.terminal.harness import EXIT_CODES, ExitCode
from shared.postgres_url import PARAMETERS
from tests.unit.services.operator.local.test_events import logged_events

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
ELSEWHERE = (
    "dist/",
    ".venv/",
    ".starlift/",
    "quarantine/",
    "dead-letters/",
    "dropzone/",
    "files/",
    "DROPZONE/",
    "snapshot/",
)  # made by make or by the stack, and in buckets
# Names there, and values of infra/terraform.
ON_AWS = ("starlift/", "aws/", "ENVIRONMENT/", "prover/", "sources/", "service/", "task/", "environments/", "repos/", "linux/")
COMMANDS: dict[str, Any] = {
    name: command.load() for name, command in starlift().commands.items() if isinstance(command, LazyCommand)
}


def found(pattern: str, text: str) -> Iterator[re.Match[str]]:
    return re.finditer(pattern, text, re.MULTILINE)


def code_of(text: str) -> str:
    """The texts in fences and between backticks; continued lines are joined."""
    fenced = [match[1] for match in found(r"^```[a-z]*\n((?:.*\n)*?)```$", text)]
    inline = [match[1] for match in found(r"(?<!`)`([^`\n]+)`(?!`)", text)]
    return "\n".join([*fenced, *inline]).replace("\\\n", " ")


@pytest.fixture(params=TEXTS)
def document(request: pytest.FixtureRequest) -> str:
    """One document after another."""
    return TEXTS[str(request.param)]


def test_every_command_and_its_options_exist(document: str) -> None:
    for match in found(r"(?:(?:^|[ /])starlift|(?:^|run --rm )operator) ([a-z]+)([^\n`;]*)", code_of(document)):
        assert match[1] in COMMANDS, f"there is no `starlift {match[1]}`"
        command, words = COMMANDS[match[1]], match[2].split()
        group = getattr(command, "commands", {})
        if group and words and not words[0].startswith("-"):
            assert words[0] in group, f"there is no `starlift {match[1]} {words[0]}`"
            command = group[words[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        named = set(re.findall(r"--[a-z-]+", match[2].partition("#")[0]))
        assert named <= options, f"`starlift {match[1]}` has no {named - options}"


def test_every_option_listed_in_a_table_exists() -> None:
    for match in found(r"^\| `starlift ([a-z]+)` \|(.*)\|$", TEXTS["README.md"]):
        options = {option for parameter in COMMANDS[match[1]].params for option in parameter.opts}
        assert set(re.findall(r"`(--[a-z-]+)`", match[2])) <= options


def test_every_parameter_of_a_url_is_documented() -> None:
    rows = found(r"^\| (`.*?) \| .* \|$", TEXTS["docs/database-urls.md"].partition("| parameter |")[2].partition("\n\n")[0])
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row[1])} == PARAMETERS


def test_no_document_puts_a_password_on_a_command_line(document: str) -> None:
    """Other users can read a command line, and the shell's history keeps it, as psql's keeps a statement."""
    for line in code_of(document).splitlines():
        assert not re.search(
            r"\S.*\s\S*\w://[^/@\s]+:[^/@\s…]+@|--(?!manage-)[a-z-]*password[ =]|PASSWORD '", line.partition("#")[0]
        ), line


def test_the_readme_has_a_line_for_every_command() -> None:
    told = {match[1] for match in found(r"^\| `starlift ([a-z]+)` \|", TEXTS["README.md"])}
    assert told == set(COMMANDS)


def test_the_exit_codes_are_documented_correctly() -> None:
    assert EXIT_CODES in TEXTS["README.md"]
    assert {int(code) for code in re.findall(r"\d+", EXIT_CODES)} == {code.value for code in ExitCode}


def test_every_make_target_exists(document: str) -> None:
    targets = {match[1] for match in found(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"))}
    named = {match[1] for match in found(r"^make ([a-z][a-z-]*)", code_of(document))}
    assert named <= targets


def test_every_link_leads_somewhere() -> None:
    for name, text in TEXTS.items():
        for match in found(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (ROOT / name).parent.joinpath(match[1]).exists(), f"{name} links to {match[1]}"


def test_every_file_exists(document: str) -> None:
    elsewhere = r"\w+://\S+|^[a-z]+/ +.*$"  # a URL, a line of the layout
    paths = re.sub(elsewhere, "", code_of(document), flags=re.MULTILINE)
    for match in found(r"(?<![\w/.-])((?:[\w.-]+/)+[\w.-]*)", paths):
        assert match[1].startswith(ELSEWHERE + ON_AWS) or (ROOT / match[1]).exists(), f"there is no {match[1]}"


def test_the_layout_matches_the_folders() -> None:
    _, _, layout = TEXTS["README.md"].partition("## Layout")
    lines = re.findall(r"^([a-z]+)/ +(.*)$", layout.partition("## ")[0], re.MULTILINE)
    assert {directory for directory, _ in lines} == {"contracts", "shared", "services", "infra", "tests", "tools", "docs"}
    for directory, contents in lines:
        for name in re.findall(r"\b(\w+/|[\w-]+\.(?:md|json))", contents):
            assert (ROOT / directory / name).exists(), f"{directory}/ has no {name}"


def test_every_documented_variable_is_read_somewhere(document: str) -> None:
    sources = [path for package in ("services", "shared", "infra", "tests/fixtures") for path in (ROOT / package).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    for match in found(r"\bSTARLIFT_([A-Z_]+)\b", document):
        name = match[1]
        assert any(spelled in code for spelled in (f"STARLIFT_{name}", f"}}{name}", f"    {name.lower()}:")), match[0]


def test_every_documented_log_event_is_logged() -> None:
    events = {name for name, _ in logged_events()}
    told = [match[1] for text in TEXTS.values() for match in found(r"in the log as `([a-z_]+)`", text)]
    assert told
    assert set(told) <= events


def test_every_function_named_with_its_file_exists_there() -> None:
    named = [(match[1], match[2]) for text in TEXTS.values() for match in found(r"([\w/]+\.py): (\w+)", code_of(text))]
    assert named
    for file, name in named:
        code = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *(?:async )?(?:def|class) {name}\b", code, re.MULTILINE), f"{file} has no {name}"


def test_every_named_test_exists() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^(?:async )?def (test_\w+)|^(Test\w+)", code, re.MULTILINE))
    names = {name for pair in tests for name in pair if name}
    for document, text in TEXTS.items():
        for match in found(r"(?<![\w/])(test_\w+|Test[A-Z]\w+)", code_of(text)):
            assert match[1] in names, f"{document} names {match[1]}, which does not exist"


@pytest.mark.parametrize(("table", "has_code"), [("## What could lose", True), ("## What a crash leaves", False)])
def test_each_line_of_the_guarantee_names_its_test_and_its_code(table: str, *, has_code: bool) -> None:
    _, _, section = TEXTS["docs/guarantees.md"].partition(table)
    _, _, *lines = re.findall(r"^\|.*\|$", section.partition("\n## ")[0], re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        *cells, tests = line.strip("| ").split(" | ")
        assert len(cells) == 3, line
        assert "`test_" in tests, line
        assert not has_code or re.search(r"`[\w/]+\.(?:py: \w+|json)`", cells[-1]), line


def test_no_document_has_an_open_todo() -> None:
    for name, text in TEXTS.items():
        assert not re.search(r"\b(TODO|FIXME|TBD|XXX)\b", text), f"{name} is not finished"
