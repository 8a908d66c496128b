"""`starlift dlq …` on a system of fakes: what it prints where, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import typer

from contracts.messages import decode
from services.operator.terminal.dlq import app
from services.operator.terminal.harness import ExitCode
from shared.testing import Partial
from tests.unit.services.operator.dlq.scene import SERVICE
from tests.unit.services.operator.scene import ingested
from tests.unit.services.operator.terminal.dlq_scene import Answer, Terminal

NONE = "no matching dead letters\n"


def test_an_empty_dead_letter_queue_is_reported(dlq: Terminal) -> None:
    assert dlq("list") == Answer(0, "ingestion: 0 dead letters\nremodelling: 0 dead letters\nloading: 0 dead letters\n", "")
    assert dlq("audit") == Answer(ExitCode.NOTHING, "", "starlift: there are no operations\n")
    assert dlq("replay") == Answer(ExitCode.NOTHING, NONE, "")
    assert dlq("replay", "--execute") == Answer(ExitCode.NOTHING, NONE, "")
    assert dlq("replay", "--execute", "--json") == Answer(ExitCode.NOTHING, "", "")
    assert dlq("discard", SERVICE, "--reason", "x").code == ExitCode.NOTHING
    assert dlq("export") == Answer(ExitCode.NOTHING, "", "")
    assert dlq("show", "abc").code == ExitCode.NOTHING


def test_list_shows_why_and_since_when_letters_failed_and_what_to_do(dlq: Terminal) -> None:
    dlq.add(3)
    dlq.add(2, error_type="KeyError", fingerprint="f" * 16, message="unexpected KeyError")
    dlq.put("{")
    dlq.scene.ledger.load(ingested(1, 0))
    answer = dlq("list", SERVICE)
    assert answer.code == 0
    for line in (
        "remodelling: 6 dead letters, the oldest failed 2025-12-31 00:00:00 UTC",
        "4 x SourceMismatchError, fingerprint 0123456789abcdef",
        "table 'staff' lacks column 'email'",
        "1 can't go back; `starlift dlq replay remodelling` says why",
        "1 are about batches that have been loaded since: `starlift dlq discard remodelling --loaded --reason …`",
        "2 x KeyError, fingerprint ffffffffffffffff",
        "Listing hides letters for a moment and raises their receive count; both are harmless.",
    ):
        assert line in answer.out
    assert dlq.run(dlq.scene.dead.depth()).visible == 6
    (pile,) = dlq("list", SERVICE, "--json").lines
    assert [(one["count"], one["unsendable"], one["loaded"]) for one in pile["groups"]] == [(4, 1, 1), (2, 0, 1)]
    assert (pile["service"], pile["letters"], pile["in_hand_elsewhere"]) == (SERVICE, 6, 0)


def test_list_explains_letters_sent_by_aws(dlq: Terminal) -> None:
    dlq.put('{"Service": "Amazon S3", "Event": "s3:TestEvent"}', service="loading")
    assert "1 can't go back: this is an S3 test event" in dlq("list", "loading").out


def test_every_command_reports_letters_held_by_another_command(dlq: Terminal) -> None:
    dlq.add(3)
    dlq.hold_two()
    assert "about 2 more are held by another command" in dlq("list").out
    complaint = (
        "starlift: another command holds 2 more letters of remodelling, which were not examined; try again in a minute\n"
    )
    answer = dlq("export", SERVICE)
    assert (answer.code, len(answer.lines), answer.err) == (ExitCode.PARTIAL, 1, complaint)
    answer = dlq("replay")
    assert (answer.code, answer.err) == (ExitCode.PARTIAL, complaint)
    assert "1 letter of 1 would be sent" in answer.out
    dlq.hold_two()
    assert (dlq("export").code, dlq("replay").code) == (ExitCode.PARTIAL, ExitCode.PARTIAL)
    answer = dlq("replay", SERVICE, "--execute")
    assert answer.code == ExitCode.PARTIAL
    assert answer.out.startswith(
        "replay of remodelling partial: no letters; other commands held 3 more, which were not examined"
    )


def test_show_prints_every_part_of_a_letter(dlq: Terminal) -> None:
    dlq.add(1, replays=2)
    event = str(decode(dlq.scene.dead.bodies[0]).id)
    answer = dlq("show", event[:8])
    assert answer.code == 0
    for fact in (
        "SourceMismatchError (permanent)",
        "2 times",
        "2026-11-01T09:30:00Z",
        "could go back  yes, once the cause is removed: `starlift dlq replay remodelling --id ",
        "loaded since  no",
        f'  "id": "{event}"',
    ):
        assert fact in answer.out
    (letter,) = dlq("show", event[:8], "--json").lines
    assert letter["message"]["id"] == event
    assert (letter["failure"]["replays"], letter["problem"]) == (2, None)


@pytest.mark.parametrize("body", ['{"b":1.50,  "a":1e3, "a":2}', "[1,", "text\nof two lines"])
def test_show_prints_a_body_unchanged(dlq: Terminal, body: str) -> None:
    (letter,) = dlq.put(body)
    assert dlq("show", letter).out.endswith(f"\n{body}\n")
    assert dlq("show", letter, "--json").lines[0]["body"] == body


def test_show_reports_that_it_prints_only_some_of_many(dlq: Terminal) -> None:
    dlq.add(6)
    answer = dlq("show", "remodelling-dlq", "--json")
    assert (answer.code, len(answer.lines)) == (0, 5)
    assert (
        answer.err == "starlift: more than 5 letters begin with 'remodelling-dlq', only some are shown; give more of the id\n"
    )
    assert dlq("show", "remodelling-dlq-3").err == ""


def test_a_replay_is_a_dry_run_by_default(dlq: Terminal) -> None:
    dlq.add(3)
    (broken,) = dlq.put("{")
    answer = dlq("replay")
    assert answer.code == ExitCode.PARTIAL
    assert "3 letters would go to remodelling: starlift.batch_ingested.v5, failed with SourceMismatchError" in answer.out
    assert f"1 letter of remodelling would stay, such as {broken[:8]}: the body is not JSON" in answer.out
    assert "3 letters of 4 would be sent; --execute sends them" in answer.out
    assert dlq.scene.alive.sent == []
    lines = dlq("replay", "--json").lines
    assert [line["decision"] for line in lines] == ["send", "send", "send", "skip"]
    assert lines[0]["event"] == str(decode(dlq.scene.dead.bodies[0]).id)


def test_a_replay_reports_its_end_and_its_exit_code_agrees(dlq: Terminal) -> None:
    dlq.add(3)
    answer = dlq("replay", "--execute", "--rate", "100", "--operator", "ann", "--reason", "the column is back")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("replay of remodelling done: 3 replayed (operation ")
    dlq.add(1)
    dlq.put("{", service="loading")
    answer = dlq("replay", "--execute", "--json")
    assert (answer.code, answer.err) == (ExitCode.PARTIAL, "")  # the worst end of all services
    assert [line["ended"]["counts"] for line in answer.lines] == [{"replayed": 1}, {"left": 1}]


def test_a_safety_limit_also_stops_the_next_service(dlq: Terminal) -> None:
    dlq.add(2)
    dlq.put("{", service="loading")

    async def die() -> None:
        while not dlq.scene.alive.sent:  # noqa: ASYNC110 (the fake has no event for it)
            await asyncio.sleep(1)
        dlq.scene.die(decode(dlq.scene.alive.sent[0].body))

    dying = dlq.loop.create_task(die())
    answer = dlq("replay", "--execute", "--canary", "1", "--json")
    dlq.run(dying)  # type: ignore[arg-type]
    assert answer.code == ExitCode.STOPPED
    assert [line["service"] for line in answer.lines] == [SERVICE]
    answer = dlq("discard", "--limit", "5", "--reason", "test", "--json")
    assert (answer.code, [line["service"] for line in answer.lines]) == (0, [SERVICE, "loading"])


def test_one_command_discards_letters_that_were_loaded_since(dlq: Terminal) -> None:
    dlq.add(3)
    dlq.scene.ledger.load(ingested(1, 2))
    answer = dlq("discard", SERVICE, "--loaded", "--reason", "the next run brought them")
    assert answer.out.startswith("discard of remodelling done: 1 discarded (operation ")
    assert len(dlq.scene.dead.messages) == 2


def test_a_letter_is_edited_by_a_patch_and_validated(dlq: Terminal, tmp_path: Path) -> None:
    dlq.add(2)
    first = decode(dlq.scene.dead.bodies[0])
    patch = tmp_path / "patch.json"
    patch.write_text('{"source": "ann"}')
    answer = dlq("edit", str(first.id), "--patch", str(patch), "--operator", "ann")
    assert answer.code == 0
    assert answer.out.startswith("edit of remodelling done: 1 edited (operation ")
    assert {decode(body).source for body in dlq.scene.dead.bodies} == {"tests", "ann"}
    patch.write_text('{"data": null}')
    answer = dlq("edit", str(first.id), "--patch", str(patch))
    assert answer.code == ExitCode.USAGE
    assert "the edited message can't go back to remodelling: " in answer.err
    assert dlq("edit", "remodelling-dlq-", "--patch", str(patch)).err.startswith("starlift: more than one letter begins with")


def test_an_edited_body_that_is_invalid_is_kept(dlq: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong comma must not lose an hour's work."""
    (letter,) = dlq.add(1)
    program = 'import sys; p = sys.argv[1]; s = open(p).read(); open(p, "w").write(s.replace("batch_ingested", "folded"))'
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} -c '{program}'")
    answer = dlq("edit", letter)
    assert answer.code == ExitCode.USAGE
    kept = re.search(r"what you saved is kept in '(.*)'; correct it, and give it to --patch$", answer.err)
    assert kept
    assert json.loads(Path(kept[1]).read_text(encoding="utf-8"))["type"] == "starlift.folded.v5"
    rmtree(Path(kept[1]).parent)


