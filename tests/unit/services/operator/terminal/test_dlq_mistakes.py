"""An error of `starlift dlq …` is reported as one sentence and an exit code."""

from __future__ import annotations

import getpass
import os
import signal
from pathlib import Path

import pytest

from services.operator.terminal.harness import ExitCode
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import Depth
from tests.unit.services.operator.dlq.scene import SERVICE
from tests.unit.services.operator.terminal.dlq_scene import Terminal

NONE = "no matching dead letters\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["replay", "--since", "yesterday"], "'yesterday' is not a time"),
        (["replay", "--since", "999999d"], "'999999d' is not a time"),
        (["replay", "--run", "x"], "'x' is not a run"),
        (["replay", "--where", "["], "--where '[' is not JMESPath"),
        (["replay", "--fingerprint", ""], "the value of --fingerprint is empty"),
        (["discard", "--id", "", "--reason", "x"], "the value of --id is empty"),
        (["discard", "--reason", "x"], "no letters selected: pass a service, a filter or --limit"),
        (["discard", SERVICE, "--reason", " "], "no reason given: pass --reason, which is recorded in the audit"),
        (["restore", ""], "an id must not be empty"),
        (["show", ""], "an id must not be empty"),
        (["edit", ""], "an id must not be empty"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(dlq: Terminal, words: list[str], sentence: str) -> None:
    dlq.add(1)
    answer = dlq(*words)
    assert (answer.code, answer.out) == (ExitCode.USAGE, "")
    assert answer.err.startswith(f"starlift: {sentence}")
    assert answer.err.count("\n") == 1
    assert len(dlq.scene.dead.messages) == 1


@pytest.mark.parametrize("words", [["replay", "--no-such-option"], ["no-such-command"], ["discard", SERVICE]])
def test_a_usage_error_exits_with_2(dlq: Terminal, words: list[str]) -> None:
    assert dlq(*words).code == ExitCode.USAGE


@pytest.mark.parametrize(
    "error",
    [
        PermanentError("sqs refused SendMessageBatch"),
        DependencyDownError("sqs", "'q' does not exist"),
        TransientError("sqs throttles"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_in_the_middle_says_that_nothing_is_lost(dlq: Terminal, error: Exception) -> None:
    dlq.add(1)
    dlq.scene.alive.faults.during(0, 1000, error, "send_all")
    answer = dlq("replay", "--execute")
    assert (answer.code, answer.out) == (ExitCode.FAILED, "")
    assert answer.err == f"starlift: {error}; nothing is lost, it is safe to run the command again\n"
    dlq.scene.alive.faults.clear()
    assert dlq("replay", "--execute").code == 0


def test_the_result_for_one_service_is_printed_before_another_one_fails(dlq: Terminal) -> None:
    dlq.add(1)
    dlq.scene.dead_letters["loading"].faults.add("depth", PermanentError("sqs refused GetQueueAttributes"))
    answer = dlq("discard", "--limit", "5", "--reason", "test")
    assert answer.code == ExitCode.FAILED
    assert answer.out.startswith("discard of remodelling done: 1 discarded (operation ")
    assert answer.err.startswith("starlift: sqs refused GetQueueAttributes; nothing is lost")


def test_a_failed_export_leaves_no_file_that_looks_complete(dlq: Terminal, tmp_path: Path) -> None:
    dlq.add(1)
    dlq.scene.dead_letters["loading"].faults.add("depth", PermanentError("sqs refused GetQueueAttributes"))
    file = tmp_path / "letters.jsonl"
    assert dlq("export", "--output", str(file)).code == ExitCode.FAILED
    assert not file.exists()
    assert dlq("export", "--output", str(file)).code == 0  # the same command again


def test_the_error_of_a_bug_quotes_no_letter(dlq: Terminal) -> None:
    dlq.add(1)
    dlq.scene.alive.faults.add("send_all", ZeroDivisionError("row 17"))
    answer = dlq("replay", "--execute")
    assert (answer.code, answer.out) == (ExitCode.FAILED, "")
    assert answer.err.startswith("starlift: unexpected ZeroDivisionError in shared.testing.faults.")
    assert "row 17" not in answer.err


def test_an_unreadable_file_is_an_error(dlq: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    file.touch()

    def refuse(*_given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    answer = dlq("restore", str(file))
    assert (answer.code, answer.err) == (ExitCode.USAGE, f"starlift: '{file}' can't be read (Permission denied)\n")


def test_sigterm_hands_letters_back_and_the_same_command_continues(dlq: Terminal) -> None:
    dlq.add(30)
    dlq.loop.call_later(4, os.kill, os.getpid(), signal.SIGTERM)
    answer = dlq("replay", "--execute", "--rate", "1")
    assert answer.code == ExitCode.TERMINATED
    assert answer.err == "starlift: interrupted by SIGTERM; it is safe to run the command again\n"
    assert 0 < len(dlq.scene.alive.sent) < 30
    assert dlq.run(dlq.scene.dead.depth()).in_flight == 0
    assert dlq("replay", "--execute").code == 0
    assert len(dlq.scene.alive.sent) == 30


def test_a_stale_count_of_sqs_hides_no_letter(dlq: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    dlq.add(2)

    async def late() -> Depth:
        return Depth(0, 0, 0)

    monkeypatch.setattr(dlq.scene.dead, "depth", late)
    answer = dlq("replay", "--execute")
    assert answer.code == 0
    assert answer.out.startswith("replay of remodelling done: 2 replayed")


def test_a_user_without_a_name_is_recorded_by_number(dlq: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", nameless)
    dlq.add(1)
    assert dlq("replay", "--execute").code == 0
    assert dlq("audit", "--json").lines[0]["operator"] == f"uid {os.getuid()}"


def test_an_unknown_file_or_operation_cannot_be_restored(dlq: Terminal) -> None:
    dlq.add(1)
    answer = dlq("restore", "typo.jsonl")
    sentence = "'typo.jsonl' is not a file, and 0 operations have ids that begin with it; see `starlift dlq audit`"
    assert (answer.code, answer.err) == (ExitCode.NOTHING, f"starlift: {sentence}\n")
