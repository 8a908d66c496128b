from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from infra.local.errors import StackError
from services.operator.__main__ import EXIT_CODES, app, guarded
from services.operator.exit_codes import ExitCode
from services.operator.ingest import RunNotLoadedError
from services.operator.local.commands import local_app
from services.operator.locate import NowhereError, WrongSettingsError
from shared.catalog import SourceMismatchError
from shared.errors import DependencyDownError, PermanentError, TransientError


def failing(error: BaseException) -> int:
    def command() -> None:
        raise error

    return guarded(command)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermanentError("a rule, a value, what to do"), 1),
        (SourceMismatchError("a rule, a value, what to do"), 1),
        (StackError("a rule, a value, what to do"), 1),
        (TransientError("a rule, a value, what to do"), 1),
        (DependencyDownError("source", "a rule, a value, what to do"), 1),
        (WrongSettingsError("a rule, a value, what to do"), 2),
        (NowhereError("a rule, a value, what to do"), 2),
        (RunNotLoadedError("a rule, a value, what to do"), 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_person_can_mend_is_one_sentence_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    captured = capsys.readouterr()
    assert captured.err == "starlift: a rule, a value, what to do\n"
    assert captured.out == ""


def test_a_long_sentence_stays_one_line_and_brackets_stay_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "table '[/x]' lacks column '[bold]' " * 20
    failing(PermanentError(sentence.strip()))
    assert capsys.readouterr().err == f"starlift: {sentence.strip()}\n"


def test_an_interruption_is_no_failure_to_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 3), (ExitCode.DIFFERENT, 3), ("a text", 1), (None, 1)])
def test_a_command_that_exits_is_believed(code: int | str | None, expected: int) -> None:
    assert failing(SystemExit(code)) == expected


def test_a_command_that_returns_is_done() -> None:
    assert guarded(lambda: "whatever") == 0


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_the_help_names_every_exit_code() -> None:
    for code in ExitCode:
        assert f" {code.value} " in EXIT_CODES


def test_the_command_line_comes_up_without_what_only_the_history_needs() -> None:
    """Pandas takes half a second to import."""
    command = "import sys, services.operator.__main__; print({'numpy', 'pandas', 'fastparquet'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def options(application: typer.Typer) -> dict[str, set[str]]:
    command = typer.main.get_group(application)
    return {name: {option for one in found.params for option in one.opts} for name, found in command.commands.items()}


def test_the_commands_and_their_options() -> None:
    assert options(app) | options(local_app) == {
        "ingest": {"--full", "--compare-keys", "--believe-empty", "--wait", "--timeout"},
        "resend": set(),
        "status": {"--json", "--timeout"},
        "verify": {"tables", "--begin-anew", "--history", "--json", "--record", "--repair", "--report", "--sample", "--settle"},
        "trace": {"table", "key", "--json"},
        "dlq": set(),  # a group; see test_dead_letter_commands.py
        "quarantine": set(),  # likewise
        "up": {"--source-url", "--warehouse-url", "--detach", "--every", "--prove-every", "--localstack-port"},
        "down": set(),
        "demo": {"--orders", "--seconds", "--late-commit"},
    }