def test_an_export_is_restored_by_its_file(dlq: Terminal, tmp_path: Path) -> None:
    dlq.add(2)
    dlq.put("{", service="loading")
    file = tmp_path / "letters.jsonl"
    assert dlq("export", "--output", str(file)) == Answer(0, "", "")
    assert len(file.read_text().splitlines()) == 3
    assert dlq("export").lines == [json.loads(line) for line in file.read_text().splitlines()]
    assert dlq("export", "--output", str(file)).code == ExitCode.USAGE
    before = sorted(dlq.scene.dead.bodies)
    dlq("discard", "--limit", "9", "--reason", "x")
    assert dlq.scene.dead.bodies == dlq.scene.dead_letters["loading"].bodies == []
    answer = dlq("restore", str(file), "--json")
    assert (answer.code, answer.err) == (0, "")
    counts = [(line["service"], line["ended"]["counts"]) for line in answer.lines]
    assert counts == [(SERVICE, {"restored": 2}), ("loading", {"restored": 1})]
    assert sorted(dlq.scene.dead.bodies) == before
    file.write_text("{\n")
    assert dlq("restore", str(file)).err.startswith("starlift: line 1 of '")


def test_a_discard_is_restored_by_its_operation(dlq: Terminal) -> None:
    dlq.add(3)
    (discarded,) = dlq("discard", SERVICE, "--reason", "noise", "--json").lines
    assert discarded["reason"] == "noise"
    dlq.scene.dead.faults.during(0, 1000, Partial(), "send_all")
    answer = dlq("restore", discarded["id"])
    assert answer.code == ExitCode.PARTIAL
    assert answer.out.startswith("restore of remodelling partial: 1 left, 2 restored (operation ")


