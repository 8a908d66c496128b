"""What goes wrong with a command about dead letters is one sentence and an exit code."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import re
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

from services.operator.dlq import actions
from services.operator.dlq.commands import dlq_app
from services.operator.dlq.lock import locked
from services.operator.exit_codes import DeadLetterExit
from shared.errors import DependencyDownError, PermanentError, TransientError
from shared.queue import Depth
from tests.unit.services.operator.dlq.scene import ALL, ANN, FAST, SERVICE
from tests.unit.services.operator.dlq.terminal import Answer, Terminal, terminal_of
from tests.unit.services.operator.scene import LANDING

CODE = DeadLetterExit


@pytest.fixture
def dlq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    with terminal_of(monkeypatch, capsys) as found:
        yield found


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["replay", "--since", "yesterday"], "'yesterday' is no time"),
        (["replay", "--since", "999999d"], "'999999d' is no time"),
        (["replay", "--run", "x"], "'x' is no run"),
        (["replay", "--where", "["], "--where '[' is no JMESPath"),
        (["replay", "--fingerprint", ""], "the value of --fingerprint is empty"),
        (["discard", "--id", "", "--reason", "x"], "the value of --id is empty"),
        (["discard", "--reason", "x"], "say which letters: a service, a filter or --limit"),
        (["discard", SERVICE, "--reason", " "], "say why: --reason is kept in the audit"),
        (
            ["restore", "typo.jsonl"],
            "there is no file 'typo.jsonl', and 0 operations begin so; `starlift dlq audit` lists them",
        ),
        (["restore", ""], "an id must not be empty"),
        (["show", ""], "an id must not be empty"),
        (["edit", ""], "an id must not be empty"),
    ],
)
def test_a_mistake_is_one_sentence(dlq: Terminal, words: list[str], sentence: str) -> None:
    dlq.bury(1)
    answer = dlq(*words)
    assert (answer.code, answer.out) == (CODE.USAGE, "")
    assert answer.err.startswith(f"starlift: {sentence}")
    assert answer.err.count("\n") == 1
    assert len(dlq.graves.dead.messages) == 1


@pytest.mark.parametrize("words", [["replay", "--no-such-option"], ["no-such-command"], ["discard", SERVICE]])
def test_wrong_usage_is_2(dlq: Terminal, words: list[str]) -> None:
    assert dlq(*words).code == CODE.USAGE


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (PermanentError("sqs refused SendMessageBatch"), CODE.NO_ACCESS, "sqs refused SendMessageBatch; nothing is lost, "),
        (DependencyDownError("sqs", "'q' does not exist"), CODE.NO_ACCESS, "'q' does not exist; nothing is lost, "),
        (TransientError("sqs throttles"), CODE.INTERNAL, "sqs throttles; nothing is lost, "),
        (ZeroDivisionError("row 17"), CODE.INTERNAL, "unexpected ZeroDivisionError in shared.testing.faults."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_fails_in_the_middle_says_how_to_go_on(dlq: Terminal, error: Exception, code: int, sentence: str) -> None:
    dlq.bury(1)
    dlq.graves.alive.faults.during(0, 1000, error, "send_all")
    answer = dlq("replay", "--execute")
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith(f"starlift: {sentence}")
    assert "row 17" not in answer.err
    assert answer.err.count("\n") == 1
    (operation,) = dlq.run(actions.interrupted(dlq.graves.system))
    assert f"`starlift dlq resume {operation.id}` goes on" in answer.err
    dlq.graves.alive.faults.clear()
    answer = dlq("resume", operation.id[:10])
    assert (answer.code, answer.err) == (0, "")


def test_what_fails_before_it_has_begun_says_nothing_of_going_on(dlq: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    dlq.bury(1)

    async def refuse() -> bool:
        raise PermanentError("sqs refused ListMessageMoveTasks")

    monkeypatch.setattr(dlq.graves.move_tasks[SERVICE], "is_running", refuse)
    assert dlq("replay", "--execute") == Answer(CODE.NO_ACCESS, "", "starlift: sqs refused ListMessageMoveTasks\n")
    assert dlq("resume").code == CODE.NOTHING


def test_a_file_that_may_not_be_read_is_told(dlq: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    file.touch()

    def refuse(*_given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    answer = dlq("restore", str(file))
    assert (answer.code, answer.err) == (CODE.USAGE, f"starlift: '{file}' can't be read (Permission denied)\n")


def test_an_interrupted_restore_is_not_said_to_go_on(dlq: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    dlq.bury(3)
    dlq("export", "--output", str(file))

    async def interrupted(_messages: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(5)

    monkeypatch.setattr(dlq.graves.dead, "send_all", interrupted)
    answer = dlq("restore", str(file))
    told = "interrupted; `starlift dlq audit` says what was put back; repeat it, ids make that harmless"
    assert (answer.code, answer.err) == (CODE.INTERRUPTED, f"starlift: {told}\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()], ids=lambda one: type(one).__name__)
def test_an_interruption_is_130(dlq: Terminal, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def interrupted(work: Coroutine[Any, Any, Any]) -> None:
        work.close()
        raise error

    monkeypatch.setattr(asyncio, "run", interrupted)
    answer = dlq("replay", "--execute")
    assert (answer.code, answer.out) == (CODE.INTERRUPTED, "")
    assert answer.err == "starlift: interrupted; nothing is lost, `starlift dlq resume` goes on with what was begun\n"


def test_sigterm_interrupts_like_ctrl_c_and_hands_everything_back(dlq: Terminal) -> None:
    dlq.bury(30)
    dlq.loop.call_later(4, os.kill, os.getpid(), signal.SIGTERM)
    answer = dlq("replay", "--execute", "--rate", "1")
    assert answer.code == CODE.INTERRUPTED
    assert 0 < len(dlq.graves.alive.sent) < 30
    assert dlq.run(dlq.graves.dead.depth()).in_flight == 0
    assert dlq("resume").code == 0
    assert len(dlq.graves.alive.sent) == 30


def test_who_is_locked_out_is_told_who_has_the_lock(dlq: Terminal) -> None:
    dlq.bury(1)
    holder = locked(dlq.graves.objects, LANDING, actions.replay_operation(SERVICE, ALL, ANN, FAST))
    dlq.run(holder.__aenter__())
    answer = dlq("replay", "--execute")
    assert answer.code == CODE.LOCKED
    assert answer.err.startswith("starlift: ann works on remodelling's dead letters")
    dlq.run(holder.__aexit__(None, None, None))


def test_a_system_that_can_t_be_reached_is_7(dlq: Terminal) -> None:
    dlq.graves.dead.faults.add("depth", DependencyDownError("sqs", "'q' does not exist"))
    assert dlq("list") == Answer(CODE.NO_ACCESS, "", "starlift: 'q' does not exist\n")


def test_several_interrupted_operations_are_named(dlq: Terminal) -> None:
    dlq.bury(1)
    dlq.lay("{", service="loading")
    dlq.graves.alive.faults.add("send_all", PermanentError("refused"))
    dlq("replay", SERVICE, "--execute")
    dlq.graves.dead_letters["loading"].faults.add("delete", PermanentError("refused"))
    dlq("discard", "loading", "--reason", "x")
    answer = dlq("resume")
    assert answer.code == CODE.USAGE
    assert answer.err.startswith("starlift: several can be resumed, say which: ")
    assert "not ended: it runs, or `starlift dlq resume` goes on" in dlq("audit").out


def test_a_count_of_sqs_that_comes_late_hides_nothing(dlq: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    dlq.bury(2)

    async def late() -> Depth:
        return Depth(0, 0, 0)

    monkeypatch.setattr(dlq.graves.dead, "depth", late)
    answer = dlq("replay", "--execute")
    assert answer.code == 0
    assert answer.out.startswith("replay of remodelling done: 2 replayed")
    assert dlq("replay", SERVICE, "--native", "--execute").code == 0
    assert dlq.graves.move_tasks[SERVICE].running


def test_show_says_that_it_shows_some_of_many(dlq: Terminal) -> None:
    dlq.bury(6)
    answer = dlq("show", "remodelling-dlq", "--json")
    assert (answer.code, len(answer.lines)) == (0, 5)
    assert answer.err == "starlift: more than 5 letters begin with 'remodelling-dlq', these are some; write more of the id\n"
    assert dlq("show", "remodelling-dlq-3").err == ""


def test_what_was_edited_and_does_not_validate_is_kept(dlq: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour's work, and one comma."""
    (letter,) = dlq.bury(1)
    program = 'import sys; p = sys.argv[1]; s = open(p).read(); open(p, "w").write(s.replace("batch_ingested", "folded"))'
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} -c '{program}'")
    answer = dlq("edit", letter)
    assert answer.code == CODE.USAGE
    assert "the edited message can't go back to remodelling: " in answer.err
    kept = re.search(r"what you saved is kept in '(.*)'; correct it, and give it to --patch$", answer.err)
    assert kept
    assert json.loads(Path(kept[1]).read_text(encoding="utf-8"))["type"] == "starlift.folded.v2"
    rmtree(Path(kept[1]).parent)


def test_a_user_without_a_name_is_a_number(dlq: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", nameless)
    dlq.bury(1)
    assert dlq("replay", "--execute").code == 0
    assert dlq("audit", "--json").lines[0]["operator"] == f"uid {os.getuid()}"


def test_the_help_names_every_exit_code() -> None:
    for code in DeadLetterExit:
        assert f" {code.value} " in str(dlq_app.info.epilog)
