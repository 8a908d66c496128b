"""Every command ends with one exit code and at most one sentence on stderr."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
import typer
from typer.core import TyperGroup

from infra.local.machine import StackError
from services.operator.errors import NotFoundError, NotLoadedError, OperatorError, UsageError
from services.operator.terminal.harness import EXIT_CODES, ExitCode, TerminatedError, run_command, sigterm_as_interrupt
from services.operator.terminal.session import run
from shared.catalog import SourceMismatchError
from shared.errors import DependencyDownError, PermanentError, TransientError

SENTENCE = "a rule, a value, what to do"


def one_command(command: Callable[[], None]) -> TyperGroup:
    application = typer.Typer(rich_markup_mode=None)
    application.command("work")(command)
    application.command("other")(lambda: None)
    return typer.main.get_group(application)


def failing(error: BaseException) -> int:
    def command() -> None:
        raise error

    return run_command(one_command(command), ["work"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermanentError(SENTENCE), 1),
        (SourceMismatchError(SENTENCE), 1),
        (StackError(SENTENCE), 1),
        (TransientError(SENTENCE), 1),
        (DependencyDownError("source", SENTENCE), 1),
        (OperatorError(SENTENCE), 1),
        (UsageError(SENTENCE), 2),
        (NotLoadedError(SENTENCE), 4),
        (NotFoundError(SENTENCE), 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_our_own_errors_are_one_sentence_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    captured = capsys.readouterr()
    assert captured.err == f"starlift: {SENTENCE}\n"
    assert captured.out == ""


def test_notes_of_an_error_follow_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    error = TransientError(SENTENCE)
    error.add_note("two letters are sent")
    failing(error)
    assert capsys.readouterr().err == f"starlift: {SENTENCE}; two letters are sent\n"


def test_a_long_error_stays_on_one_line_and_keeps_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "table '[/x]' lacks column '[bold]' " * 20
    failing(PermanentError(sentence.strip()))
    assert capsys.readouterr().err == f"starlift: {sentence.strip()}\n"


@pytest.mark.parametrize(("stop", "code", "by"), [(KeyboardInterrupt, 130, "Ctrl-C"), (TerminatedError, 143, "SIGTERM")])
def test_an_interruption_is_reported_in_one_sentence(
    stop: type[BaseException], code: int, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(stop()) == code
    assert capsys.readouterr().err == f"starlift: interrupted by {by}; it is safe to run the command again\n"


def test_sigterm_lets_asynchronous_work_clean_up(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    with sigterm_as_interrupt():
        before = signal.getsignal(signal.SIGTERM)
        assert run_command(one_command(lambda: run(work())), ["work"]) == 143
        assert signal.getsignal(signal.SIGTERM) is before
    assert done == ["cleaned up"]
    assert "interrupted by SIGTERM" in capsys.readouterr().err


def test_sigterm_stops_synchronous_work() -> None:
    def command() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("not reached")

    before = signal.getsignal(signal.SIGTERM)
    with sigterm_as_interrupt():
        assert run_command(one_command(command), ["work"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("code", [0, 3, ExitCode.DIFFERENT])
def test_a_command_chooses_its_exit_code(code: int) -> None:
    assert failing(typer.Exit(code)) == code


def test_a_usage_error_exits_with_2_and_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(one_command(lambda: None), ["work", "--nonsense"]) == 2
    assert "No such option: --nonsense" in capsys.readouterr().err
    assert failing(typer.BadParameter("--sample is a number")) == 2
    assert "--sample is a number" in capsys.readouterr().err


def test_a_command_that_returns_exits_with_0() -> None:
    assert run_command(one_command(lambda: None), ["work"]) == 0


def test_a_file_that_cannot_be_written_is_not_reported_as_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(PermissionError(13, "Permission denied", "/etc/x")) == 1
    assert capsys.readouterr().err == (
        "starlift: [Errno 13] Permission denied: '/etc/x'; make room, or correct the path or its permissions\n"
    )


def bug() -> None:
    try:
        dict[str, str]().pop("a secret row value")
    except KeyError as error:
        raise ZeroDivisionError("another secret row value") from error


def test_a_bug_is_reported_in_one_sentence_without_its_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STARLIFT_LOG_LEVEL", raising=False)
    assert run_command(one_command(bug), ["work"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("starlift: unexpected ZeroDivisionError in ")
    assert line.endswith("set STARLIFT_LOG_LEVEL=debug to print the traceback")
    assert "secret" not in line


def test_debug_prints_the_traceback_of_a_bug_without_its_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARLIFT_LOG_LEVEL", "debug")
    assert run_command(one_command(bug), ["work"]) == 1
    text = capsys.readouterr().err
    assert text.index("\nKeyError\n") < text.index("\nZeroDivisionError\n")
    assert "in bug" in text
    assert "test_harness.py" in text
    assert text.splitlines()[-1].startswith("starlift: unexpected ZeroDivisionError in ")


def test_the_help_lists_every_exit_code() -> None:
    for code in ExitCode:
        assert f" {code.value} " in EXIT_CODES
