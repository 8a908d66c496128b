"""JSON Merge Patches (RFC 7386), the user's editor, and files with invalid contents."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.messages import encode
from services.operator.dlq.letters import Letter, read_letter
from services.operator.errors import UsageError
from services.operator.terminal.dlq_files import edited_by_person, merged, services_in
from shared.queue import Delivery
from shared.testing import EPOCH
from tests.unit.services.operator.dlq.scene import SERVICE
from tests.unit.services.operator.scene import ingested

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        # The rules of RFC 7386: a member is added, replaced, removed by null; an array is a value like any other.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        (None, {"a": 1}, {"a": 1}),
    ],
)
def test_a_patch_follows_the_rules_of_rfc_7386(document: Any, patch: Any, result: Any) -> None:
    assert merged(document, patch) == result


@given(document=JSON, patch=JSON)
@settings(deadline=None)
def test_a_patch_is_idempotent_and_does_not_modify_its_input(document: Any, patch: Any) -> None:
    before = json.dumps(document)
    once = merged(document, patch)
    assert json.dumps(document) == before
    assert merged(once, patch) == once


def as_it_is(document: Any) -> Any:
    return document


def letter(body: str | None = None) -> Letter:
    return read_letter(SERVICE, Delivery("1", body or encode(ingested(7)), "", 1, EPOCH, EPOCH))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000])
def test_a_patch_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "patch.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"patch\.json' is not JSON"):
        edited_by_person(path, letter(), as_it_is)


def editor(monkeypatch: pytest.MonkeyPatch, program: str, variable: str = "EDITOR") -> None:
    """An editor with an option of its own."""
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv(variable, f"{sys.executable} -c '{program}'")


REPLACE = 'import sys; p = sys.argv[1]; s = open(p).read(); open(p, "w").write(s.replace("tests", "ann"))'


@pytest.mark.parametrize("variable", ["EDITOR", "VISUAL"])
def test_the_user_s_editor_is_used_and_leaves_no_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    editor(monkeypatch, REPLACE, variable)
    assert edited_by_person(None, letter(), as_it_is)["source"] == "ann"
    assert list(tmp_path.rglob("*.json")) == []


def test_a_body_that_is_not_json_is_edited_as_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    editor(monkeypatch, 'import sys; p = sys.argv[1]; assert open(p).read() == "{"; open(p, "a").write("}")')
    assert edited_by_person(None, letter("{"), as_it_is) == {}


@pytest.mark.parametrize(
    ("program", "complaint", "kept"),
    [
        ("pass", "nothing was changed; save the message in the editor, or use --patch", []),
        ("raise SystemExit(1)", "failed .*; set \\$EDITOR, or use --patch", []),
        ('import sys; open(sys.argv[1], "w").write("{")', "what you saved is not JSON", ["{"]),
        (None, "the editor 'no-such-editor' failed", []),
    ],
)
def test_a_failed_or_unchanged_edit_changes_nothing_and_saved_text_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str | None, complaint: str, kept: list[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    editor(monkeypatch, program or "")
    if program is None:
        monkeypatch.setenv("EDITOR", "no-such-editor")
    with pytest.raises(UsageError, match=complaint):
        edited_by_person(None, letter(), as_it_is)
    assert [path.read_text() for path in tmp_path.rglob("*.json")] == kept


GOOD = '{"service": "loading", "message_id": "1", "body": "b", "attributes": {}, "sent_at": "2026-01-01T00:00:00Z"}'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2 of '.*' is not an exported dead letter; nothing was restored"),
        ('{"service": "loading"}', "is not an exported dead letter"),
        ("\udcff", "is not an exported dead letter"),
        ("", "is not an exported dead letter"),
        (GOOD.replace("loading", "lodging"), "a letter of 'lodging', not of ingestion, chunks, remodelling, loading"),
    ],
)
def test_a_file_with_one_invalid_line_restores_nothing(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n", encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UsageError, match=complaint):
        services_in(path)
