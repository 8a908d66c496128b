"""From a dropped column to an equal warehouse: the walkthrough of docs/dead-letters.md."""

from __future__ import annotations

import json
from typing import Any

from tests.end_to_end.conftest import Databases, Starlift
from tests.end_to_end.test_mishaps import assert_equal, sell, sold
from tests.fixtures.command import Answer


def lines(answer: Answer) -> list[Any]:
    """The documents printed by `--json`, which prints nothing else."""
    assert answer.err == ""
    return [json.loads(line) for line in answer.out.splitlines()]


def test_dead_letters_of_a_dropped_column_are_listed_replayed_and_proved_loaded(shared: Starlift, databases: Databases) -> None:
    shared("dlq", "discard", "ingestion", "--reason", "left by other tests", expected=None)
    before = sold(databases)
    databases.write("ALTER TABLE department DROP COLUMN location")
    try:
        sell(databases)
        shared("ingest", "--wait", expected=4)
        (pile,) = lines(shared("dlq", "list", "ingestion", "--json"))
        (group,) = pile["groups"]
        assert (group["error_type"], group["unsendable"]) == ("SourceMismatchError", 0)
        assert group["message"].startswith("table 'department' lacks column 'location' required by contract 'totesys'")
        shown = shared("dlq", "show", group["letter"]).out
        assert "SourceMismatchError (permanent)" in shown
        assert "could go back  yes" in shown
        assert "would be sent; --execute sends them" in shared("dlq", "replay", "ingestion").out
        stopped = shared("dlq", "replay", "ingestion", "--canary", "1", "--execute", expected=5)
        assert "a canary died again" in stopped.out
    finally:
        databases.write("ALTER TABLE department ADD COLUMN location text")
    (healed,) = lines(shared("dlq", "replay", "ingestion", "--canary", "1", "--execute", "--reason", "it is back", "--json"))
    assert healed["ended"]["end"] == "done"
    assert (healed["canary"], healed["reason"]) == (1, "it is back")
    assert shared("dlq", "list", "ingestion").out == "ingestion: 0 dead letters\n"
    assert [line["ended"]["end"] for line in lines(shared("dlq", "audit", "--json"))][-2:] == ["stopped", "done"]
    assert sold(databases) == before + 1
    assert_equal(shared)
