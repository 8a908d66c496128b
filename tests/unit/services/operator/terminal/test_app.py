"""The commands of `starlift`, and the low cost of its help."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from services.operator.terminal.app import LazyCommand, starlift
from services.operator.terminal.harness import run_command

NOT_FOR_HELP = {
    "aiobotocore",
    "aiohttp",
    "asyncio",
    "asyncpg",
    "boto3",
    "botocore",
    "contracts",
    "fastparquet",
    "infra",
    "iso4217",
    "jmespath",
    "numpy",
    "pandas",
    "pydantic",
    "rich",
    "structlog",
}
OURS_FOR_HELP = {
    "services.operator.errors",
    "services.operator.terminal.app",
    "services.operator.terminal.harness",
    "services.operator.wording",
    "shared.errors",
}
PACKAGES = {"services", "services.operator", "services.operator.terminal", "shared"}


def test_the_help_imports_no_heavy_modules() -> None:
    program = (
        "import json, sys\n"
        "from services.operator.terminal.app import starlift\n"
        "from services.operator.terminal.harness import run_command\n"
        "code = run_command(starlift(), ['--help'])\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    *text, last = done.stdout.splitlines()
    code, modules = json.loads(last)
    assert code == 0
    assert any("Exit codes: 0 done" in line for line in text)
    assert NOT_FOR_HELP.isdisjoint(modules)
    assert {name for name in modules if name.partition(".")[0] in ("contracts", "infra", "services", "shared")} <= (
        OURS_FOR_HELP | PACKAGES
    )


def options() -> dict[str, set[str]]:
    commands = {name: command.load() for name, command in starlift().commands.items() if isinstance(command, LazyCommand)}
    return {name: {option for one in found.params for option in one.opts} for name, found in commands.items()}


def test_the_commands_have_these_options() -> None:
    assert options() == {
        "init": {"url", "--output", "--schema", "--include", "--exclude", "--name", "--force"},
        "pull": {"url", "--contract", "--check", "--source"},
        "convert": {"module", "--output", "--force"},
        "plan": {"--contract", "--source-url", "--warehouse-url", "--json"},
        "describe": {"--contract", "--format"},
        "grants": set(),  # a group; see its tests
        "ingest": {"--full", "--compare-keys", "--believe-empty", "--wait", "--timeout", "--source"},
        "resend": {"--source"},
        "runs": {"--limit", "--json", "--source"},
        "files": {"--dataset", "--limit", "--json", "--source"},
        "status": {"--json", "--timeout", "--source"},
        "verify": {
            "tables",
            "--begin-anew",
            "--history",
            "--json",
            "--record",
            "--repair",
            "--report",
            "--sample",
            "--settle",
            "--source",
        },
        "trace": {"table", "key", "--json", "--source"},
        "dlq": set(),  # a group; see the tests of its commands
        "quarantine": set(),  # likewise
        "up": {"--contract", "--source-url", "--warehouse-url", "--detach", "--every", "--prove-every", "--localstack-port"},
        "down": set(),
        "demo": {"--orders", "--seconds", "--late-commit"},
    }


def test_the_right_command_is_suggested_for_a_misspelled_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(starlift(), ["statsu"]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err


def test_a_command_prints_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(starlift(), ["trace", "--help"]) == 0
    assert "Usage: starlift trace [OPTIONS] {TABLE} {KEY}..." in capsys.readouterr().out
    assert run_command(starlift(), ["quarantine", "list", "--help"]) == 0
    assert "Usage: starlift quarantine list [OPTIONS] [TABLE]" in capsys.readouterr().out


def test_the_summary_of_a_command_is_the_start_of_its_own_help() -> None:
    """The line is known without the command's module, so it is written twice."""
    for name, command in starlift().commands.items():
        assert isinstance(command, LazyCommand)
        own = " ".join((command.load().help or "").split())
        assert own.startswith((command.help or "").rstrip(".")), name