def test_the_audit_lists_operations_and_every_letter_of_one_of_them(dlq: Terminal) -> None:
    letter, _ = dlq.add(2)
    words = ("--operator", "ann", "--reason", "it is back", "--error", "SourceMismatchError", "--limit", "1", "--force")
    dlq("replay", SERVICE, "--execute", *words)
    (kept,) = dlq("audit", "--json").lines
    assert (kept["operator"], kept["reason"], kept["kind"]) == ("ann", "it is back", "replay")
    assert kept["ended"]["outcomes"] == {"replayed": [letter]}
    line = f"{kept['id']}  replay of remodelling by ann: done: 1 replayed; it is back"
    asked = '{"error": "SourceMismatchError"} --limit 1 --force'
    assert dlq("audit", kept["id"]).out == f"{line}; {asked}\n  {letter}  replayed\n"
    assert letter not in dlq("audit").out


def test_every_command_that_reads_letters_takes_the_same_filters() -> None:
    commands: dict[str, Any] = dict(typer.main.get_group(app).commands)
    assert sorted(commands) == ["audit", "discard", "edit", "export", "list", "replay", "restore", "show"]
    filters = {
        "--id", "--fingerprint", "--error", "--type", "--version", "--run", "--since", "--until", "--where", "--replays",
        "--max-replays", "--loaded", "--limit",
    }  # fmt: skip
    for name in ("replay", "discard", "export"):
        assert filters <= {option for parameter in commands[name].params for option in parameter.opts}
