"""What the commands about dead letters say and do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from contracts.messages import decode, encode
from services.operator.dlq.commands import dlq_app
from services.operator.exit_codes import DeadLetterExit
from shared.errors import PermanentError
from shared.testing import Partial
from tests.unit.services.operator.dlq.scene import SERVICE
from tests.unit.services.operator.dlq.terminal import Answer, Terminal, terminal_of
from tests.unit.services.operator.scene import LANDING, ingested

CODE = DeadLetterExit


@pytest.fixture
def dlq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    with terminal_of(monkeypatch, capsys) as found:
        yield found


def test_nothing_lies_there(dlq: Terminal) -> None:
    assert dlq("list") == Answer(0, "ingestion: 0 dead letters\nremodelling: 0 dead letters\nloading: 0 dead letters\n", "")
    assert dlq("audit") == Answer(CODE.NOTHING, "", "starlift: there is no such operation\n")
    assert dlq("replay", "--execute") == Answer(CODE.NOTHING, "no matching dead letters\n", "")
    assert dlq("replay", "--execute", "--json") == Answer(CODE.NOTHING, "", "")
    assert dlq("replay") == Answer(CODE.NOTHING, "no matching dead letters\n", "")
    assert dlq("discard", SERVICE, "--reason", "x").code == CODE.NOTHING
    assert dlq("export") == Answer(CODE.NOTHING, "", "")
    assert dlq("resume").code == CODE.NOTHING
    assert dlq("show", "abc").code == CODE.NOTHING


def test_list_tells_what_died_of_what_since_when_and_explains_itself(dlq: Terminal) -> None:
    dlq.bury(3)
    dlq.bury(2, error_type="KeyError", fingerprint="f" * 16, message="unexpected KeyError")
    dlq.lay("{")
    answer = dlq("list", SERVICE)
    assert answer.code == 0
    assert "remodelling: 6 dead letters, the oldest failed 2025-12-31 00:00:00 UTC" in answer.out
    assert "4 x SourceMismatchError, fingerprint 0123456789abcdef, 1 of them can't go back" in answer.out
    assert "table 'staff' lacks column 'email'" in answer.out
    assert "2 x KeyError, fingerprint ffffffffffffffff" in answer.out
    assert "Looking hides letters for a moment and raises their receive count; both are harmless." in answer.out
    assert dlq.run(dlq.graves.dead.depth()).visible == 6
    (pile,) = dlq("list", SERVICE, "--json").lines
    assert [(group["count"], group["unsendable"]) for group in pile["groups"]] == [(4, 1), (2, 0)]
    assert (pile["service"], pile["letters"], pile["in_hand_elsewhere"]) == (SERVICE, 6, 0)


def test_list_tells_of_letters_in_somebody_s_hands(dlq: Terminal) -> None:
    dlq.bury(3)
    dlq.run(dlq.graves.dead.receive(2, wait=timedelta(0), visibility=timedelta(hours=1)))
    assert "2 more are in somebody's hands" in dlq("list").out
    assert dlq("list", SERVICE, "--json").lines[0]["in_hand_elsewhere"] == 2


def test_what_somebody_has_in_hand_is_missing_from_an_export_and_from_a_plan_and_both_say_so(dlq: Terminal) -> None:
    dlq.bury(3)
    dlq.run(dlq.graves.dead.receive(2, wait=timedelta(0), visibility=timedelta(hours=1)))
    told = "starlift: somebody has 2 more letters of remodelling in hand, which were not looked at; try again in a minute\n"
    answer = dlq("export", SERVICE)
    assert (answer.code, len(answer.lines), answer.err) == (CODE.PARTIAL, 1, told)
    answer = dlq("replay")
    assert (answer.code, answer.err) == (CODE.PARTIAL, told)
    assert "1 letter of 1 would be sent" in answer.out
    dlq.run(dlq.graves.dead.receive(2, wait=timedelta(0), visibility=timedelta(hours=1)))
    assert dlq("export").code == CODE.PARTIAL
    assert dlq("replay").code == CODE.PARTIAL
    answer = dlq("replay", SERVICE, "--execute")
    assert answer.code == CODE.PARTIAL
    assert answer.out.startswith(
        "replay of remodelling partial: no letters; others had 3 more in hand, which were not looked at"
    )


def test_a_limit_that_is_reached_looks_no_further_and_misses_nothing(dlq: Terminal) -> None:
    dlq.bury(3)
    dlq.run(dlq.graves.dead.receive(2, wait=timedelta(0), visibility=timedelta(hours=1)))
    assert dlq("export", "--limit", "1").code == 0


def test_show_tells_all_of_a_letter(dlq: Terminal) -> None:
    dlq.bury(1, replays=2)
    event = str(decode(dlq.graves.dead.bodies[0]).id)
    answer = dlq("show", event[:8])
    assert answer.code == 0
    for fact in (
        "SourceMismatchError (permanent)",
        "2 times",
        "2026-11-01T09:30:00Z",
        "could go back  yes",
        f'"id": "{event}"',
    ):
        assert fact in answer.out
    (letter,) = dlq("show", event[:8], "--json").lines
    assert letter["message"]["id"] == event
    assert letter["failure"]["replays"] == 2
    assert letter["problem"] is None


def test_show_says_what_is_wrong_with_the_objects_that_a_message_refers_to(dlq: Terminal) -> None:
    body = json.loads(encode(ingested(1)))
    ref = {"bucket": LANDING, "key": "k", "byte_count": 1, "row_count": 1, "sha256": "0" * 64}
    extract = {"table": "staff", "role": "base", "object": ref}
    body["data"]["extracts"] = [extract, extract, {**extract, "object": {**ref, "bucket": "nowhere"}}]
    (letter,) = dlq.lay(json.dumps(body))
    answer = dlq("show", letter)
    assert answer.code == 0
    assert "landing/k: a message refers to 'landing/k', which does not exist" in answer.out
    assert "nowhere/k: 'nowhere' does not exist" in answer.out
    assert len(dlq("show", letter, "--json").lines[0]["objects"]) == 2


def test_a_replay_is_a_dry_run_by_default(dlq: Terminal) -> None:
    dlq.bury(3)
    (broken,) = dlq.lay("{")
    answer = dlq("replay")
    assert answer.code == CODE.PARTIAL
    assert "3 letters of 4 would be sent; --execute sends them" in answer.out
    assert f"1 letter of remodelling would stay, such as {broken[:8]}: the body is not JSON" in answer.out
    assert dlq.graves.alive.sent == []
    lines = dlq("replay", "--json").lines
    assert [line["decision"] for line in lines] == ["send", "send", "send", "skip"]
    assert lines[0]["event"] == str(decode(dlq.graves.dead.bodies[0]).id)


def test_a_replay_says_how_it_ended_and_so_does_its_exit_code(dlq: Terminal) -> None:
    dlq.bury(3)
    answer = dlq("replay", "--execute", "--rate", "100", "--operator", "ann", "--reason", "mended")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("replay of remodelling done: 3 replayed (operation ")
    dlq.bury(1)
    dlq.lay("{")
    answer = dlq("replay", "--execute", "--json")
    assert (answer.code, answer.err) == (CODE.PARTIAL, "")
    (told,) = answer.lines
    assert told["ended"]["counts"] == {"skipped": 1, "deleted": 1}
    operators = [line["operator"] for line in dlq("audit", "--json").lines]
    assert operators[0] == "ann"


def test_each_service_is_an_operation_and_a_safety_limit_stops_the_next(dlq: Terminal) -> None:
    dlq.bury(2)
    dlq.lay("{", service="loading")

    async def die(*_given: object) -> None:
        while not dlq.graves.alive.sent:  # noqa: ASYNC110 (the fake tells nobody)
            await asyncio.sleep(1)
        dlq.graves.die(decode(dlq.graves.alive.sent[0].body))

    dying = dlq.loop.create_task(die())
    answer = dlq("replay", "--execute", "--canary", "1", "--json")
    dlq.run(dying)  # type: ignore[arg-type]
    assert answer.code == CODE.STOPPED
    assert [line["service"] for line in answer.lines] == [SERVICE]
    answer = dlq("discard", "--limit", "5", "--reason", "test", "--json")
    assert [line["service"] for line in answer.lines] == [SERVICE, "loading"]
    assert answer.code == 0


def test_the_gravest_end_is_the_exit_code(dlq: Terminal) -> None:
    dlq.bury(1)
    dlq.lay("{", service="loading")
    assert dlq("replay", "--execute").code == CODE.PARTIAL


@pytest.mark.parametrize(
    "words",
    [
        ["--error", "KeyError"],
        ["--canary", "1"],
        ["--limit", "1"],
        ["--force"],
        ["--rate", "501"],
        ["--where", "body"],
    ],
)
def test_native_moves_all_or_nothing(dlq: Terminal, words: list[str]) -> None:
    dlq.bury(1)
    answer = dlq("replay", "--native", "--execute", *words)
    assert answer.code == CODE.USAGE
    assert answer.err.startswith("starlift: --native moves all as it is, 500 a second at most")
    assert not dlq.graves.move_tasks[SERVICE].running


def test_native_is_a_dry_run_by_default_too(dlq: Terminal) -> None:
    dlq.bury(2)
    assert dlq("replay", "--native").out == "SQS would move about 2 letters of remodelling; --execute does it\n"
    assert dlq("replay", "--native", "--json").lines == [{"service": SERVICE, "letters": 2, "decision": "move"}]
    assert not dlq.graves.move_tasks[SERVICE].running
    answer = dlq("replay", SERVICE, "--native", "--execute")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("native of remodelling done")
    assert dlq.graves.move_tasks[SERVICE].running
    assert dlq("replay", SERVICE, "--native", "--execute").code == CODE.LOCKED
    assert dlq("replay", "--execute").code == CODE.LOCKED


def test_an_edit_by_patch_and_its_way_back(dlq: Terminal, tmp_path: Path) -> None:
    dlq.bury(2)
    first = decode(dlq.graves.dead.bodies[0])
    patch = tmp_path / "patch.json"
    patch.write_text('{"source": "ann"}')
    answer = dlq("edit", str(first.id), "--patch", str(patch), "--operator", "ann")
    assert answer.code == 0
    assert answer.out.startswith("edit of remodelling done: 1 edited (operation ")
    assert {decode(body).source for body in dlq.graves.dead.bodies} == {"tests", "ann"}
    patch.write_text('{"data": null}')
    answer = dlq("edit", str(first.id), "--patch", str(patch))
    assert answer.code == CODE.USAGE
    assert "the edited message can't go back to remodelling: " in answer.err
    assert dlq("edit", "remodelling-dlq-", "--patch", str(patch)).err.startswith("starlift: more than one letter begins with")


def test_export_and_restore_there_and_back(dlq: Terminal, tmp_path: Path) -> None:
    dlq.bury(2)
    dlq.lay("{", service="loading")
    file = tmp_path / "letters.jsonl"
    assert dlq("export", "--output", str(file)) == Answer(0, "", "")
    assert len(file.read_text().splitlines()) == 3
    assert dlq("export").lines == [json.loads(line) for line in file.read_text().splitlines()]
    assert dlq("export", "--output", str(file)).code == CODE.USAGE
    before = sorted(dlq.graves.dead.bodies)
    dlq("discard", "--limit", "9", "--reason", "x")
    assert dlq.graves.dead.bodies == dlq.graves.dead_letters["loading"].bodies == []
    answer = dlq("restore", str(file), "--json")
    assert (answer.code, answer.err) == (0, "")
    assert [(line["service"], line["ended"]["counts"]) for line in answer.lines] == [
        (SERVICE, {"sent": 2}),
        ("loading", {"sent": 1}),
    ]
    assert sorted(dlq.graves.dead.bodies) == before
    file.write_text("{\n")
    assert dlq("restore", str(file)).err.startswith("starlift: line 1 of '")


def test_a_discard_comes_back_by_its_operation(dlq: Terminal) -> None:
    dlq.bury(3)
    told = dlq("discard", SERVICE, "--reason", "noise", "--json").lines[0]
    assert told["reason"] == "noise"
    dlq.graves.dead.faults.during(0, 1000, Partial(), "send_all")
    answer = dlq("restore", told["id"])
    assert answer.code == CODE.PARTIAL
    assert answer.out.startswith("restore of remodelling partial: 1 failed, 2 sent (operation ")


def test_the_audit_tells_every_letter_of_an_operation(dlq: Terminal) -> None:
    (letter,) = dlq.bury(1)
    dlq("replay", SERVICE, "--execute", "--operator", "ann", "--reason", "mended")
    (told,) = dlq("audit", "--json").lines
    assert (told["operator"], told["reason"], told["kind"]) == ("ann", "mended", "replay")
    _, line = dlq("audit", told["id"], "--json").lines
    assert (line["letter"], line["step"]) == (letter, "deleted")
    text = dlq("audit", told["id"]).out
    assert f"{told['id']}  replay of remodelling by ann: done (1 replayed); mended" in text
    assert letter in text


def test_the_audit_tells_what_was_chosen_how_and_who_went_on(dlq: Terminal) -> None:
    dlq.bury(2)
    dlq.graves.alive.faults.add("send_all", PermanentError("refused"))
    dlq("replay", SERVICE, "--execute", "--operator", "ann", "--error", "SourceMismatchError", "--limit", "1", "--force")
    assert dlq("resume", "--operator", "bob", "--reason", "ann is asleep").code == 0
    (told,) = dlq("audit", "--json").lines
    text = dlq("audit", told["id"]).out
    assert 'replay of remodelling by ann: done (1 replayed); {"error": "SourceMismatchError"} --limit 1 --force\n' in text
    assert "  2026-01-01 00:00:0" in text
    assert "  bob went on; ann is asleep\n" in text
    _, resumption, _ = dlq("audit", told["id"], "--json").lines
    assert (resumption["operation"], resumption["operator"], resumption["reason"]) == (told["id"], "bob", "ann is asleep")


def test_every_command_that_reads_letters_takes_the_same_filters() -> None:
    commands: dict[str, Any] = dict(typer.main.get_group(dlq_app).commands)
    assert sorted(commands) == ["audit", "discard", "edit", "export", "list", "replay", "restore", "resume", "show"]
    filters = {
        "--id", "--fingerprint", "--error", "--type", "--version", "--run", "--since", "--until", "--where", "--replays",
        "--max-replays", "--limit",
    }  # fmt: skip
    for name in ("replay", "discard", "export"):
        assert filters <= {option for parameter in commands[name].params for option in parameter.opts}
