from __future__ import annotations

import ast
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import structlog

from services.operator.local.events import SENTENCES, LogTail, sentence
from shared.logs import configure_logs

ROOT = Path(__file__).parents[5]
SOURCES = [path for package in ("services", "shared") for path in (ROOT / package).rglob("*.py")]


def logged_events() -> Iterator[tuple[str, set[str]]]:
    """The names and fields of every log call in the code."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr="debug" | "info" | "warning" | "error")
                    | ast.Name(id="log"),
                    args=[name, *_],
                ):
                    fields = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                    for constant in ast.walk(name):
                        if isinstance(constant, ast.Constant):
                            yield str(constant.value), fields
                case _:
                    pass


class Asked(dict[str, Any]):
    """An event that has every field and records which ones its sentence uses."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __missing__(self, name: str) -> Any:
        self.names.add(name)
        return ["one"] if name in {"reasons", "columns"} else 1


def test_every_printed_event_is_logged_with_the_fields_of_its_sentence() -> None:
    logged: dict[str, list[set[str]]] = {}
    for name, fields in logged_events():
        logged.setdefault(name, []).append(fields)
    assert set(SENTENCES) <= set(logged)
    for name, told in SENTENCES.items():
        event = Asked()
        told(event)
        for fields in logged[name]:
            assert event.names <= fields, f"'{name}' is logged without {event.names - fields}"


@pytest.fixture
def reset_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("reset_structlog")
def test_events_logged_by_a_real_service_are_printed() -> None:
    with redirect_stdout(io.StringIO()) as output:
        configure_logs("loading")
        structlog.get_logger().info("batch_loaded", run=7, batch_id="b", rows=1200, gone=0, quarantined=0)
        structlog.get_logger().error("message_dead_lettered", attempt=1, reason="permanent", error="table 'x' lacks 'y'")
        structlog.get_logger().info("batch_already_loaded", run=7, batch_id="b", rows=1200, gone=0, quarantined=0)
    lines = output.getvalue().splitlines()
    assert len(lines) == 3
    loaded, dead, again = map(sentence, lines)
    assert loaded is not None
    assert dead is not None
    assert loaded[8:] == "  loading      run 7 loaded 1,200 rows"
    assert dead[8:] == "  loading      dead letter: table 'x' lacks 'y'"
    assert again is None


def line(event: str, **fields: object) -> str:
    return json.dumps({"timestamp": "2026-11-01T09:30:15.123456Z", "service": "ingestion", "event": event, **fields})


@pytest.mark.parametrize(
    ("event", "fields", "told"),
    [
        ("started", {"queue": "starlift-ingestion", "slots": 1}, "up, reading starlift-ingestion"),
        ("full_read", {"run": 7, "reasons": ["first run", "new table"]}, "run 7 reads in full: first run, new table"),
        ("run_completed", {"run": 7, "rows": 1, "batches": 1, "seconds": 0.5}, "run 7 read 1 row in 0.5 s, 1 batch"),
        ("run_completed", {"run": 7, "rows": 2000, "batches": 2, "seconds": 3.0}, "run 7 read 2,000 rows in 3 s, 2 batches"),
        ("batch_loaded", {"run": 7, "rows": 3, "gone": 0, "quarantined": 2}, "run 7 loaded 3 rows, 2 in quarantine"),
        ("batch_loaded", {"run": 7, "rows": 0, "gone": 1200, "quarantined": 0}, "run 7 loaded 0 rows, 1,200 found deleted"),
        (
            "horizon_held_back",
            {"run": 7, "seconds": 75, "transactions": 3},
            "a transaction at the source stays open (75 s): each run reads again what has changed since",
        ),
        (
            "new_columns",
            {"run": 7, "table": "staff", "columns": ["a text", "b integer"], "carried": []},
            "'staff' has columns that the contract does not name: a text, b integer",
        ),
        (
            "row_versions_unreadable",
            {"run": 7, "table": "staff", "advice": "GRANT SELECT (xmin) ON staff"},
            "'staff' is read in full by every run, because xmin can't be read; GRANT SELECT (xmin) ON staff",
        ),
        (
            "empty_table_not_compared",
            {"run": 7, "table": "staff", "advice": "ask"},
            "'staff' has no row; the warehouse keeps its rows; ask",
        ),
        ("message_retried", {"attempt": 2, "delay_s": 7.5, "reason": "busy"}, "attempt 2 failed, next in 7.5 s: busy"),
        ("dependency_down", {"dependency": "source", "reason": "the source is away"}, "waiting: the source is away"),
        ("dependency_up", {"dependency": "source"}, "source answers again"),
        ("lease_lost", {"message_id": "m1"}, "lost the lease of message m1; another task has it"),
        ("foreign_keys_wait", {"reason": "locked"}, "foreign keys come later: locked"),
        ("receive_failed", {"reason": "sqs is away"}, "can't receive: sqs is away"),
        ("service_failed", {"error": "no secret"}, "ended: no secret"),
    ],
)
def test_an_event_becomes_a_sentence(event: str, fields: Mapping[str, object], told: str) -> None:
    assert sentence(line(event, **fields)) == f"09:30:15  ingestion    {told}"


@pytest.mark.parametrize(
    "foreign",
    ["Traceback (most recent call last):", "[1]", "7", "", line("message_received"), line("started"), '{"event": ["started"]}'],
)
def test_other_log_lines_are_not_printed(foreign: str) -> None:
    assert sentence(foreign) is None


def test_a_tail_prints_only_appended_lines(tmp_path: Path) -> None:
    log = tmp_path / "loading.log"
    log.write_text("old\n")
    tail = LogTail(log)
    assert list(tail.new_lines()) == []
    with log.open("a") as writer:
        writer.write("one\ntwo\n")
    assert list(tail.new_lines()) == ["one\n", "two\n"]
    assert list(tail.new_lines()) == []


def test_a_tail_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    log = tmp_path / "loading.log"
    tail = LogTail(log)
    assert list(tail.new_lines()) == []
    log.write_bytes("one\nh\u00e4l".encode()[:-2])  # in the middle of a character
    assert list(tail.new_lines()) == ["one\n"]
    log.write_text("one\nh\u00e4lf\n", encoding="utf-8")
    assert list(tail.new_lines()) == ["h\u00e4lf\n"]


def test_a_tail_follows_a_log_that_was_replaced(tmp_path: Path) -> None:
    log = tmp_path / "loading.log"
    log.write_text("a long line before the service was started again\n")
    tail = LogTail(log)
    log.replace(tmp_path / "loading.old.log")
    assert list(tail.new_lines()) == []
    log.write_text("new\n")
    assert list(tail.new_lines()) == ["new\n"]
